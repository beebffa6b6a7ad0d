"""The journal: events that emit() accepted survive the process, once, in order, and whole or not at all."""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
from pathlib import Path
from typing import Any, Literal

import pytest
from tests.audit_logs import (
    FaultyFiles,
    ManualClock,
    PowerCutError,
    abandon,
    event_types,
    make_log,
    open_log,
    reference_check,
    sealed,
)

from vram_residency.audit.events.vram import SealVerified
from vram_residency.audit.log import AuditLogger
from vram_residency.audit.writing.ring import HEADER_BYTES
from vram_residency.core import context
from vram_residency.core.errors import AuditWriteError, BufferFullError, LogDamagedError


def _journal(folder: Path) -> Path:
    return folder / "log" / "journal"


def _die_with(folder: Path, events: int = 3, **options: object) -> None:
    """A log whose writer died with accepted events that it never wrote."""
    logger = open_log(folder, **options)
    for number in range(events):
        logger.emit(sealed(number))
    abandon(logger)


def _shards(folder: Path) -> list[str]:
    return [entry["shard_id"] for entry in reference_check(folder) if "shard_id" in entry]


def _reopen(folder: Path, **options: object) -> dict[str, object]:
    """Open and close; the last log_opened."""
    open_log(folder, **options).close()
    return [entry for entry in reference_check(folder) if entry["event_type"] == "log_opened"][-1]


def _flip(path: Path, offset: int) -> None:
    data = bytearray(path.read_bytes())
    data[offset] ^= 1
    path.write_bytes(data)


def test_events_that_were_never_written_are_recovered_before_log_opened(tmp_path: Path) -> None:
    _die_with(tmp_path)
    assert event_types(tmp_path) == ["log_opened"]
    opened = _reopen(tmp_path)
    assert _shards(tmp_path) == ["shard-0", "shard-1", "shard-2"]
    assert (opened["clean"], opened["recovered_events"], opened["recovered_first_index"]) == (False, 3, 1)
    assert opened["index"] == 4


def test_recovered_events_keep_their_time_their_context_and_their_cleaning(tmp_path: Path) -> None:
    clock = ManualClock()
    logger = open_log(tmp_path, clock=clock)
    with context.operation() as correlation_id:
        logger.emit(sealed(0, model_ref="\u202e"))
        logger.emit(sealed(1, model_ref="x" * 20_000))
    logger.emit(sealed(0, shard_id="\udc80"))
    abandon(logger)
    clock.advance(60)
    _reopen(tmp_path, clock=clock)
    first, second, third = reference_check(tmp_path)[1:4]
    assert first["timestamp"] == third["timestamp"] == "2025-10-09T08:53:20.000000Z"
    assert first["correlation_id"] == second["correlation_id"] == str(correlation_id)
    assert first["model_ref"] == "\\u{202E}"
    assert "[20000 bytes, sha256:" in second["model_ref"]
    assert third["shard_id"] == "\\u{DC80}"
    assert first["sanitized"] == second["sanitized"] == ["model_ref"]


def test_what_a_segment_holds_already_is_not_appended_again(tmp_path: Path) -> None:
    """A process killed between the sync of a batch and the journal's header leaves the journal of before."""
    clock = ManualClock()
    logger = open_log(tmp_path, clock=clock)
    for number in range(3):
        logger.emit(sealed(number))
    before = _journal(tmp_path).read_bytes()
    logger.flush()
    logger.emit(sealed(3), durable=True)
    abandon(logger)
    _journal(tmp_path).write_bytes(before)
    opened = _reopen(tmp_path, clock=clock)
    assert _shards(tmp_path) == [f"shard-{number}" for number in range(4)]
    assert opened["recovered_events"] == 0


def test_an_opening_that_is_killed_itself_may_be_repeated(tmp_path: Path) -> None:
    _die_with(tmp_path)
    journal = _journal(tmp_path).read_bytes()
    abandon(open_log(tmp_path))
    _journal(tmp_path).write_bytes(journal)
    assert _reopen(tmp_path)["recovered_events"] == 0
    assert _shards(tmp_path) == ["shard-0", "shard-1", "shard-2"]


