"""Errors as HTTP answers: problem details (RFC 9457) with the headers that belong to them."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec
from litestar.exceptions import HTTPException
from litestar.types import Send

from vram_residency import narration
from vram_residency.core import context
from vram_residency.core.errors import VramError
from vram_residency.worker import problem
from vram_residency.worker.problem import Kind, Problem, Refused, problem_of


def answer_of(error: Exception) -> tuple[Problem, dict[str, str]]:
    """The problem of an error and its headers; the text of foreign errors stays here."""
    known = _known(error)
    if not isinstance(known, Refused | VramError):
        _tell(known)
    found = problem_of(known, correlation_id=context.correlation_id.get())
    headers = dict(_headers_of(error))
    if found.retry_after_ms is not None:
        headers["Retry-After"] = str(-(-found.retry_after_ms // 1000))
    return found, headers


async def send_problem(error: Exception, send: Send) -> None:
    """Answer with an error where there is no framework around."""
    found, headers = answer_of(error)
    body = msgspec.json.encode(found)
    headers |= {"Content-Type": problem.MEDIA_TYPE, "Content-Length": str(len(body))}
    encoded = [(name.lower().encode("latin-1"), value.encode("latin-1")) for name, value in headers.items()]
    await send({"type": "http.response.start", "status": found.status, "headers": encoded})
    await send({"type": "http.response.body", "body": body, "more_body": False})


def _headers_of(error: Exception) -> Mapping[str, str]:
    return (error.headers or {}) if isinstance(error, HTTPException) else {}


def _known(error: Exception) -> Exception:
    """The framework's own refusals (no such route, a body that does not fit) as ours."""
    if not isinstance(error, HTTPException) or error.status_code >= problem.INTERNAL.status:
        return error
    kind = Kind("INVALID_PARAMS", error.status_code, problem.INVALID_PARAMS.title)
    rules = [_rule(each) for each in error.extra] if isinstance(error.extra, list) else []
    return Refused(kind, ": ".join(part for part in (error.detail, "; ".join(rules)) if part))


def _rule(found: object) -> str:
    if not isinstance(found, Mapping):
        return str(found)
    return f"{found['key']}: {found['message']}" if "key" in found else str(found.get("message", ""))


def _tell(error: Exception) -> None:
    """An error that is none of ours: told here, since the caller hears nothing of it."""
    narration.narrate(
        action="request_failed",
        target=type(error).__name__,
        human=f"A request failed inside the worker: {type(error).__name__}",
        level="error",
        error_kind=type(error).__name__,
    )
