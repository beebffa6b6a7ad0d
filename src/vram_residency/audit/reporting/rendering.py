"""A report in one of its forms, as bytes."""

from __future__ import annotations

import json
from typing import Final, Literal, get_args

import msgspec

from vram_residency.audit.reporting import markdown, page
from vram_residency.audit.reporting.report import Report

Form = Literal["html", "md", "json"]
FORMS: Final[tuple[Form, ...]] = get_args(Form)


def render(report: Report, form: Form) -> bytes:
    """HTML and Markdown in UTF-8; JSON as one document on one line, pure ASCII."""
    if form == "html":
        return page.render(report).encode()
    if form == "md":
        return markdown.render(report).encode()
    return (json.dumps(msgspec.to_builtins(report), ensure_ascii=True) + "\n").encode("ascii")
