"""What a query leaves unparsed could not have matched."""

from __future__ import annotations

import io
import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.independent_log import SEGMENT, make_log

from vram_residency.audit.format.entry import ENTRY_BYTES_MAX
from vram_residency.audit.reading import source as reading
from vram_residency.audit.reading.query import Filters, parse, query
from vram_residency.core.clock import parse_rfc3339

WORDS = ["s-1", "s", "é", 'a"b', "a\\b", "\n", "vram_sealed", "CRITICAL", ""]
TIMES = [
    "2025-10-02T10:00:00.000000Z",
    "2025-10-02T12:00:00.000000+02:00",
    "0100-01-01T00:00:00.000000Z",
    "2025-99-02T10:00:00.000000Z",
]
SPELLINGS = [(",", ":"), (", ", ": ")]
MOMENTS = ["2025-10-02T10:00:00Z", "2025-10-02T10:00:00.000001Z", "0100-01-01T00:00:00Z"]
words = st.sampled_from(WORDS)
values = words | st.integers() | st.lists(words, max_size=2) | st.none()
entries = st.fixed_dictionaries(
    {"index": st.integers(0, 9), "timestamp": st.sampled_from(TIMES) | values, "event_type": values},
    optional={
        "shard_id": values,
        "shard_ids": values,
        "worker_id": values,
        "severity": values,
        "actor": st.fixed_dictionaries({"user_id": values}),
    },
)


@st.composite
def blocks(draw: st.DrawFn) -> bytes:
    """Lines, canonical, in another spelling, with a name that comes twice, or no JSON at all."""
    lines = []
    for entry in draw(st.lists(entries, max_size=6)):
        spelling = draw(st.sampled_from(SPELLINGS))
        text = json.dumps(entry, ensure_ascii=draw(st.booleans()), separators=spelling)
        again = draw(st.sampled_from(["", ',"timestamp":"2025-10-02T10:00:00.000000Z"', ',"shard_id":"s-1"']))
        lines.append(text[:-1] + again + draw(st.sampled_from(["}", "}", "}", "", "\\"])))
    return "".join(line + "\n" for line in lines).encode()


def moment(data: st.DataObject) -> int | None:
    text = data.draw(st.none() | st.sampled_from(MOMENTS))
    return None if text is None else parse_rfc3339(text)


@given(block=blocks(), events=st.none() | st.frozensets(words), data=st.data())
def test_every_matching_line_is_a_candidate(
    block: bytes, events: frozenset[str] | None, data: st.DataObject
) -> None:
    choice = st.none() | words
    filters = Filters(
        events=events,
        shard=data.draw(choice),
        actor=data.draw(choice),
        severity=data.draw(choice),
        since_ns=moment(data),
        until_ns=moment(data),
    )
    lines = block.split(b"\n")[:-1]
    matching = [line for line in lines if (entry := parse(line)) is not None and filters.match(entry)]
    candidates = list(filters.prefilter().candidates(block))
    chosen = [line for line in candidates if (entry := parse(line)) is not None and filters.match(entry)]
    assert chosen == matching


def test_lines_that_do_not_hold_the_words_are_left_out() -> None:
    maker = make_log(seals=50)
    block = b"".join(line + b"\n" for line in maker.lines)
    found = list(Filters(shard="shard-7", events=frozenset({"vram_sealed"})).prefilter().candidates(block))
    assert found == [maker.lines[8]]
    since_ns = parse_rfc3339("2025-10-02T10:00:30Z")
    assert len(list(Filters(since_ns=since_ns).prefilter().candidates(block))) == len(maker.lines) - 29


@given(
    st.lists(st.integers(0, 30) | st.sampled_from([ENTRY_BYTES_MAX, ENTRY_BYTES_MAX + 2, 200_000])),
    st.integers(1, 50),
    st.binary(max_size=3).filter(lambda data: b"\n" not in data),
)
def test_blocks_hold_all_whole_lines_within_the_limit(lengths: list[int], block: int, rest: bytes) -> None:
    lines = [b"%d" % (number % 10) * length for number, length in enumerate(lengths)]
    file = io.BytesIO(b"".join(line + b"\n" for line in lines) + rest)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(reading, "_BLOCK_BYTES", block)
        found = list(reading.blocks(file))
    kept = [line for line in lines if len(line) <= ENTRY_BYTES_MAX]
    got = [line for data, _ in found for line in data.split(b"\n")[:-1]]
    assert [line for line in got if len(line) <= ENTRY_BYTES_MAX] == kept
    for data, end in found:
        assert file.getvalue()[:end].endswith(data)


def test_following_passes_over_a_segment_that_was_removed(tmp_path: Path) -> None:
    maker = make_log(seals=5)
    directory = maker.write(tmp_path / "log", segments=(0, 3))
    waiting = query(directory, follow=True, limit=7)
    assert next(waiting) == maker.lines[0]
    (directory / "entries" / SEGMENT).unlink()
    assert list(waiting) == maker.lines[1:7]


class GrowingFile(io.BytesIO):
    """A file whose last line is finished by its writer between two reads."""

    def readline(self, size: int | None = -1, /) -> bytes:
        found = super().readline(size)
        if not found.endswith(b"\n"):
            position = self.tell()
            self.write(b"rest\n")
            self.seek(position)
        return found


def test_a_line_that_is_finished_while_it_is_read_is_left_for_the_next_time() -> None:
    file = GrowingFile(b"one\ntwo")
    assert list(reading.blocks(file)) == [(b"one\n", 4)]
    file.seek(4)
    assert list(reading.blocks(file)) == [(b"tworest\n", 12)]


@pytest.mark.parametrize("word", ["", "\n", '"', "\\", "\ud800"])
def test_a_filter_that_nothing_can_match_finds_nothing(tmp_path: Path, word: str) -> None:
    directory = make_log().write(tmp_path / "log")
    assert list(query(directory, shard=word)) == []
    assert list(query(directory, event=[word, "vram.sealed"], limit=2)) != []
