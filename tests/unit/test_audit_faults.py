"""A disk that fails: nothing is acknowledged falsely, nothing is lost, nothing is written over."""

from __future__ import annotations

import contextlib
import errno
import os
from pathlib import Path

import pytest
from tests.audit_logs import (
    FaultyFiles,
    ManualClock,
    abandon,
    event_types,
    failing,
    open_log,
    read_lines,
    reference_check,
    sealed,
    segments,
)

from vram_residency.audit.log import AuditLogger
from vram_residency.core.errors import AuditWriteError, LogClosedError

EIO = OSError(errno.EIO, "Input/output error")
ENOSPC = OSError(errno.ENOSPC, "No space left on device")


def _faulty(folder: Path) -> tuple[AuditLogger, FaultyFiles]:
    files = FaultyFiles()
    logger = open_log(folder, files=files, clock=ManualClock())
    files.calls.clear()
    return logger, files


def test_short_writes_are_completed(tmp_path: Path) -> None:
    logger, files = _faulty(tmp_path)
    files.short_writes = 5
    logger.emit(sealed(), durable=True)
    assert files.short_writes == 0
    logger.close()
    reference_check(tmp_path)


@pytest.mark.parametrize("error", [EIO, ENOSPC])
def test_a_failed_write_is_rolled_back_and_repeated(tmp_path: Path, error: OSError) -> None:
    logger, files = _faulty(tmp_path)
    before = segments(tmp_path)[0].read_bytes()
    files.short_writes = 1

    def fail_second(name: str, _number: int) -> None:
        if name == "write" and files.calls.count("write") == 2:
            raise error

    files.on_call = fail_second
    logger.emit(sealed(1))
    with pytest.raises(AuditWriteError, match="write failed"):
        logger.flush()
    assert segments(tmp_path)[0].read_bytes() == before, "half a line was left"
    assert logger.stats().waiting == 1
    logger.emit(sealed(2))
    logger.flush()
    logger.close()
    reference_check(tmp_path)
    assert event_types(tmp_path)[1:3] == ["vram_sealed", "vram_sealed"]


def test_a_rollback_that_fails_too_is_made_up_for(tmp_path: Path) -> None:
    logger, files = _faulty(tmp_path)
    files.short_writes = 1
    left = ["write", "write", "truncate"]

    def fail_second_write_and_the_cut(name: str, _number: int) -> None:
        if left and name == left[0]:
            left.pop(0)
            if len(left) < 2:
                raise EIO

    files.on_call = fail_second_write_and_the_cut
    logger.emit(sealed(1))
    with pytest.raises(AuditWriteError, match="Input/output error"):
        logger.flush()
    assert not left
    logger.flush()
    logger.close()
    reference_check(tmp_path)


def test_after_a_failed_sync_the_batch_stands_in_a_new_segment(tmp_path: Path) -> None:
    logger, files = _faulty(tmp_path)
    acknowledged = segments(tmp_path)[0].read_bytes()
    files.on_call = failing("sync_data", EIO)
    receipt = logger.emit(sealed(1), durable=True)
    first, second = segments(tmp_path)
    assert first.read_bytes() == acknowledged
    assert second.name == f"{1:020}.jsonl"
    assert receipt is not None
    assert receipt.index == 1
    logger.emit(sealed(2), durable=True)
    logger.close()
    reference_check(tmp_path)
    open_log(tmp_path).close()
    reference_check(tmp_path)
    assert len(segments(tmp_path)) == 2


def test_a_batch_is_repeated_byte_for_byte(tmp_path: Path) -> None:
    """What may have reached the disk must never exist in a second form, whatever the clock says now."""
    written: list[bytes] = []

    class Recorder(FaultyFiles):
        def write(self, descriptor: int, data: bytes | memoryview) -> int:
            written.append(bytes(data))
            return super().write(descriptor, data)

    clock, files = ManualClock(), Recorder()
    logger = open_log(tmp_path, files=files, clock=clock)
    logger.emit(sealed(1))
    files.on_call = failing("sync_data", EIO, times=3)
    written.clear()
    for _ in range(2):
        with pytest.raises(AuditWriteError, match="Input/output"):
            logger.flush()
        clock.advance(5)
        logger.emit(sealed(2))
    logger.flush()
    lines = [data for data in written if b"shard-1" in data]
    assert len(lines) >= 2
    assert len(set(lines)) == 1
    logger.close()
    reference_check(tmp_path)


