"""Archived segments: made without haste, read by everybody, never trusted."""

from __future__ import annotations

import errno
import json
import os
import stat
import time
from pathlib import Path
from typing import Any

import pytest
import zstandard
from tests.audit_logs import (
    FaultyFiles,
    ManualClock,
    PowerCutError,
    abandon,
    copy_tree,
    event_types,
    open_log,
    read_lines,
    sealed,
)

from vram_residency.audit import prove_inclusion, verify
from vram_residency.audit.log import AuditLogger
from vram_residency.audit.publishing.publication import publish
from vram_residency.audit.reading.query import find, query
from vram_residency.audit.store.archive import ArchiveFormatError, open_archive
from vram_residency.audit.writing.archiving import archive_log
from vram_residency.audit.writing.options import LogOptions
from vram_residency.core.errors import AuditWriteError, ConfigurationError, LogDamagedError, LogLockedError

DAY_S = 86_400


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A closed log of several segments, none archived."""
    folder = tmp_path_factory.mktemp("plain")
    with open_log(folder, clock=ManualClock(), rotate_bytes=2000) as logger:
        for number in range(30):
            logger.emit(sealed(number), durable=True)
    return folder


@pytest.fixture
def log(plain: Path, tmp_path: Path) -> Path:
    return copy_tree(plain, tmp_path / "copy")


def _archive(folder: Path, **options: Any) -> list[Path]:
    return archive_log(folder / "log", archive_after_s=0, options=LogOptions(**options))


def _verdict(folder: Path, **options: Any) -> Any:
    mac_key = (folder / "keys" / "genesis.key").read_text().strip()
    return verify(folder / "log", keys=folder / "keys", mac_key=mac_key, **options)


def _names(folder: Path) -> list[str]:
    return sorted(path.name for path in (folder / "log" / "entries").iterdir())


def _first_archive(folder: Path) -> Path:
    return next(iter(sorted((folder / "log" / "entries").glob("*.zst"))))


def test_an_archive_is_one_frame_with_the_segments_bytes(log: Path) -> None:
    before = {path.name: path.read_bytes() for path in (log / "log" / "entries").iterdir()}
    made = _archive(log)
    assert len(made) == len(before) - 1 > 3
    for path in made:
        assert zstandard.ZstdDecompressor().decompress(path.read_bytes()) == before[path.name[:-4]]
        assert stat.S_IMODE(path.stat().st_mode) == 0o400
    assert _names(log) == [*sorted(f"{name}.zst" for name in sorted(before)[:-1]), max(before)]


@pytest.mark.parametrize("workers", [1, 2])
def test_an_archived_log_verifies_like_the_plain_one(log: Path, workers: int) -> None:
    before = _verdict(log)
    _archive(log)
    assert _verdict(log, workers=workers) == before
    assert before.verdict == "intact"


def test_an_archived_log_is_read_like_the_plain_one(log: Path, plain: Path) -> None:
    _archive(log)
    assert list(query(log / "log")) == read_lines(plain)
    assert list(query(log / "log", shard="shard-3")) == list(query(plain / "log", shard="shard-3"))
    lines = read_lines(plain)
    for index in (0, 7, len(lines) - 1):
        assert find(log / "log", index).line == lines[index]
        assert bytes(prove_inclusion(log / "log", index)) == bytes(prove_inclusion(plain / "log", index))


def test_an_archived_log_is_published_like_the_plain_one(log: Path, plain: Path, tmp_path: Path) -> None:
    _archive(log)
    for source, target in ((log, "archived"), (plain, "plain")):
        publish(source / "log", tmp_path / target)
    found = [
        {path.relative_to(root): path.read_bytes() for path in root.rglob("*") if path.is_file()}
        for root in (tmp_path / "archived", tmp_path / "plain")
    ]
    assert found[0] == found[1]
    assert found[0]


def test_proofs_need_no_leaf_file_of_an_archived_segment(log: Path, plain: Path) -> None:
    _archive(log)
    for path in (log / "log" / "tree").glob("*.leaves"):
        path.unlink()
    assert bytes(prove_inclusion(log / "log", 3)) == bytes(prove_inclusion(plain / "log", 3))


def test_an_archived_log_goes_on(log: Path) -> None:
    _archive(log)
    with open_log(log) as logger:
        logger.emit(sealed(99), durable=True)
    assert _verdict(log).verdict == "intact"


def test_a_log_opens_from_its_archives_where_nothing_derived_is_left(log: Path) -> None:
    _archive(log)
    for path in (log / "log" / "tree").iterdir():
        path.unlink()
    open_log(log).close()
    assert _verdict(log).verdict == "intact"


def test_only_what_is_old_enough_is_archived(plain: Path, tmp_path: Path) -> None:
    clock = ManualClock()
    with open_log(tmp_path, clock=clock) as logger:
        for day in range(5):
            logger.emit(sealed(day), durable=True)
            clock.advance(DAY_S)
    made = archive_log(tmp_path / "log", archive_after_s=3 * DAY_S, options=LogOptions(clock=clock))
    assert len(made) == 2
    assert _verdict(tmp_path).verdict in {"intact", "unsealed"}


def test_the_writers_thread_archives_between_batches(plain: Path, tmp_path: Path) -> None:
    folder = copy_tree(plain, tmp_path / "copy")
    with open_log(folder, background=True, archive_after_s=0) as logger:
        deadline = time.monotonic() + 60
        while any(name.endswith(".jsonl") for name in _names(folder)[:-1]) and time.monotonic() < deadline:
            logger.emit(sealed(1), durable=True)
            time.sleep(0.001)  # the thread, too, needs the lock at times
        names = _names(folder)
    assert all(name.endswith(".zst") for name in names[:-1])
    assert _verdict(folder).verdict == "intact"


def test_archiving_may_be_turned_off_but_not_set_before_now() -> None:
    assert LogOptions(archive_after_s=None).archive_after_s is None
    with pytest.raises(ConfigurationError, match="archive_after_s"):
        LogOptions(archive_after_s=-1)


def test_a_log_in_use_is_not_archived_by_another_process(log: Path) -> None:
    with open_log(log), pytest.raises(LogLockedError, match="pid"):
        _archive(log)


# --- crashes and failures -----------------------------------------------------------------------------------


def test_no_stop_in_archiving_loses_an_entry(plain: Path, tmp_path: Path) -> None:
    lines = read_lines(plain)
    for stop_at in range(1, 200):
        folder = copy_tree(plain, tmp_path / str(stop_at))

        def stop(_name: str, number: int, at: int = stop_at) -> None:
            if number == at:
                raise PowerCutError

        try:
            _archive(folder, files=FaultyFiles(stop))
        except PowerCutError:
            pass
        else:
            assert stop_at > 20
            return
        assert list(query(folder / "log")) == lines
        assert _verdict(folder).verdict == "intact", f"stopped before call {stop_at}"
        open_log(folder).close()
        _archive(folder)
        assert all(name.endswith(".zst") for name in _names(folder)[:-1])
        assert _verdict(folder).verdict == "intact"
    raise AssertionError("archiving never ended")


@pytest.mark.parametrize("call", ["create", "write", "sync_data", "protect", "replace", "remove"])
def test_a_failed_step_leaves_the_segment(log: Path, plain: Path, call: str) -> None:
    def fail(name: str, _number: int) -> None:
        if name == call:
            raise OSError(errno.EIO, "Input/output error")

    if call == "remove":  # of the segment itself, at the end
        first = log / "log" / "entries" / f"{0:020}.jsonl.zst.new"
        assert not first.exists()
    with pytest.raises((AuditWriteError, OSError), match="Input/output error"):
        _archive(log, files=FaultyFiles(fail))
    assert list(query(log / "log")) == read_lines(plain)
    assert _verdict(log).verdict == "intact"
    _archive(log)
    assert _verdict(log).verdict == "intact"


def test_a_nearly_full_disk_is_not_filled_by_an_archive(log: Path) -> None:
    before = _names(log)
    files = FaultyFiles()
    files.free = 1
    with pytest.raises(AuditWriteError, match="archive failed: the disk is nearly full"):
        _archive(log, files=files)
    assert _names(log) == before


def test_a_failure_of_the_thread_is_told_and_stops_no_event(plain: Path, tmp_path: Path) -> None:
    folder = copy_tree(plain, tmp_path / "copy")
    (folder / "log" / "entries" / f"{0:020}.jsonl.zst").write_bytes(b"an archive of somebody else")
    (folder / "log" / "entries" / f"{0:020}.jsonl.zst").chmod(0o600)
    told: list[str] = []
    with open_log(
        folder, background=True, archive_after_s=0, on_failure=lambda e: told.append(str(e))
    ) as logger:
        deadline = time.monotonic() + 60
        while not told and time.monotonic() < deadline:
            logger.emit(sealed(1), durable=True)
        logger.emit(sealed(2), durable=True)
    assert "archive failed" in told[0]
    assert f"{0:020}.jsonl" in _names(folder), (
        "nothing is removed beside an archive that holds something else"
    )


# --- what an adversary may leave ----------------------------------------------------------------------------


def test_the_same_bytes_twice_are_no_fault_and_others_are(log: Path, plain: Path) -> None:
    made = _archive(log)
    original = plain / "log" / "entries" / made[0].name[:-4]
    twin = log / "log" / "entries" / original.name
    twin.write_bytes(original.read_bytes())
    assert _verdict(log).verdict == "intact"
    made[0].chmod(0o600)
    made[0].write_bytes(zstandard.ZstdCompressor(write_checksum=True).compress(b"other bytes\n"))
    verdict = _verdict(log)
    assert verdict.verdict == "tampered"
    assert verdict.first_bad is not None
    assert verdict.first_bad.file == f"entries/{made[0].name}"
    assert "does not hold the bytes of the segment beside it" in verdict.first_bad.reason


def _damaged(data: bytes) -> dict[str, bytes]:
    content = zstandard.ZstdDecompressor().decompress(data)
    unknown = zstandard.ZstdCompressor(write_checksum=True, write_content_size=False).compressobj()
    return {
        "empty": b"",
        "no frame": b"not zstd at all, but long enough to look",
        "cut": data[:-9],
        "without its checksum": zstandard.ZstdCompressor(write_checksum=False).compress(content),
        "checksum changed": data[:-1] + bytes([data[-1] ^ 1]),
        "one byte more": data + b"x",
        "two frames": data + data,
        "a skippable frame more": data + b"\x50\x2a\x4d\x18\x00\x00\x00\x00",
        "size unknown": unknown.compress(content) + unknown.flush(),
        "changed in the middle": data[:200] + bytes([data[200] ^ 0x55]) + data[201:],
        "another window": data[:5] + b"\xff" + data[6:],
    }


@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.parametrize("kind", sorted(_damaged(zstandard.compress(os.urandom(500)))))
def test_a_malformed_archive_is_tampering(log: Path, kind: str, workers: int) -> None:
    path = _archive(log)[2]
    path.chmod(0o600)
    path.write_bytes(_damaged(path.read_bytes())[kind])
    verdict = _verdict(log, workers=workers)
    assert verdict.verdict == "tampered"
    assert verdict.first_bad is not None
    assert verdict.first_bad.file == f"entries/{path.name}"
    assert "archive is malformed" in verdict.first_bad.reason
    with pytest.raises(OSError, match=r"zstd frame|exactly one"):
        list(query(log / "log"))
    with pytest.raises(LogDamagedError, match="cannot be read"):
        publish(log / "log", log / "published")


def test_an_entry_changed_inside_an_archive_is_found(log: Path) -> None:
    path = _archive(log)[1]
    content = zstandard.ZstdDecompressor().decompress(path.read_bytes())
    path.chmod(0o600)
    path.write_bytes(
        zstandard.ZstdCompressor(write_checksum=True).compress(content.replace(b"shard-", b"shard_", 1))
    )
    verdict = _verdict(log)
    assert verdict.verdict == "tampered"
    assert verdict.first_bad is not None
    assert verdict.first_bad.file == f"entries/{path.name}"


def test_a_bomb_costs_no_memory(log: Path) -> None:
    """A gigabyte of zeros in some kilobytes, in the place of a segment."""
    import tracemalloc

    path = _archive(log)[1]
    packer = zstandard.ZstdCompressor(write_checksum=True).compressobj(size=1 << 28)
    path.chmod(0o600)
    path.write_bytes(b"".join(packer.compress(bytes(1 << 20)) for _ in range(1 << 8)) + packer.flush())
    assert path.stat().st_size < 50_000
    tracemalloc.start()
    try:
        verdict = _verdict(log, workers=1)
        found = sum(len(line) for line in query(log / "log"))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert verdict.verdict == "tampered"
    assert found > 0
    assert peak < 50 << 20


def test_a_size_that_is_a_lie_is_not_believed(tmp_path: Path) -> None:
    """The header may announce 18 exabytes: nothing is allocated or read for that."""
    data = zstandard.ZstdCompressor(write_checksum=True).compress(bytes(100_000))
    path = tmp_path / "lie"
    descriptor = 0b1100_0100  # eight bytes of size, a window, a checksum
    path.write_bytes(data[:4] + bytes([descriptor, 0x58]) + (2**63).to_bytes(8, "little") + data[9:])
    with path.open("rb") as file, pytest.raises(ArchiveFormatError, match="too large"):
        open_archive(file, path)


def test_seeking_in_an_archive_is_like_seeking_in_the_segment(tmp_path: Path) -> None:
    import random

    rng = random.Random(3)
    content = b"".join(f"{number} {rng.random()}\n".encode() for number in range(40_000))
    path = tmp_path / "archive"
    path.write_bytes(zstandard.ZstdCompressor(write_checksum=True).compress(content))
    with open_archive(path.open("rb"), path) as file:
        for _ in range(40):
            start = rng.randrange(len(content) + 1)
            size = rng.randrange(70_000)
            assert file.seek(start) == start
            assert file.read(size) == content[start : start + size]
            assert file.tell() == min(start + size, len(content))
        assert file.seek(0, 2) == len(content)
        assert file.read(1) == b""


def test_an_abandoned_archiving_leaves_nothing_behind(plain: Path, tmp_path: Path) -> None:
    from vram_residency.audit.store.directory import Directory
    from vram_residency.audit.writing.archiving import Archiving

    folder = copy_tree(plain, tmp_path / "copy")
    before = _names(folder)
    archiving = Archiving(Directory(folder / "log"), FaultyFiles(), 0, free_bytes_min=0)
    pieces = archiving.pieces()
    next(pieces)
    assert f"{0:020}.jsonl.zst.new" in _names(folder)
    pieces.close()
    assert _names(folder) == before


def test_a_segment_pruned_meanwhile_stays_pruned(plain: Path, tmp_path: Path) -> None:
    from vram_residency.audit.store.directory import Directory
    from vram_residency.audit.writing.archiving import Archiving

    folder = copy_tree(plain, tmp_path / "copy")
    archiving = Archiving(Directory(folder / "log"), FaultyFiles(), 0, free_bytes_min=0)
    for _ in archiving.pieces():
        pass
    archiving.segment.unlink()
    archiving.install()
    assert not any(name.startswith(f"{0:020}") for name in _names(folder))


def test_a_killed_opening_beside_a_half_written_archive_goes_on(log: Path) -> None:
    (log / "log" / "entries" / f"{0:020}.jsonl.zst.new").touch(mode=0o600)
    logger = open_log(log)
    abandon(logger)
    assert _verdict(log).verdict == "intact"
    assert isinstance(open_log(log), AuditLogger)
    assert "vram_sealed" in event_types(log)


def test_the_command_says_what_it_compressed(log: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from vram_residency.cli.main import main

    directory = str(log / "log")
    assert main(["audit", "archive", directory, "--older-than-days", "36500"]) == 0
    assert "Nothing to compress" in capsys.readouterr().out
    assert main(["audit", "archive", directory, "--older-than-days", "0", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)["archives"]
    assert told == [f"entries/{name}" for name in _names(log) if name.endswith(".zst")]
    assert len(told) > 3
    assert main(["audit", "archive", str(log)]) == 2
    with open_log(log):
        assert main(["audit", "archive", directory]) == 5


def test_the_command_lists_what_it_compressed(log: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from vram_residency.cli.main import main

    assert main(["audit", "archive", str(log / "log"), "--older-than-days", "0"]) == 0
    printed = capsys.readouterr().out
    assert "Compressed" in printed
    assert f"entries/{0:020}.jsonl.zst" in printed
    assert main(["audit", "verify", str(log / "log"), "--keys", str(log / "keys")]) == 0


def test_segment_rotated_must_follow_the_end_of_an_epoch(tmp_path: Path) -> None:
    """A writer that begins a segment without ending the epoch, with right macs, is told so."""
    from vram_residency.audit.writing.rotation import Rotation

    def run(rotation: Rotation) -> None:
        ledger = rotation._ledger
        beginning = ledger.draft()
        beginning.add_own(ledger.segment_rotated(), rotation._at_ns)
        ledger.begin_segment(beginning)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Rotation, "run", run)
        with open_log(tmp_path, clock=ManualClock(), rotate_bytes=1500) as logger:
            for number in range(6):
                logger.emit(sealed(number), durable=True)
    verdict = _verdict(tmp_path)
    assert verdict.verdict == "tampered"
    assert verdict.first_bad is not None
    assert "does not follow the end of an epoch" in verdict.first_bad.reason