def test_the_counts_of_refused_events_survive_and_are_told_once(tmp_path: Path) -> None:
    logger = open_log(tmp_path, capacity=2, reserved=0)
    for number in range(2):
        logger.emit(sealed(number))
    for number in range(3):
        with pytest.raises(BufferFullError, match="2 events"):
            logger.emit(SealVerified(shard_id=f"refused-{number}", worker_id="w"))
    journal = _journal(tmp_path).read_bytes()
    abandon(logger)
    abandon(open_log(tmp_path))
    assert event_types(tmp_path)[1:] == ["vram_sealed", "vram_sealed", "events_dropped", "log_opened"]
    _journal(tmp_path).write_bytes(journal)
    _reopen(tmp_path)
    dropped = [entry for entry in reference_check(tmp_path) if entry["event_type"] == "events_dropped"]
    assert [entry["count"] for entry in dropped] == [3]


def test_losses_are_told_with_what_was_written_and_not_again(tmp_path: Path) -> None:
    logger = open_log(tmp_path, capacity=1, reserved=0)
    logger.emit(sealed(0))
    with pytest.raises(BufferFullError, match="1 events"):
        logger.emit(sealed(1))
    logger.flush()
    abandon(logger)
    _reopen(tmp_path)
    assert event_types(tmp_path).count("events_dropped") == 1


def test_no_flipped_bit_of_a_record_is_accepted(tmp_path: Path) -> None:
    """A record is recovered as it was emitted, or counted as lost and kept for whoever wants to look."""
    _die_with(tmp_path / "whole", 2)
    data = _journal(tmp_path / "whole").read_bytes()
    length = data.index(b"shard-1") - data.index(b"shard-0")
    for offset in range(HEADER_BYTES, HEADER_BYTES + length, 17):
        folder = tmp_path / str(offset)
        shutil.copytree(tmp_path / "whole", folder)
        _flip(_journal(folder), offset)
        opened = _reopen(folder)
        assert opened["clean"] is False
        entries = reference_check(folder)
        assert [entry["shard_id"] for entry in entries if "shard_id" in entry] in (
            ["shard-1"],
            ["shard-0", "shard-1"],
        )
        if opened["recovered_events"] == 1:
            assert [entry["count"] for entry in entries if entry["event_type"] == "events_dropped"] == [1]
            assert (folder / "log" / "journal.torn").exists()


def test_a_damaged_last_record_is_counted_and_every_damaged_journal_is_kept(tmp_path: Path) -> None:
    for _ in range(2):
        _die_with(tmp_path, 1)
        _flip(_journal(tmp_path), _journal(tmp_path).read_bytes().index(b"shard-0"))
        _reopen(tmp_path)
    assert _shards(tmp_path) == []
    assert event_types(tmp_path).count("events_dropped") == 2
    assert {path.name for path in (tmp_path / "log").glob("journal.torn*")} == {
        "journal.torn",
        "journal.torn.2",
    }


def test_a_journal_of_another_size_is_emptied_and_replaced(tmp_path: Path) -> None:
    _die_with(tmp_path, 30, capacity=50)
    size = _journal(tmp_path).stat().st_size
    _reopen(tmp_path, capacity=10)
    assert _shards(tmp_path) == [f"shard-{number}" for number in range(30)]
    assert _journal(tmp_path).stat().st_size < size
    assert not _journal(tmp_path).with_name("journal.new").exists()


def test_a_half_written_header_is_the_one_before(tmp_path: Path) -> None:
    logger = open_log(tmp_path)
    logger.emit(sealed(0), durable=True)
    logger.emit(sealed(1))
    journal = _journal(tmp_path).read_bytes()
    abandon(logger)
    for slot in (512, 1024):
        folder = tmp_path / str(slot)
        shutil.copytree(tmp_path / "log", folder / "log")
        shutil.copytree(tmp_path / "keys", folder / "keys")
        _journal(folder).write_bytes(journal[: slot + 8] + bytes(16) + journal[slot + 24 :])
        _reopen(folder)
        assert _shards(folder) == ["shard-0", "shard-1"]


