"""A body is looked into first and taken after that, whatever pieces it comes in."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vram_residency import InvalidInputError, MalformedModelError
from vram_residency.worker import body
from vram_residency.worker.body import BodySource


def source_of(data: bytes, pieces: list[int], *, size: int | None = None) -> BodySource:
    """A body that comes in pieces of these sizes, then whole."""
    left, sizes = bytearray(data), iter(pieces)

    def pull() -> bytes:
        count = next(sizes, len(left))
        piece = bytes(left[:count])
        del left[:count]
        return piece

    return BodySource(pull, size_bytes=len(data) if size is None else size, name="a")


@given(
    st.binary(min_size=1, max_size=300),
    st.lists(st.integers(1, 50)),
    st.lists(st.tuples(st.integers(0, 300), st.integers(0, 300)), max_size=4),
    st.integers(1, 64),
)
def test_what_is_read_is_what_was_sent(
    data: bytes, pieces: list[int], looks: list[tuple[int, int]], run: int
):
    source = source_of(data, pieces)
    for start, end in looks:
        start, end = min(start, len(data)), min(max(start, end), len(data))  # noqa: PLW2901
        assert source.read(start, end - start) == data[start:end]
    taken = bytearray(len(data))
    for start in range(0, len(data), run):
        view = memoryview(taken)[start : start + run]
        source.read_into(start, view)
    assert taken == data


@pytest.mark.parametrize(("offset", "length"), [(-1, 1), (0, 6), (5, 1), (0, -1)])
def test_nothing_outside_is_read(offset: int, length: int):
    with pytest.raises(ValueError, match="inside its bounds"):
        source_of(b"12345", []).read(offset, length)


@pytest.mark.parametrize("offset", [1, -1, 5])
def test_a_body_is_taken_in_order(offset: int):
    with pytest.raises(ValueError, match="from its start"):
        source_of(b"12345", []).read_into(offset, memoryview(bytearray(2)))


def test_after_it_was_taken_nothing_can_be_looked_up():
    source = source_of(b"12345", [])
    source.read_into(0, memoryview(bytearray(1)))
    with pytest.raises(ValueError, match="before it is taken"):
        source.read(0, 1)


def test_a_body_that_ends_early_is_said_to():
    source = source_of(b"12345", [2], size=9)
    with pytest.raises(InvalidInputError, match="ended after 5 of 9 bytes"):
        source.read_into(0, memoryview(bytearray(9)))


def test_a_header_without_end_is_not_kept(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(body, "KEPT_BYTES_MAX", 4)
    with pytest.raises(MalformedModelError, match="header of more than 4 bytes"):
        source_of(b"12345", []).read(0, 5)
