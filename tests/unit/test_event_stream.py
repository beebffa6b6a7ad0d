"""Server-sent events are read as they were written, however the network cuts them."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vram_residency.worker import event_stream
from vram_residency.worker.event_stream import EventReader, ServerEvent
from vram_residency.worker.streaming import event_bytes


def read(*chunks: bytes) -> list[ServerEvent]:
    reader = EventReader()
    return [event for chunk in chunks for event in reader.feed(chunk)]


@given(
    st.lists(st.tuples(st.sampled_from(["started", "output", "end"]), st.text()), max_size=5),
    st.lists(st.integers(min_value=0, max_value=400), max_size=6),
)
def test_what_the_worker_writes_is_read_again_wherever_it_is_cut(
    written: list[tuple[str, str]], cuts: list[int]
):
    """No character of an output ends a line: neither U+2028 nor U+0085, at which others split."""
    stream = b"".join(event_bytes(name, data) for name, data in written)
    places = [0, *sorted(min(cut, len(stream)) for cut in cuts), len(stream)]
    found = read(*(stream[start:end] for start, end in itertools.pairwise(places)))
    assert [event.name for event in found] == [name for name, _ in written]
    assert b"".join(event_bytes(*pair) for pair in written) == b"".join(
        b"event: " + event.name.encode() + b"\ndata: " + event.data + b"\n\n" for event in found
    )


def test_what_other_servers_write_is_read_as_the_standard_says():
    """Comments, ids, CR LF, several lines of data, no name, no space after the colon."""
    stream = b": hello\r\nid: 7\r\ndata: a\r\ndata:b\r\n\r\n\n\nevent: x\n\nretry: 3\nevent: y\ndata\n\n"
    assert read(stream) == [ServerEvent("message", b"a\nb"), ServerEvent("y", b"")]


def test_an_event_that_was_not_ended_is_none():
    assert read(b"event: end\ndata: {}\n") == []


def test_a_line_without_end_is_refused(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(event_stream, "LINE_BYTES_MAX", 100)
    with pytest.raises(ValueError, match="over 100 bytes"):
        read(b"data: ", b"x" * 200)
