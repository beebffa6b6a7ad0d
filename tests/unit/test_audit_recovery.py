"""Opening a log again: what is kept, what is moved aside, what is refused and left as evidence."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pytest
from tests.audit_logs import (
    ManualClock,
    abandon,
    copy_tree,
    event_types,
    make_log,
    open_log,
    read_entries,
    read_lines,
    reference_check,
    sealed,
    segments,
)

from vram_residency.audit.store import machine
from vram_residency.audit.store.keyring import SLOT_BYTES, MacState
from vram_residency.core.errors import ConfigurationError, LogDamagedError


def _killed_log(folder: Path, events: int = 4) -> None:
    """A log whose writer died after ``events`` durable events; the checkpoint covers the first of them."""
    clock = ManualClock()
    logger = open_log(folder, clock=clock)
    logger.emit(sealed(0))
    logger.flush()
    for number in range(1, events):
        logger.emit(sealed(number), durable=True)
    abandon(logger)


def _tree_of(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name != "lock"
    }


def _refused(folder: Path, *, match: str) -> None:
    before = _tree_of(folder)
    with pytest.raises(LogDamagedError, match=match):
        open_log(folder)
    assert _tree_of(folder) == before, "evidence was changed"


def test_a_killed_writers_complete_lines_stay(tmp_path: Path) -> None:
    _killed_log(tmp_path)
    before = read_lines(tmp_path)
    open_log(tmp_path).close()
    entries = reference_check(tmp_path)
    assert read_lines(tmp_path)[: len(before)] == before
    opened = entries[len(before)]
    assert opened["event_type"] == "log_opened"
    assert (opened["clean"], opened["torn_bytes"], opened["recovered_events"]) == (False, 0, 0)


def test_a_closed_log_opens_cleanly(tmp_path: Path) -> None:
    open_log(tmp_path).close()
    open_log(tmp_path).close()
    entries = reference_check(tmp_path)
    assert event_types(tmp_path) == ["log_opened", "log_closed", "epoch_closed"] * 2
    assert [entry["clean"] for entry in entries if entry["event_type"] == "log_opened"] == [True, True]


def test_a_line_torn_at_any_byte_is_moved_aside(tmp_path: Path) -> None:
    _killed_log(tmp_path / "whole")
    segment = segments(tmp_path / "whole")[0]
    lines = segment.read_bytes().splitlines(keepends=True)
    start = sum(map(len, lines[:-1]))
    for cut in (*range(1, len(lines[-1]), 23), len(lines[-1]) - 2, len(lines[-1]) - 1):
        folder = copy_tree(tmp_path / "whole", tmp_path / f"cut-{cut}")
        torn_segment = segments(folder)[0]
        os.truncate(torn_segment, start + cut)
        open_log(folder).close()
        entries = reference_check(folder)
        assert len(read_lines(folder)) == len(lines) - 1 + 3
        assert entries[len(lines) - 1]["torn_bytes"] == cut
        assert entries[len(lines) - 1]["clean"] is False
        torn = torn_segment.with_name(torn_segment.name + ".torn")
        assert torn.read_bytes() == lines[-1][:cut]
        assert torn.stat().st_mode & 0o777 == 0o600


def test_a_second_torn_line_joins_the_first(tmp_path: Path) -> None:
    _killed_log(tmp_path)
    with segments(tmp_path)[0].open("ab") as file:
        file.write(b'{"index":')
    open_log(tmp_path).close()
    reference_check(tmp_path)
    torn = segments(tmp_path)[0].with_name(segments(tmp_path)[0].name + ".torn")
    assert torn.read_bytes() == b'{"index":'
    with segments(tmp_path)[0].open("ab") as file:
        file.write(b"other")
    open_log(tmp_path).close()
    assert torn.read_bytes() == b'{"index":other'


def test_a_cut_behind_the_checkpoint_refuses(tmp_path: Path) -> None:
    _killed_log(tmp_path)
    segment = segments(tmp_path)[0]
    lines = segment.read_bytes().splitlines(keepends=True)
    os.truncate(segment, len(lines[0]) + 10)
    _refused(tmp_path, match="cut off or rolled back")
    os.truncate(segment, 0)
    _refused(tmp_path, match="cut off or rolled back")
    segment.unlink()
    _refused(tmp_path, match="cut off or rolled back")


def test_a_closed_log_cut_by_a_line_refuses(tmp_path: Path) -> None:
    open_log(tmp_path).close()
    segment = segments(tmp_path)[0]
    lines = segment.read_bytes().splitlines(keepends=True)
    os.truncate(segment, len(b"".join(lines[:-1])))
    _refused(tmp_path, match="cut off or rolled back")


@pytest.mark.parametrize("line", range(5))
def test_a_changed_byte_in_the_running_epoch_refuses(tmp_path: Path, line: int) -> None:
    _killed_log(tmp_path)
    segment = segments(tmp_path)[0]
    lines = segment.read_bytes().splitlines(keepends=True)
    offset = sum(map(len, lines[:line]))
    data = bytearray(segment.read_bytes())
    at = data.index(b"worker-gpu-0", offset)
    data[at] ^= 1
    segment.write_bytes(data)
    _refused(tmp_path, match="mac is wrong|not those of its newest checkpoint")


def test_the_last_line_of_a_closed_log_is_looked_at(tmp_path: Path) -> None:
    open_log(tmp_path).close()
    segment = segments(tmp_path)[0]
    data = segment.read_bytes()
    segment.write_bytes(data[:-10] + (b"0" if data[-10:-9] != b"0" else b"1") + data[-9:])
    _refused(tmp_path, match="not the one that mac.key remembers")


def test_removed_repeated_and_swapped_lines_refuse(tmp_path: Path) -> None:
    _killed_log(tmp_path / "whole")
    lines = segments(tmp_path / "whole")[0].read_bytes().splitlines(keepends=True)
    changes = {
        "removed": [*lines[:2], *lines[3:]],
        "repeated": [*lines[:3], lines[2], *lines[3:]],
        "swapped": [lines[0], lines[2], lines[1], *lines[3:]],
        "blank": [*lines[:3], b"\n", *lines[3:]],
    }
    for name, changed in changes.items():
        folder = copy_tree(tmp_path / "whole", tmp_path / name)
        segments(folder)[0].write_bytes(b"".join(changed))
        _refused(folder, match="was expected|entry 3: byte 0")


def test_entries_after_the_end_of_their_epoch_refuse(tmp_path: Path) -> None:
    """mac.key two epochs behind: somebody put an old key file back."""
    clock = ManualClock()
    logger = open_log(tmp_path, clock=clock)
    old_key = (tmp_path / "keys" / "mac.key").read_bytes()
    logger.close()
    open_log(tmp_path).close()
    (tmp_path / "keys" / "mac.key").write_bytes(old_key)
    _refused(tmp_path, match="an entry follows the end of its epoch")


def test_mac_key_one_epoch_behind_is_ratcheted(tmp_path: Path) -> None:
    """The crash came between the epoch_closed and the new slot."""
    logger = open_log(tmp_path)
    old_key = (tmp_path / "keys" / "mac.key").read_bytes()
    old_checkpoint = (tmp_path / "log" / "checkpoint").read_bytes()
    logger.close()
    (tmp_path / "keys" / "mac.key").write_bytes(old_key)
    (tmp_path / "log" / "checkpoint").write_bytes(old_checkpoint)
    (tmp_path / "log" / "tree" / "frontier").unlink()
    logger = open_log(tmp_path)
    logger.emit(sealed(), durable=True)
    logger.close()
    reference_check(tmp_path)
    assert old_key[:SLOT_BYTES] not in (tmp_path / "keys" / "mac.key").read_bytes()


def test_a_torn_new_slot_counts_as_not_written(tmp_path: Path) -> None:
    logger = open_log(tmp_path)
    old_key = (tmp_path / "keys" / "mac.key").read_bytes()
    logger.close()
    new_key = (tmp_path / "keys" / "mac.key").read_bytes()
    torn = old_key[:SLOT_BYTES] + new_key[SLOT_BYTES : SLOT_BYTES + 100] + old_key[SLOT_BYTES + 100 :]
    (tmp_path / "keys" / "mac.key").write_bytes(torn)
    with open_log(tmp_path):
        pass
    reference_check(tmp_path)


def test_an_old_slot_that_was_not_erased_is_erased_at_opening(tmp_path: Path) -> None:
    logger = open_log(tmp_path)
    old_key = (tmp_path / "keys" / "mac.key").read_bytes()
    logger.close()
    new_key = (tmp_path / "keys" / "mac.key").read_bytes()
    (tmp_path / "keys" / "mac.key").write_bytes(old_key[:SLOT_BYTES] + new_key[SLOT_BYTES:])
    logger = open_log(tmp_path)
    assert MacState.parse((tmp_path / "keys" / "mac.key").read_bytes()[:SLOT_BYTES]) is None
    logger.close()
    reference_check(tmp_path)


def test_a_key_file_without_a_whole_slot_refuses(tmp_path: Path) -> None:
    make_log(tmp_path)
    path = tmp_path / "keys" / "mac.key"
    data = bytearray(path.read_bytes())
    data[5] ^= 1
    path.write_bytes(data)
    _refused(tmp_path, match="neither slot holds a key")
    path.write_bytes(data[:-1])
    _refused(tmp_path, match="not 1024 bytes long")


def test_a_wrong_or_missing_frontier_is_made_again(tmp_path: Path) -> None:
    open_log(tmp_path).close()
    open_log(tmp_path).close()
    frontier = tmp_path / "log" / "tree" / "frontier"
    good = frontier.read_bytes()
    for bad in (
        b"",
        b"junk",
        b"1\n" + b"ab" * 32 + b"\n",
        good.replace(b"a", b"b"),
        b"8\n" + b"ab" * 32 + b"\n",
    ):
        frontier.write_bytes(bad)
        open_log(tmp_path).close()
        reference_check(tmp_path)


def test_missing_and_wrong_leaf_hashes_do_not_stop_an_opening(tmp_path: Path) -> None:
    _killed_log(tmp_path)
    leaves = next((tmp_path / "log" / "tree").glob("*.leaves"))
    whole = leaves.read_bytes()
    leaves.write_bytes(b"x" * 7)
    open_log(tmp_path).close()
    assert leaves.read_bytes().startswith(whole)
    reference_check(tmp_path)
    shutil.rmtree(tmp_path / "log" / "tree")
    open_log(tmp_path).close()
    assert leaves.read_bytes() != b""
    open_log(tmp_path).close()
    reference_check(tmp_path)


def test_a_checkpoint_that_is_missing_or_not_ours_refuses(tmp_path: Path) -> None:
    open_log(tmp_path / "a").close()
    open_log(tmp_path / "b").close()
    path = tmp_path / "a" / "log" / "checkpoint"
    path.write_bytes((tmp_path / "b" / "log" / "checkpoint").read_bytes())
    _refused(tmp_path / "a", match="not a checkpoint of this log")
    path.write_bytes(b"")
    _refused(tmp_path / "a", match="not a checkpoint of this log")
    path.unlink()
    _refused(tmp_path / "a", match="cannot be read")


def test_an_older_checkpoint_is_gone_on_from(tmp_path: Path) -> None:
    """Only an anchor or mac.key can tell a checkpoint that was put back; entries are still checked."""
    logger = open_log(tmp_path)
    old = (tmp_path / "log" / "checkpoint").read_bytes()
    logger.close()
    (tmp_path / "log" / "checkpoint").write_bytes(old)
    open_log(tmp_path).close()
    reference_check(tmp_path)


def test_a_log_behind_its_anchor_refuses(tmp_path: Path) -> None:
    _killed_log(tmp_path / "old")
    newer = copy_tree(tmp_path / "old", tmp_path / "new")
    logger = open_log(newer)
    logger.close()
    anchor = (newer / "log" / "checkpoint").read_bytes()
    before = _tree_of(tmp_path / "old")
    with pytest.raises(LogDamagedError, match="its anchor knows of 8"):
        open_log(tmp_path / "old", anchor=anchor)
    assert _tree_of(tmp_path / "old") == before
    open_log(newer, anchor=anchor).close()


def test_a_log_that_went_another_way_than_its_anchor_refuses(tmp_path: Path) -> None:
    _killed_log(tmp_path / "one")
    other = copy_tree(tmp_path / "one", tmp_path / "two")
    with open_log(tmp_path / "one") as logger:
        anchor = logger.flush()
    with open_log(other) as logger:
        logger.emit(sealed(99))
    with pytest.raises(LogDamagedError, match="are not those of its anchor"):
        open_log(other, anchor=anchor)


def test_an_anchor_may_be_older_than_the_running_epoch(tmp_path: Path) -> None:
    with open_log(tmp_path) as logger:
        anchor = logger.flush()
    open_log(tmp_path).close()
    path = tmp_path / "anchor"
    path.write_bytes(bytes(anchor))
    open_log(tmp_path, anchor=path).close()
    reference_check(tmp_path)


def test_an_anchor_that_cannot_be_used_is_named(tmp_path: Path) -> None:
    make_log(tmp_path)
    with pytest.raises(ConfigurationError, match=r"anchor: .* cannot be read"):
        open_log(tmp_path, anchor=tmp_path / "missing")
    with pytest.raises(LogDamagedError, match=r"anchor: .* not a checkpoint of this log"):
        open_log(tmp_path, anchor=b"junk")


def test_a_log_from_another_machine_is_not_gone_on_with(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(machine, "host_id", lambda: "aaaaaaaaaaaaaaaa")
    open_log(tmp_path).close()
    monkeypatch.setattr(machine, "host_id", lambda: "bbbbbbbbbbbbbbbb")
    with pytest.raises(ConfigurationError, match="another machine"):
        open_log(tmp_path)
    monkeypatch.setattr(machine, "host_id", lambda: machine.UNKNOWN)
    open_log(tmp_path).close()


def test_a_missing_first_segment_and_alien_files_refuse(tmp_path: Path) -> None:
    open_log(tmp_path).close()
    segment = segments(tmp_path)[0]
    alien = segment.with_name("notes.txt")
    alien.write_bytes(b"")
    alien.chmod(0o600)
    _refused(tmp_path, match="does not belong among the segments")
    alien.unlink()
    segment.rename(segment.with_name("0" * 19 + "2.jsonl"))
    _refused(tmp_path, match="entries 0 to 1 are missing")


def test_the_clock_behind_the_last_entry_is_recorded(tmp_path: Path) -> None:
    clock = ManualClock()
    open_log(tmp_path, clock=clock).close()
    clock.step(-3600)
    open_log(tmp_path, clock=clock).close()
    entries = reference_check(tmp_path)
    stepped = next(entry for entry in entries if entry["event_type"] == "clock_stepped_back")
    assert stepped["by_us"] == 3_600_000_000
    assert entries[stepped["index"] + 1]["event_type"] == "log_opened"


def test_log_opened_says_what_was_found(tmp_path: Path) -> None:
    import hashlib

    from vram_residency import __version__

    open_log(tmp_path).close()
    entry = read_entries(tmp_path)[0]
    log_json = (tmp_path / "log" / "log.json").read_bytes()
    assert list(entry)[5:-1] == [
        "clean",
        "recovered_events",
        "torn_bytes",
        "writer",
        "log_json_sha256",
        "host_id",
        "boot_id",
        "version",
    ]
    assert entry["log_json_sha256"] == hashlib.sha256(log_json).hexdigest()
    assert entry["version"] == __version__
    assert f"pid {os.getpid()}" in entry["writer"]
    assert entry["host_id"] == machine.host_id()
    assert json.loads(log_json)["service_id"] == entry["service_id"]
