"""A report as Markdown (CommonMark with tables)."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from html import escape
from typing import Final

from vram_residency.audit.reporting import sentences
from vram_residency.audit.reporting.report import Evidence, Report, Row
from vram_residency.core.text import visible

# The last two keep an address in an entry from becoming a link.
_SPECIAL = re.compile(r"([\\`*_{}\[\]#|~!]|(?<=:)/|(?<=www)\.)")
_RULE: Final = "---"


def render(report: Report) -> str:
    """The whole report; text that comes from the log can neither make markup nor leave its cell."""
    return "\n".join([*_head(report), *_controls(report), *_events(report), *_limits(report)]) + "\n"


def _head(report: Report) -> Iterator[str]:
    yield f"# Evidence by {_text(report.standard_name)}"
    yield ""
    yield f"**{_text(sentences.verdict(report.verification))}**"
    yield ""
    yield _text(report.notice)
    yield ""
    yield from _table(("", ""), [(_text(name), _text(value)) for name, value in sentences.facts(report)])
    yield ""
    yield "## Summary"
    yield ""
    rows = [
        (_text(status), str(count), _text(report.statuses[status]))
        for status, count in report.summary.items()
    ]
    yield from _table(("Status", report.about.plural, "It means"), rows)
    yield ""


def _controls(report: Report) -> Iterator[str]:
    yield "## At a glance"
    yield ""
    rows = [(_text(row.id), _text(row.title), _text(row.status)) for row in report.controls]
    yield from _table(("", report.about.plural, "Status"), rows)
    yield ""
    yield f"## {report.about.plural}"
    yield ""
    for row in report.controls:
        yield f"### {_text(row.id)} {_text(row.title)}"
        yield ""
        yield f"**{_text(row.status)}**: {_text(row.reason)}"
        yield ""
        yield from _evidence(row)
        yield f"Beyond this log: {_text(row.beyond)}"
        yield ""


def _evidence(row: Row) -> Iterator[str]:
    if row.evidence:
        yield from _table(("Evidence", "Entries", "Such as entries"), map(_evidence_row, row.evidence))
        yield ""


def _evidence_row(evidence: Evidence) -> tuple[str, str, str]:
    examples = "; ".join(sentences.examples(event) for event in evidence.events)
    says = evidence.says if evidence.due else f"{evidence.says} (where it happens)"
    return _text(says), str(evidence.count), _text(examples)


def _events(report: Report) -> Iterator[str]:
    yield "## All entries of the period, by type"
    yield ""
    rows = [
        (_text(sentences.short(event.event_type)), str(event.count), _text(sentences.indexes(event)))
        for event in report.events
    ]
    yield from _table(("Event", "Entries", "Such as entries"), rows)
    yield ""


def _limits(report: Report) -> Iterator[str]:
    yield "## What this does not prove"
    yield ""
    yield from (f"- {_text(limit)}" for limit in report.limits)


def _table(columns: Iterable[str], rows: Iterable[Iterable[str]]) -> Iterator[str]:
    heads = list(columns)
    for cells in (heads, [_RULE] * len(heads), *rows):
        yield f"| {' | '.join(cells)} |"


def _text(text: str) -> str:
    # In a page made from this Markdown nothing may become a tag or a character of its own.
    return escape(_SPECIAL.sub(r"\\\1", visible(text)), quote=False)