def test_a_failed_sync_of_an_empty_segment_replaces_it(tmp_path: Path) -> None:
    logger, files = _faulty(tmp_path)
    files.on_call = failing("sync_data", EIO, times=1)
    logger.emit(sealed(1), durable=True)
    assert len(segments(tmp_path)) == 2
    # The new segment has one line; make the next sync fail twice in a row, so that a segment without any
    # acknowledged line is given up, too.
    syncs = [0]

    def fail_first_and_third(name: str, _number: int) -> None:
        if name == "sync_data":
            syncs[0] += 1
            if syncs[0] in {1, 3}:
                raise EIO

    files.on_call = fail_first_and_third
    logger.emit(sealed(2))
    with pytest.raises(AuditWriteError, match="fdatasync failed"):
        logger.flush()
    logger.flush()
    logger.close()
    reference_check(tmp_path)


def test_a_failing_disk_keeps_events_and_the_log_can_go_on(tmp_path: Path) -> None:
    logger, files = _faulty(tmp_path)
    files.on_call = failing("sync_data", EIO, times=1000)
    for number in range(3):
        with pytest.raises(AuditWriteError, match="Input/output"):
            logger.emit(sealed(number), durable=True)
    assert logger.stats().waiting == 3
    assert logger.stats().write_failures == 3
    assert "Input/output error" in (logger.stats().last_failure or "")
    files.on_call = None
    checkpoint = logger.flush()
    assert checkpoint is not None
    assert logger.stats().waiting == 0
    logger.close()
    reference_check(tmp_path)
    assert event_types(tmp_path).count("vram_sealed") == 3


def test_a_nearly_full_disk_stops_writing_before_it_is_full(tmp_path: Path) -> None:
    logger, files = _faulty(tmp_path)
    files.free = 10 * (1 << 20)
    logger.emit(sealed(1))
    with pytest.raises(AuditWriteError, match="nearly full") as caught:
        logger.flush()
    assert "Make room" in caught.value.hint
    assert "write" not in files.calls
    files.free = None
    logger.close()
    reference_check(tmp_path)


@pytest.mark.parametrize("attack", ["removed", "replaced", "grown", "cut", "emptied"])
def test_a_segment_that_was_touched_is_not_written_to(tmp_path: Path, attack: str) -> None:
    logger, _ = _faulty(tmp_path)
    logger.emit(sealed(1), durable=True)
    segment = segments(tmp_path)[0]
    data = segment.read_bytes()
    if attack == "removed":
        segment.unlink()
    elif attack == "replaced":
        segment.unlink()
        segment.write_bytes(data)
    elif attack == "grown":
        segment.write_bytes(data + b"x")
    elif attack == "cut":
        os.truncate(segment, len(data) - 5)
    else:
        os.truncate(segment, 0)
    after = segment.read_bytes() if segment.exists() else None
    logger.emit(sealed(2))
    for _ in range(2):
        with pytest.raises(AuditWriteError, match="removed, replaced or changed"):
            logger.flush()
    assert (segment.read_bytes() if segment.exists() else None) == after
    assert logger.stats().waiting == 1
    abandon(logger)


def test_a_checkpoint_that_cannot_be_written_does_not_undo_a_durable_event(tmp_path: Path) -> None:
    clock, files = ManualClock(), FaultyFiles()
    logger = open_log(tmp_path, files=files, clock=clock)
    logger.flush()
    clock.advance(2)
    files.on_call = failing("replace", EIO)
    logger.emit(sealed(1))
    with pytest.raises(AuditWriteError, match="replace failed"):
        logger.flush()
    assert logger.stats().waiting == 0
    signed = logger.flush()
    assert signed is not None
    assert signed.size == 2
    logger.close()
    reference_check(tmp_path)


