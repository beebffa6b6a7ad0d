"""Correlation ids and traces: taken from headers, checked, replaced, written again."""

from __future__ import annotations

import sys
import uuid
from collections.abc import Iterator
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.narration_calls import call

from vram_residency.core import context
from vram_residency.core.identifiers import is_correlation_id
from vram_residency.narration import Story, read_headers, set_correlation_id, write_headers
from vram_residency.narration.trace import TraceParent, parse_traceparent, set_trace

TRACE_ID, SPAN_ID = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
TRACEPARENT = f"00-{TRACE_ID}-{SPAN_ID}-01"  # W3C Trace Context, section 3.2.1


@pytest.fixture(autouse=True)
def _no_request() -> Iterator[None]:
    yield
    set_correlation_id(None)
    set_trace(None)


@pytest.mark.parametrize("valid", ["r", "req-1.2_X", "x" * 128, "1c04ff6e-b7af-4127-a404-bce53a57f403"])
def test_a_valid_id_is_kept(narration: Story, valid: str) -> None:
    """And carried by what is told after."""
    assert set_correlation_id(valid) == valid
    call("seal")
    assert narration.one(action="seal").correlation_id == valid


@pytest.mark.parametrize(
    "invalid",
    ["", "a b", "x" * 129, "a\nb", "é", "req-1\n", "a/b", "\u202e", "eyJhbGciOi.eyJzdWIiOi.c2lnbmF0dXJl"],
)
def test_an_invalid_id_is_replaced_and_that_is_narrated(narration: Story, invalid: str) -> None:
    """The sentence names the new one alone; a token is no id either."""
    replacement = set_correlation_id(invalid)
    assert replacement is not None
    assert uuid.UUID(replacement)
    assert context.correlation_id.get() == replacement
    event = narration.one(action="correlation_replaced", level="warn", correlation_id=replacement)
    assert event.human == f"Replaced an invalid correlation id by the new one {replacement}"


def test_an_invalid_id_given_to_a_function_is_replaced_too(narration: Story) -> None:
    """The event carries the same new id as the sentence about it."""
    call("seal", correlation_id="not an id")
    replaced, sealed = narration.events
    assert replaced.action == "correlation_replaced"
    assert sealed.correlation_id == replaced.correlation_id


def test_an_id_can_be_cleared(narration: Story) -> None:
    """None takes it away."""
    set_correlation_id("req-1")
    assert set_correlation_id(None) is None
    call("seal")
    assert narration.one(action="seal").correlation_id is None


def test_headers_are_read_in_any_case_and_written_again() -> None:
    """The trace goes on with a span of our own."""
    assert read_headers({"x-correlation-ID": "req-7", "TraceParent": TRACEPARENT}) == "req-7"
    written = write_headers()
    assert written["X-Correlation-Id"] == "req-7"
    parent = parse_traceparent(written["traceparent"])
    assert parent is not None
    assert (parent.trace_id, parent.flags) == (TRACE_ID, "01")
    assert parent.span_id != SPAN_ID


def test_the_callers_trace_is_told(narration: Story) -> None:
    """Its span is the parent of what we do."""
    read_headers({"traceparent": TRACEPARENT})
    call("seal")
    event = narration.one(action="seal")
    assert (event.trace_id, event.parent_span_id, event.span_id) == (TRACE_ID, SPAN_ID, None)
    assert event.correlation_id == TRACE_ID


def test_without_headers_there_is_a_new_id_and_no_trace(narration: Story) -> None:
    """Nothing was invalid, so nothing is narrated."""
    made = read_headers({})
    assert uuid.UUID(made)
    assert write_headers() == {"X-Correlation-Id": made}
    assert narration.events == []


def test_an_invalid_header_is_replaced(narration: Story) -> None:
    """A broken traceparent is ignored; a broken id is replaced and narrated."""
    made = read_headers({"X-Correlation-Id": "a\r\nSet-Cookie: x", "traceparent": "nonsense"})
    assert uuid.UUID(made)
    assert narration.one(action="correlation_replaced").correlation_id == made
    assert "traceparent" not in write_headers()


def test_outside_a_request_no_header_is_written() -> None:
    """There is nothing to say."""
    assert write_headers() == {}


@pytest.mark.parametrize(
    "valid",
    [
        TRACEPARENT,
        f"00-{TRACE_ID}-{SPAN_ID}-00",
        f"01-{TRACE_ID}-{SPAN_ID}-01",
        f"cc-{TRACE_ID}-{SPAN_ID}-ff-more",
    ],
)
def test_a_valid_traceparent_is_understood(valid: str) -> None:
    """A later version may have more fields."""
    assert parse_traceparent(valid) == TraceParent(TRACE_ID, SPAN_ID, valid[53:55])


@pytest.mark.parametrize(
    "invalid",
    [
        "",
        TRACEPARENT.upper(),
        f"{TRACEPARENT}-more",
        f"{TRACEPARENT}\n",
        f" {TRACEPARENT}",
        f"ff-{TRACE_ID}-{SPAN_ID}-01",
        f"00-{'0' * 32}-{SPAN_ID}-01",
        f"00-{TRACE_ID}-{'0' * 16}-01",
        f"00-{TRACE_ID[:-1]}-{SPAN_ID}-01",
        f"01-{TRACE_ID}-{SPAN_ID}-01more",
    ],
)
def test_an_invalid_traceparent_is_none(invalid: str) -> None:
    """Each rule of W3C Trace Context, section 3.2."""
    assert parse_traceparent(invalid) is None


@given(st.text(max_size=140))
def test_whatever_is_given_an_id_comes_out(text: str) -> None:
    """Never an exception, never an invalid id."""
    assert is_correlation_id(str(set_correlation_id(text)))


def test_an_active_opentelemetry_span_is_told(narration: Story, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the application has OpenTelemetry; it goes before the header's trace."""
    span_context = SimpleNamespace(is_valid=True, trace_id=0xABC, span_id=0xDEF, trace_flags=1)
    span = SimpleNamespace(get_span_context=lambda: span_context)
    fake = SimpleNamespace(get_current_span=lambda: span)
    monkeypatch.setitem(sys.modules, "opentelemetry.trace", fake)
    read_headers({"traceparent": TRACEPARENT})
    call("seal")
    event = narration.one(action="seal")
    assert (event.trace_id, event.span_id) == (f"{0xABC:032x}", f"{0xDEF:016x}")
    assert write_headers()["traceparent"] == f"00-{0xABC:032x}-{0xDEF:016x}-01"
    span_context.is_valid = False
    call("sign")
    assert narration.one(action="sign").trace_id == TRACE_ID