def test_a_journal_that_nobody_can_have_left_stops_the_opening(tmp_path: Path) -> None:
    _die_with(tmp_path)
    good = _journal(tmp_path).read_bytes()
    make_log(tmp_path / "other")
    _die_with(tmp_path / "other")
    bad = {
        "another version": good.replace(b"/v1\n", b"/v2\n", 1),
        "shorter than its header": good[:600],
        "its header says": good[:-8],
        "checksum is wrong": good[:20] + b"\x01" + good[21:],
        "neither slot": good[:512] + bytes(HEADER_BYTES - 512) + good[HEADER_BYTES:],
        "another log": _journal(tmp_path / "other").read_bytes(),
    }
    for reason, data in bad.items():
        _journal(tmp_path).write_bytes(data)
        with pytest.raises(LogDamagedError, match=reason):
            open_log(tmp_path)
    _journal(tmp_path).write_bytes(good)
    _reopen(tmp_path)
    assert len(_shards(tmp_path)) == 3


def test_a_segment_cut_behind_what_the_journal_knows_stops_the_opening(tmp_path: Path) -> None:
    logger = open_log(tmp_path, clock=ManualClock())
    logger.flush()
    for number in range(3):
        logger.emit(sealed(number), durable=True)
    abandon(logger)
    segment = next((tmp_path / "log" / "entries").glob("*.jsonl"))
    lines = segment.read_bytes().splitlines(keepends=True)
    segment.write_bytes(b"".join(lines[:-1]))
    with pytest.raises(LogDamagedError, match="the journal knows of 4"):
        open_log(tmp_path)


def test_a_journal_is_as_long_as_it_says_on_the_disk_and_private(tmp_path: Path) -> None:
    open_log(tmp_path).close()
    status = _journal(tmp_path).stat()
    assert status.st_blocks * 512 >= status.st_size
    assert status.st_mode & 0o777 == 0o600


def test_an_opening_without_room_for_the_journal_writes_nothing(tmp_path: Path) -> None:
    class FullDisk(FaultyFiles):
        def allocate(self, descriptor: int, size: int) -> None:
            raise OSError(28, "No space left on device")

    make_log(tmp_path)
    with pytest.raises(AuditWriteError, match="prepare failed"):
        open_log(tmp_path, files=FullDisk())
    open_log(tmp_path).close()
    assert event_types(tmp_path) == ["log_opened", "log_closed", "epoch_closed"]


