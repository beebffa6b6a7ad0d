"""Filters choose entries; what is chosen comes out byte for byte."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import pytest
from tests.independent_log import SEGMENT, LogMaker

from vram_residency.audit.reading.query import find, parse, query
from vram_residency.core.errors import InvalidInputError

ACTOR = {"user_id": "alice", "auth_method": "m_tls"}


@pytest.fixture(scope="module")
def maker() -> LogMaker:
    maker = LogMaker()
    maker.step_s = 60
    maker.open()  # 0, at 10:01
    maker.seal(0)
    maker.seal(1)
    maker.append("seal_verification_failed", shard_id="shard-1", worker_id="w-2", severity="CRITICAL")
    maker.append("token_created", actor=ACTOR, token_fingerprint="a1b2c3", scope=["read"])
    maker.append("acme.unknown", shard_id="shard-1", novel={"deep": [1, {"a": None}]})
    maker.append("shards_lost", shard_ids=["shard-0", "shard-7"], reason="worker died")
    maker.close()
    return maker


@pytest.fixture(scope="module")
def directory(maker: LogMaker, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return maker.write(tmp_path_factory.mktemp("query") / "log", segments=(0, 3, 6))


@pytest.mark.parametrize(
    ("filters", "indexes"),
    [
        ({}, range(9)),
        ({"event": "vram_sealed"}, [1, 2]),
        ({"event": "vram.sealed"}, [1, 2]),
        ({"event": ["vram.sealed", "log.opened"]}, [0, 1, 2]),
        ({"event": "acme.unknown"}, [5]),
        ({"event": "nothing"}, []),
        ({"shard": "shard-1"}, [2, 3, 5]),
        ({"shard": "shard-0"}, [1, 6]),
        ({"actor": "alice"}, [4]),
        ({"actor": "w-2"}, [3]),
        ({"severity": "CRITICAL"}, [3]),
        ({"severity": "critical"}, [3]),
        ({"severity": "LOW"}, []),
        ({"since": "2025-10-02T10:07:00Z"}, [6, 7, 8]),
        ({"until": "2025-10-02T10:03:00Z"}, [0, 1]),
        ({"since": "2025-10-02T12:03:00+02:00", "until": "2025-10-02T10:04:00Z"}, [2]),
        ({"since": "2025-10-02"}, range(9)),
        ({"until": "2025-10-02"}, []),
        ({"limit": 2}, [0, 1]),
        ({"limit": 0}, []),
        ({"event": "vram_sealed", "shard": "shard-1", "limit": 5}, [2]),
    ],
)
def test_filters(directory: Path, maker: LogMaker, filters: dict[str, Any], indexes: list[int]) -> None:
    assert list(query(directory, **filters)) == [maker.lines[index] for index in indexes]


@pytest.mark.parametrize(
    "filters", [{"since": "noon"}, {"until": "2025-10-02T10:00:00"}, {"limit": -1}, {"since": ""}]
)
def test_a_filter_that_means_nothing_is_refused(directory: Path, filters: dict[str, Any]) -> None:
    with pytest.raises(InvalidInputError, match=next(iter(filters))):
        query(directory, **filters)


def test_what_is_no_log_is_refused_at_once(tmp_path: Path) -> None:
    with pytest.raises(InvalidInputError, match="not an audit log"):
        query(tmp_path)


def test_lines_that_are_no_entries_are_passed_over(tmp_path: Path, maker: LogMaker) -> None:
    directory = maker.write(tmp_path / "log")
    junk = b"\xff\n[1]\n{\n" + b"[" * 5000 + b"\n" + b"x" * 100_000 + b"\n"
    with (directory / "entries" / SEGMENT).open("ab") as file:
        file.write(junk + maker.lines[1] + b"\n" + maker.lines[2][:50])
    assert list(query(directory, event="vram.sealed")) == [*maker.lines[1:3], maker.lines[1]]
    assert list(query(directory)) == [*maker.lines, maker.lines[1]]
    assert parse(b"[1]") is None


def test_an_entry_is_found_by_its_index(directory: Path, maker: LogMaker) -> None:
    for index, line in enumerate(maker.lines):
        assert find(directory, index).line == line
    assert find(directory, 4).file == f"entries/{3:020}.jsonl"
    assert find(directory, 4).offset == len(maker.lines[3]) + 1
    for missing in (9, 10**30):
        with pytest.raises(InvalidInputError, match="no entry"):
            find(directory, missing)


def test_following_gives_what_is_written_later_in_this_segment_and_the_next(
    tmp_path: Path, maker: LogMaker
) -> None:
    directory = maker.write(tmp_path / "log", size=0)
    segment = directory / "entries" / SEGMENT
    segment.write_bytes(maker.lines[0] + b"\n" + maker.lines[1][:20])
    waiting = query(directory, follow=True, limit=4)
    assert next(waiting) == maker.lines[0]

    def write_more() -> None:
        with segment.open("ab") as file:
            file.write(maker.lines[1][20:] + b"\n" + maker.lines[2] + b"\n")
        (directory / "entries" / f"{3:020}.jsonl").write_bytes(maker.lines[3] + b"\n")

    writer = threading.Thread(target=write_more)
    writer.start()
    assert list(waiting) == maker.lines[1:4]
    writer.join()
