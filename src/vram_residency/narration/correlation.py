"""The correlation id and trace of a request: set once by the caller, carried by everything told after."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from vram_residency.core import context
from vram_residency.core.identifiers import CorrelationId, new_correlation_id
from vram_residency.narration.narrator import accepted_correlation_id
from vram_residency.narration.trace import outgoing_traceparent, parse_traceparent, set_trace

CORRELATION_HEADER: Final = "X-Correlation-Id"
TRACE_HEADER: Final = "traceparent"


def set_correlation_id(unverified: str | None) -> CorrelationId | None:
    """Set this context's correlation id and return it; None clears it.

    Valid are UUIDs and 1 to 128 of ``[A-Za-z0-9._-]``; anything else is replaced by a new one, and that is
    narrated.
    """
    accepted = None if unverified is None else CorrelationId(accepted_correlation_id(unverified))
    context.correlation_id.set(accepted)
    return accepted


def read_headers(headers: Mapping[str, str]) -> CorrelationId:
    """Take correlation id and trace from a request's headers (any case), and return the correlation id.

    Without ``X-Correlation-Id`` the trace id serves, so that both systems name the request alike; without
    either a new id is made. An invalid ``traceparent`` is ignored, as W3C Trace Context asks.
    """
    given = {name.lower(): value for name, value in headers.items()}
    parent = parse_traceparent(given.get(TRACE_HEADER, ""))
    set_trace(parent)
    unverified = given.get(CORRELATION_HEADER.lower())
    if unverified is None:
        unverified = parent.trace_id if parent else new_correlation_id()
    accepted = CorrelationId(accepted_correlation_id(unverified))
    context.correlation_id.set(accepted)
    return accepted


def write_headers() -> dict[str, str]:
    """Headers for a request made in this context: those of the two that there is something to say in."""
    correlation_id = context.correlation_id.get()
    traceparent = outgoing_traceparent()
    return ({CORRELATION_HEADER: correlation_id} if correlation_id else {}) | (
        {TRACE_HEADER: traceparent} if traceparent else {}
    )
