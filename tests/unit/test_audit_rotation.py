"""Rotation: a new segment at midnight UTC and at a size, with an account of the old one."""

from __future__ import annotations

import errno
import hashlib
import stat
from pathlib import Path
from typing import Any

import pytest
from tests.audit_logs import (
    FaultyFiles,
    ManualClock,
    abandon,
    copy_tree,
    event_types,
    failing,
    open_log,
    read_entries,
    reference_check,
    sealed,
    segments,
)

from vram_residency.audit import verify
from vram_residency.audit.log import AuditLogger
from vram_residency.core.errors import AuditWriteError, ConfigurationError

DAY_S = 86_400
EIO = OSError(errno.EIO, "Input/output error")


def _verdict(folder: Path, **options: Any) -> Any:
    mac_key = (folder / "keys" / "genesis.key").read_text().strip()
    return verify(folder / "log", keys=folder / "keys", mac_key=mac_key, **options)


def _types_by_segment(folder: Path) -> list[list[str]]:
    types = event_types(folder)
    starts = [int(path.stem) for path in segments(folder)]
    return [types[start:end] for start, end in zip(starts, [*starts[1:], len(types)], strict=True)]


def _midnights(folder: Path, days: int = 2) -> AuditLogger:
    clock = ManualClock()
    logger = open_log(folder, clock=clock)
    for day in range(days):
        logger.emit(sealed(day), durable=True)
        for _ in range(96):  # a writer that lives closes its epochs
            clock.advance(DAY_S / 96)
            logger.tick()
    logger.emit(sealed(days), durable=True)
    return logger


def test_a_segment_ends_at_midnight_with_epoch_closed_and_the_next_begins_with_segment_rotated(
    tmp_path: Path,
) -> None:
    _midnights(tmp_path).close()
    found = _types_by_segment(tmp_path)
    assert len(found) == 3
    assert found[0][:2] == ["log_opened", "vram_sealed"]
    assert [types[-1] for types in found] == ["epoch_closed"] * 3
    assert [types[0] for types in found[1:]] == ["segment_rotated"] * 2
    entries = reference_check(tmp_path)
    # The moment of the rotation is the next day already.
    days = [{entry["timestamp"][:10] for entry in part[:-1]} for part in _split(entries, tmp_path)]
    assert [len(day) for day in days] == [1, 1, 1]


def _split(entries: list[dict[str, Any]], folder: Path) -> list[list[dict[str, Any]]]:
    starts = [int(path.stem) for path in segments(folder)]
    return [entries[start:end] for start, end in zip(starts, [*starts[1:], len(entries)], strict=True)]


def test_segment_rotated_tells_name_hash_and_count_of_the_segment_before(tmp_path: Path) -> None:
    _midnights(tmp_path).close()
    paths = segments(tmp_path)
    told = [entry for entry in read_entries(tmp_path) if entry["event_type"] == "segment_rotated"]
    for entry, path in zip(told, paths, strict=False):
        assert entry["closed_segment"] == path.name
        assert entry["sha256"] == hashlib.sha256(path.read_bytes()).hexdigest()
        assert entry["entries"] == path.read_bytes().count(b"\n")
    assert len(told) == len(paths) - 1


def test_closed_segments_are_read_only_and_the_open_one_is_not(tmp_path: Path) -> None:
    logger = _midnights(tmp_path)
    modes = [stat.S_IMODE(path.stat().st_mode) for path in segments(tmp_path)]
    logger.close()
    assert modes == [0o400, 0o400, 0o600]
    open_log(tmp_path, clock=ManualClock()).close()  # the writer accepts them so


def test_a_segment_ends_once_it_has_so_many_bytes(tmp_path: Path) -> None:
    with open_log(tmp_path, clock=ManualClock(), rotate_bytes=1500) as logger:
        for number in range(20):
            logger.emit(sealed(number), durable=True)
    sizes = [path.stat().st_size for path in segments(tmp_path)]
    assert len(sizes) > 3
    assert all(1500 <= size < 3500 for size in sizes[:-1])
    reference_check(tmp_path)
    assert _verdict(tmp_path).verdict == "intact"


def test_events_that_waited_over_midnight_bring_no_clock_back(tmp_path: Path) -> None:
    clock = ManualClock()
    clock.wall_ns -= clock.wall_ns % (DAY_S * 10**9) + 10**9  # a second before midnight
    logger = open_log(tmp_path, clock=clock)
    logger.emit(sealed(1), durable=True)
    logger.emit(sealed(2))
    clock.advance(3)
    logger.emit(sealed(3))
    logger.flush()
    assert len(segments(tmp_path)) == 1, "the batch began on the old day"
    logger.emit(sealed(4), durable=True)
    assert len(segments(tmp_path)) == 2
    logger.close()
    assert "clock_stepped_back" not in event_types(tmp_path)
    assert _verdict(tmp_path).verdict == "intact"