@pytest.mark.parametrize("failure", ["write_at", "replace", "sync_directory"])
@pytest.mark.parametrize("times", [1, 2, 3])
def test_an_epochs_end_that_fails_half_way_is_finished_before_anything_else(
    tmp_path: Path, failure: str, times: int
) -> None:
    clock, files = ManualClock(), FaultyFiles()
    logger = open_log(tmp_path, files=files, clock=clock)
    logger.flush()
    clock.advance(901)
    files.on_call = failing(failure, EIO, times=times)
    for _ in range(times):
        logger.tick()
        logger.emit(sealed(1))
        clock.advance(2)
    logger.flush()
    assert logger.stats().epoch == 1
    logger.close()
    entries = reference_check(tmp_path)
    assert [entry["epoch"] for entry in entries if entry["event_type"] == "epoch_closed"] == [0, 1]


def test_a_close_that_fails_can_be_repeated(tmp_path: Path) -> None:
    logger, files = _faulty(tmp_path)
    logger.emit(sealed(1))
    files.on_call = failing("sync_data", EIO, times=2)
    with pytest.raises(AuditWriteError, match="Input/output"):
        logger.close()
    with pytest.raises(LogClosedError, match="is closed"):
        logger.emit(sealed(2))
    logger.close()
    reference_check(tmp_path)
    assert event_types(tmp_path) == ["log_opened", "vram_sealed", "log_closed", "epoch_closed"]


def test_failures_are_told_outside_every_lock(tmp_path: Path) -> None:
    told: list[str] = []
    files = FaultyFiles()

    def on_failure(error: AuditWriteError) -> None:
        told.append(str(error))
        logger.emit(sealed(7))
        logger.flush()
        raise RuntimeError("passed over")

    logger = open_log(tmp_path, files=files, on_failure=on_failure)
    files.on_call = failing("write", EIO)
    logger.emit(sealed(1))
    with pytest.raises(AuditWriteError, match="Input/output"):
        logger.flush()
    assert len(told) == 1
    assert logger.stats().waiting == 0
    logger.close()
    assert event_types(tmp_path).count("vram_sealed") == 2


def test_a_failing_disk_is_asked_again_after_a_pause(tmp_path: Path) -> None:
    clock, files = ManualClock(), FaultyFiles()
    logger = open_log(tmp_path, files=files, clock=clock)
    files.on_call = failing("write", EIO, times=100)
    logger.emit(sealed(1))
    logger.tick()
    clock.advance(1.1)
    logger.tick()
    logger.tick()
    assert logger.stats().write_failures == 1
    clock.advance(1.1)
    logger.tick()
    assert logger.stats().write_failures == 2
    files.on_call = None
    clock.advance(1.1)
    logger.tick()
    assert logger.stats().waiting == 0
    logger.close()


def test_opening_on_a_failing_disk_gives_the_lock_back(tmp_path: Path) -> None:
    open_log(tmp_path).close()
    files = FaultyFiles(failing("sync_data", EIO, times=9))
    with pytest.raises(AuditWriteError, match="Input/output"):
        open_log(tmp_path, files=files)
    open_log(tmp_path).close()
    reference_check(tmp_path)
    assert len(read_lines(tmp_path)) == 6


@pytest.mark.parametrize("call", ["write", "sync_data", "replace", "write_at", "sync_directory"])
def test_an_interrupt_in_the_middle_of_a_write_costs_nothing(tmp_path: Path, call: str) -> None:
    """Ctrl-C strikes in the thread that flushes, before and after each kind of call."""
    clock, files = ManualClock(), FaultyFiles()
    logger = open_log(tmp_path, files=files, clock=clock)
    interrupts = [0]

    def interrupt(name: str, _number: int) -> None:
        if name == call and interrupts[0] % 2 == 0:
            interrupts[0] += 1
            raise KeyboardInterrupt
        interrupts[0] += name == call

    files.on_call = interrupt
    for number in range(4):
        logger.emit(sealed(number))
        clock.advance(1000)
        for action in (logger.flush, logger.tick, logger.flush):
            with contextlib.suppress(KeyboardInterrupt):
                action()
    files.on_call = None
    logger.close()
    entries = reference_check(tmp_path)
    assert interrupts[0] > 1
    assert [entry["shard_id"] for entry in entries if "shard_id" in entry] == [f"shard-{n}" for n in range(4)]