def test_a_file_system_that_cannot_allocate_is_written_full(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(descriptor: int, offset: int, size: int) -> None:
        raise OSError(errno.EOPNOTSUPP, "Operation not supported")

    monkeypatch.setattr(os, "posix_fallocate", refuse)
    _die_with(tmp_path)
    status = _journal(tmp_path).stat()
    assert status.st_blocks * 512 >= status.st_size
    _reopen(tmp_path)
    assert len(_shards(tmp_path)) == 3


def test_large_events_fill_the_ordinary_part_and_leave_the_reserved_one(tmp_path: Path) -> None:
    logger = open_log(tmp_path, capacity=10, reserved=4)
    accepted = 0
    with contextlib.suppress(BufferFullError):
        while True:
            logger.emit(sealed(accepted, digest="é" * 8000))
            accepted += 1
    assert 1 < accepted < 10
    for _ in range(4):
        logger.emit(SealVerified(shard_id="y" * 8000, worker_id="w"))
    logger.close()
    assert event_types(tmp_path).count("seal_verified") == 4
    reference_check(tmp_path)


def test_the_ring_goes_around_many_times(tmp_path: Path) -> None:
    logger = open_log(tmp_path, capacity=20)
    for number in range(2000):
        logger.emit(sealed(number, digest="d" * (number % 700)))
        if number % 13 == 0:
            logger.flush()
    abandon(logger)
    _reopen(tmp_path)
    assert _shards(tmp_path) == [f"shard-{number}" for number in range(2000)]


class _StoppingMemory:
    """A mapping whose machine stops at its ``stop_at``-th store: before it, or in the middle of it."""

    def __init__(self, memory: memoryview, stop_at: list[int]) -> None:
        self._memory, self._stop_at = memory, stop_at

    def __len__(self) -> int:
        return len(self._memory)

    def __getitem__(self, key: slice) -> memoryview:
        return self._memory[key]

    def __setitem__(self, key: Any, value: Any) -> None:
        self._stop_at[0] -= 1
        if self._stop_at[0] == 0:
            if isinstance(key, slice) and isinstance(value, bytes):
                half = key.start + len(value) // 2 if key.start else len(value) // 2
                self._memory[(key.start or 0) : half] = value[: len(value) // 2]
            raise PowerCutError
        self._memory[key] = value

    def cast(self, form: Literal["Q"]) -> _StoppingMemory:
        return _StoppingMemory(self._memory.cast(form), self._stop_at)

    def release(self) -> None:
        self._memory.release()


class _StoppingFiles(FaultyFiles):
    def __init__(self, stop_at: int) -> None:
        super().__init__()
        self.stop_at = [stop_at]

    def map(self, descriptor: int, size: int) -> memoryview:
        return _StoppingMemory(super().map(descriptor, size), self.stop_at)  # type: ignore[return-value]


def _story(logger: AuditLogger, accepted: list[str]) -> None:
    for number in range(9):
        logger.emit(sealed(number))
        accepted.append(f"shard-{number}")
        if number in {2, 5}:
            logger.flush()


def test_no_stop_within_the_journal_loses_or_repeats_an_event(tmp_path: Path) -> None:
    """Every store into the mapping in turn, each left half done."""
    stop_at, finished = 0, False
    while not finished:
        stop_at += 1
        folder, files = tmp_path / str(stop_at), _StoppingFiles(stop_at)
        accepted: list[str] = []
        make_log(folder)
        logger = None
        try:
            logger = open_log(folder, files=files)
            _story(logger, accepted)
            finished = True
        except PowerCutError:
            pass
        if logger is not None:
            abandon(logger)
        _reopen(folder)
        found = _shards(folder)
        assert found[: len(accepted)] == accepted, f"stopped at store {stop_at}"
        assert len(found) <= len(accepted) + 1, f"stopped at store {stop_at}"
        assert len(set(found)) == len(found)
        assert event_types(folder).count("events_dropped") == 0
    assert stop_at > 30


def test_failure_hooks_are_told_of_failed_writes(tmp_path: Path) -> None:
    files = FaultyFiles()
    told: list[AuditWriteError] = []
    logger = open_log(tmp_path, files=files)
    logger.on_failure(told.append)
    AuditLogger.disabled().on_failure(told.append)
    files.free = 0
    logger.emit(sealed(0))
    with pytest.raises(AuditWriteError, match="nearly full"):
        logger.flush()
    assert [type(error) for error in told] == [AuditWriteError]
    files.free = None
    logger.close()


# --- a journal that somebody took away --------------------------------------------------------------


@pytest.mark.parametrize("attack", ["removed", "replaced", "link"])
def test_a_journal_removed_or_replaced_under_the_writer_is_noticed(tmp_path: Path, attack: str) -> None:
    told: list[str] = []
    logger = open_log(tmp_path, on_failure=lambda error: told.append(str(error)))
    logger.flush()
    journal = tmp_path / "log" / "journal"
    data = journal.read_bytes()
    journal.rename(tmp_path / "taken")
    if attack == "replaced":
        journal.write_bytes(data)
    elif attack == "link":
        journal.symlink_to(tmp_path / "taken-too")
    for number in range(2):
        logger.emit(sealed(number))
        with pytest.raises(AuditWriteError, match="removed or replaced under the writer"):
            logger.flush()
    assert len(told) == 2
    assert logger.stats().waiting == 0, "what no journal keeps any more does not wait for it"
    receipt = logger.emit(sealed(2), durable=True)
    assert receipt is not None
    assert len(told) == 3
    logger.close()
    entries = reference_check(tmp_path)
    assert [entry["shard_id"] for entry in entries if "shard_id" in entry] == [
        "shard-0",
        "shard-1",
        "shard-2",
    ]