def test_a_clock_that_goes_back_over_midnight_rotates_too(tmp_path: Path) -> None:
    clock = ManualClock()
    logger = open_log(tmp_path, clock=clock)
    clock.step(-DAY_S)
    logger.emit(sealed(1), durable=True)
    logger.emit(sealed(2), durable=True)
    logger.close()
    assert len(segments(tmp_path)) == 2
    reference_check(tmp_path)


def test_a_log_opened_on_another_day_rotates_after_saying_so(tmp_path: Path) -> None:
    clock = ManualClock()
    open_log(tmp_path, clock=clock).close()
    clock.advance(3 * DAY_S)
    with open_log(tmp_path, clock=clock) as logger:
        logger.emit(sealed(1), durable=True)
    assert _types_by_segment(tmp_path) == [
        ["log_opened", "log_closed", "epoch_closed", "log_opened", "epoch_closed"],
        ["segment_rotated", "vram_sealed", "log_closed", "epoch_closed"],
    ]
    assert _verdict(tmp_path).verdict == "intact"


def test_the_hash_told_covers_what_an_earlier_writer_wrote(tmp_path: Path) -> None:
    clock = ManualClock()
    for number in range(3):
        with open_log(tmp_path, clock=clock) as logger:
            logger.emit(sealed(number), durable=True)
    clock.advance(DAY_S)
    with open_log(tmp_path, clock=clock) as logger:
        logger.emit(sealed(3), durable=True)
    first = segments(tmp_path)[0]
    told = next(entry for entry in read_entries(tmp_path) if entry["event_type"] == "segment_rotated")
    assert told["sha256"] == hashlib.sha256(first.read_bytes()).hexdigest()
    assert _verdict(tmp_path).verdict == "intact"


@pytest.mark.parametrize("call", ["write", "sync_data", "write_at", "replace", "create", "sync_directory"])
@pytest.mark.parametrize("times", [1, 2, 3])
def test_a_rotation_that_fails_half_way_is_finished_before_anything_else(
    tmp_path: Path, call: str, times: int
) -> None:
    clock, files = ManualClock(), FaultyFiles()
    logger = open_log(tmp_path, files=files, clock=clock)
    logger.emit(sealed(1), durable=True)
    clock.advance(DAY_S - 1000)
    files.on_call = failing(call, EIO, times=times)
    logger.emit(sealed(2))
    failures = 0
    for _ in range(times + 1):
        try:
            logger.flush()
        except AuditWriteError:
            failures += 1
    assert failures <= times
    logger.close()
    reference_check(tmp_path)
    types = event_types(tmp_path)
    assert types.count("segment_rotated") == 1
    assert types.count("vram_sealed") == 2
    assert _verdict(tmp_path).verdict in {"intact", "unsealed"}


@pytest.mark.parametrize("field", ["closed_segment", "sha256", "entries"])
def test_verification_recomputes_what_segment_rotated_tells(tmp_path: Path, field: str) -> None:
    """A writer that lies about the segment before, with right macs, is told so."""
    from vram_residency.audit.writing.ledger import Ledger

    told = Ledger.segment_rotated

    def lie(ledger: Ledger) -> Any:
        import msgspec

        truth = told(ledger)
        values = {"closed_segment": f"{7:020}.jsonl", "sha256": "0" * 64, "entries": truth.entries + 1}
        return msgspec.structs.replace(truth, **{field: values[field]})

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Ledger, "segment_rotated", lie)
        _midnights(tmp_path, 1).close()
    verdict = _verdict(tmp_path)
    assert verdict.verdict == "tampered"
    assert verdict.first_bad is not None
    assert "does not describe the segment before it" in verdict.first_bad.reason


def test_a_last_segment_without_an_entry_is_removed_and_the_rotation_made_again(tmp_path: Path) -> None:
    logger = _midnights(tmp_path, 1)
    abandon(logger)
    size = len(read_entries(tmp_path))
    for tail in (b"", b'{"index":'):
        folder = copy_tree(tmp_path, tmp_path.with_name(f"{tmp_path.name}-{len(tail)}"))
        hollow = folder / "log" / "entries" / f"{size:020}.jsonl"
        hollow.touch(mode=0o600)
        hollow.write_bytes(tail)
        open_log(folder, clock=ManualClock()).close()
        assert [int(path.stem) for path in segments(folder)] != [0, size]
        reference_check(folder)
        assert _verdict(folder).verdict == "intact"
        torn = hollow.with_name(hollow.name + ".torn")
        assert torn.exists() == bool(tail)
        assert _verdict(folder).torn_bytes == 0


def test_a_rotation_size_of_nothing_makes_no_sense(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="rotate_bytes"):
        open_log(tmp_path, rotate_bytes=0)
