"""The trace that an operation belongs to: W3C Trace Context, or OpenTelemetry's active span."""

from __future__ import annotations

import re
import secrets
import sys
from contextvars import ContextVar
from typing import NamedTuple

_TRACEPARENT = re.compile(
    r"(?P<version>[0-9a-f]{2})-(?P<trace_id>[0-9a-f]{32})-(?P<span_id>[0-9a-f]{16})-(?P<flags>[0-9a-f]{2})"
    r"(?P<rest>-.*)?\Z"
)
_NO_TRACE, _NO_SPAN = "0" * 32, "0" * 16
_TRACEPARENT_CHARACTERS_MAX = 512


class TraceParent(NamedTuple):
    """The caller's place in a trace: ids in lower-case hex (32 and 16 digits), flags as two digits."""

    trace_id: str
    span_id: str
    flags: str = "00"

    def __str__(self) -> str:
        return f"00-{self.trace_id}-{self.span_id}-{self.flags}"


_current: ContextVar[TraceParent | None] = ContextVar("vram_traceparent", default=None)


def parse_traceparent(unverified: str) -> TraceParent | None:
    """What a ``traceparent`` header says (W3C Trace Context, section 3.2), None where it breaks a rule."""
    match = _TRACEPARENT.match(unverified[:_TRACEPARENT_CHARACTERS_MAX])
    if match is None or match["version"] == "ff" or (match["version"] == "00" and match["rest"]):
        return None
    if match["trace_id"] == _NO_TRACE or match["span_id"] == _NO_SPAN:
        return None
    return TraceParent(match["trace_id"], match["span_id"], match["flags"])


def set_trace(parent: TraceParent | None) -> None:
    """From now on this context works for ``parent``."""
    _current.set(parent)


def outgoing_traceparent() -> str | None:
    """The header for a call made now: the active span's, else the caller's trace with a new span id."""
    span = _opentelemetry_span()
    if span is not None:
        return str(span)
    parent = _current.get()
    return str(parent._replace(span_id=_new_span_id())) if parent else None


def trace_fields() -> dict[str, str]:
    """``trace_id`` with ``span_id`` of the active span, or with the caller's ``parent_span_id``."""
    span = _opentelemetry_span()
    if span is not None:
        return {"trace_id": span.trace_id, "span_id": span.span_id}
    parent = _current.get()
    return {"trace_id": parent.trace_id, "parent_span_id": parent.span_id} if parent else {}


def _opentelemetry_span() -> TraceParent | None:
    # Whoever has an active span has imported this module; importing it for them would cost for nothing.
    opentelemetry = sys.modules.get("opentelemetry.trace")
    if opentelemetry is None:
        return None
    context = opentelemetry.get_current_span().get_span_context()
    if not context.is_valid:
        return None
    return TraceParent(f"{context.trace_id:032x}", f"{context.span_id:016x}", f"{context.trace_flags:02x}")


def _new_span_id() -> str:
    span_id = secrets.token_hex(8)
    return span_id if span_id != _NO_SPAN else _new_span_id()
