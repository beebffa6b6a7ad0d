"""Logs whose first segments were pruned, and every way to make a loss look like a pruning.

The logs come from a second implementation of the format (tests/independent_log.py).
"""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import zstandard
from tests.independent_log import LogMaker, check, leaf_of

from vram_residency.audit import verify
from vram_residency.audit.reading import survey
from vram_residency.audit.reading.query import find
from vram_residency.core.errors import InvalidInputError

#: Where segments and epochs begin: five seals and an epoch_closed each.
SEGMENTS = (0, 7, 13, 19, 25)
NEXT = 13
GONE = (0, 7)

TRUST = ("vkey", "k0", "both")
everybody = pytest.mark.parametrize("trusted", TRUST)


def make() -> LogMaker:
    """A log with a record that its first two segments may go; the record is entry 27."""
    return make_lying({})


def unrecorded() -> LogMaker:
    maker = LogMaker()
    maker.open()
    for epoch in range(4):
        for number in range(5):
            maker.seal(10 * epoch + number)
        maker.end_epoch()
    maker.seal(50)
    maker.seal(51)
    return maker


def keys(maker: LogMaker, trusted: str) -> dict[str, Any]:
    vkey, mac_key = {"vkey": maker.vkey}, {"mac_key": maker.k0}
    return {"vkey": vkey, "k0": mac_key, "both": vkey | mac_key}[trusted]


def segment(directory: Path, first_index: int) -> Path:
    return directory / "entries" / f"{first_index:020}.jsonl"


def leaves(directory: Path, first_index: int) -> Path:
    return directory / "tree" / f"{first_index:020}.leaves"


def pruned_log(tmp_path: Path, maker: LogMaker | None = None) -> tuple[LogMaker, Path]:
    maker = maker or make()
    return maker, maker.write(tmp_path / "log", segments=SEGMENTS, pruned=GONE)


@everybody
@pytest.mark.parametrize("workers", [1, 2])
def test_a_log_whose_first_segments_went_on_the_record_is_pruned(
    tmp_path: Path, trusted: str, workers: int
) -> None:
    maker, directory = pruned_log(tmp_path)
    check(directory, k0=maker.k0, vkey=maker.vkey)
    verdict = verify(directory, **keys(maker, trusted), workers=workers)
    assert (verdict.verdict, verdict.exit_code, verdict.first_bad) == ("pruned", 0, None)
    assert bool(verdict)
    assert (verdict.entries, verdict.tree_size) == (len(maker.lines) - NEXT, len(maker.lines))
    assert verdict.root_hash == maker.root().hex()
    assert verdict.checked.tree
    assert verdict.checked.mac == (trusted != "vkey")
    assert verdict.unvouched_entries == 0
    assert verdict.unprotected_entries == verdict.entries
    assert verdict.pruned is not None
    assert (verdict.pruned.next_index, verdict.pruned.record_index) == (NEXT, 27)
    assert verdict.pruned.policy == "older than 365d: a text that asks for it"


def test_without_a_trusted_key_a_pruned_log_is_unverifiable(tmp_path: Path) -> None:
    _, directory = pruned_log(tmp_path)
    assert verify(directory).verdict == "unverifiable"


@everybody
@pytest.mark.parametrize("size", [0, 1, 5, NEXT, 14, 25, 28, 30])
def test_a_checkpoint_kept_elsewhere_holds_also_where_its_entries_are_gone(
    tmp_path: Path, trusted: str, size: int
) -> None:
    maker, directory = pruned_log(tmp_path)
    assert len(maker.lines) == 30
    verdict = verify(directory, **keys(maker, trusted), checkpoint=maker.checkpoint(size))
    assert (verdict.verdict, verdict.first_bad) == ("pruned", None)
    assert verdict.unprotected_entries == min(30 - size, 30 - NEXT)


@everybody
def test_a_checkpoint_of_another_history_is_caught_though_its_entries_are_gone(
    tmp_path: Path, trusted: str
) -> None:
    maker, directory = pruned_log(tmp_path)
    other = unrecorded()
    other.origin, other.private, other.ident = maker.origin, maker.private, maker.ident
    verdict = verify(directory, **keys(maker, trusted), checkpoint=other.checkpoint(5))
    assert verdict.verdict == "tampered"


@everybody
@pytest.mark.parametrize("gone", [(), (0,), (0, 7), (7,)], ids=["none", "first", "both", "second alone"])
def test_a_pruning_that_was_cut_short_verifies_at_every_moment(
    tmp_path: Path, trusted: str, gone: tuple[int, ...]
) -> None:
    maker = make()
    directory = maker.write(tmp_path / "log", segments=SEGMENTS, pruned=gone)
    verdict = verify(directory, **keys(maker, trusted))
    assert (verdict.verdict, verdict.first_bad) == ("pruned" if gone else "intact", None)


@everybody
def test_prunings_follow_each_other(tmp_path: Path, trusted: str) -> None:
    maker = unrecorded()
    maker.record_pruning(7)
    maker.record_pruning(19, 7)
    maker.close()
    for number, gone in enumerate([(), (0,), (0, 7), (0, 7, 13)]):
        directory = maker.write(tmp_path / str(number), segments=SEGMENTS, pruned=gone)
        verdict = verify(directory, **keys(maker, trusted))
        assert verdict.verdict == ("pruned" if gone else "intact")
        assert (verdict.pruned.next_index if verdict.pruned else 0) == {0: 0, 1: 7}.get(len(gone), 19)
    # A record whose own predecessor was pruned with its segment has nothing to follow.
    later = unrecorded()
    later.record_pruning(7)
    later.end_epoch()
    start = len(later.lines)
    later.seal()
    later.record_pruning(start, 7)
    later.close()
    places = (*SEGMENTS, start)
    directory = later.write(tmp_path / "later", segments=places, pruned=SEGMENTS)
    assert verify(directory, **keys(later, trusted)).verdict == "pruned"


@everybody
def test_what_is_there_again_must_be_what_was_there(tmp_path: Path, trusted: str) -> None:
    maker, directory = pruned_log(tmp_path)
    data = b"".join(line + b"\n" for line in maker.lines[:7])
    segment(directory, 0).write_bytes(data)
    assert verify(directory, **keys(maker, trusted)).verdict == "pruned"
    segment(directory, 0).write_bytes(data.replace(b'"shard-2"', b'"shard-9"'))
    verdict = verify(directory, **keys(maker, trusted))
    assert verdict.verdict == "tampered"
    assert verdict.first_bad is not None
    assert (verdict.first_bad.index, verdict.first_bad.file) == (3, f"entries/{0:020}.jsonl")


@everybody
@pytest.mark.parametrize("damaged", [7, 13, 19, 25], ids=["to be gone", "first", "second", "with the record"])
@pytest.mark.parametrize("place", [1, -40, -2, None], ids=["magic", "block", "checksum", "cut"])
def test_a_damaged_archive_of_a_pruned_log_is_tampered(
    tmp_path: Path, trusted: str, damaged: int, place: int | None
) -> None:
    """Found by an attack: the search for the record met the damage first, and called it unverifiable."""
    maker = make()
    maker.seal(90)  # a segment after the one with the record, as only closed ones are archived
    maker.close()
    places = (*SEGMENTS, len(maker.lines) - 1)
    gone = (0,) if damaged == 7 else GONE  # a pruning that was cut short leaves a segment there
    directory = maker.write(tmp_path / "log", segments=places, pruned=gone)
    plain = segment(directory, damaged)
    data = bytearray(zstandard.ZstdCompressor(write_checksum=True).compress(plain.read_bytes()))
    archive = plain.with_name(plain.name + ".zst")
    archive.write_bytes(data)
    plain.unlink()
    assert verify(directory, **keys(maker, trusted)).verdict == "pruned"
    if place is None:
        del data[-20:]
    else:
        data[place] ^= 0x10
    archive.write_bytes(data)
    verdict = verify(directory, **keys(maker, trusted))
    assert verdict.verdict == "tampered"
    assert verdict.first_bad is not None
    assert verdict.first_bad.file == f"entries/{archive.name}"
    assert verdict.first_bad.index == (None if damaged == 7 else damaged)


# --- faking a pruning ---------------------------------------------------------------------------------------

Attack = Callable[[LogMaker, Path], None]


def _unlink(*first_indexes: int) -> Attack:
    def attack(_: LogMaker, directory: Path) -> None:
        for first_index in first_indexes:
            segment(directory, first_index).unlink()

    return attack


def _unlink_leaves(*first_indexes: int) -> Attack:
    def attack(_: LogMaker, directory: Path) -> None:
        for first_index in first_indexes:
            leaves(directory, first_index).unlink()

    return attack


def _flip_leaf(_: LogMaker, directory: Path) -> None:
    data = bytearray(leaves(directory, 7).read_bytes())
    data[40] ^= 1
    leaves(directory, 7).write_bytes(data)


def _resize_leaves(by: int) -> Attack:
    def attack(_: LogMaker, directory: Path) -> None:
        data = leaves(directory, 0).read_bytes()
        leaves(directory, 0).write_bytes(data[:by] if by < 0 else data + bytes(by))

    return attack


def _swap_leaves(_: LogMaker, directory: Path) -> None:
    data = leaves(directory, 7).read_bytes()
    leaves(directory, 7).write_bytes(data[32:64] + data[:32] + data[64:])


def _drop_record(_: LogMaker, directory: Path) -> None:
    lines = segment(directory, 25).read_bytes().split(b"\n")
    segment(directory, 25).write_bytes(b"\n".join(line for line in lines if b"segments_pruned" not in line))


def _rewrite_record(maker: LogMaker, directory: Path) -> None:
    """Everything that somebody without a key can make consistent, to cut one segment more."""
    epoch, mac = maker.marks[19]
    line = maker.lines[27]
    entry = json.loads(line) | {"next_index": 19, "next_epoch": epoch, "last_mac": mac.hex()}
    entry["root_hash"] = maker.root(19).hex()
    changed = json.dumps(entry, separators=(",", ":")).encode()
    data = segment(directory, 25).read_bytes()
    segment(directory, 25).write_bytes(data.replace(line, changed))
    segment(directory, NEXT).unlink()


def _repeat_record(maker: LogMaker, directory: Path) -> None:
    with segment(directory, 25).open("ab") as file:
        file.write(maker.lines[27] + b"\n")


def _put_in_record_of_another_log(_: LogMaker, directory: Path) -> None:
    with segment(directory, 25).open("ab") as file:
        file.write(make().lines[27] + b"\n")


def _append_own_record(maker: LogMaker, directory: Path) -> None:
    """Right in everything but its mac, which nobody without a key can make; one segment more is cut."""
    private = LogMaker()
    private.__dict__.update(maker.__dict__ | {"key": bytes(32), "lines": list(maker.lines)})
    private.marks = list(maker.marks)
    private.record_pruning(19, NEXT)
    with segment(directory, 25).open("ab") as file:
        file.write(private.lines[-1] + b"\n")
    segment(directory, NEXT).unlink()


def _rename(_: LogMaker, directory: Path) -> None:
    segment(directory, NEXT).rename(segment(directory, 0))


def _take_old_checkpoint(size: int) -> Attack:
    def attack(maker: LogMaker, directory: Path) -> None:
        (directory / "checkpoint").write_bytes(maker.checkpoint(size))

    return attack


def _take_no_checkpoint(_: LogMaker, directory: Path) -> None:
    (directory / "checkpoint").unlink()


def _change_entry(_: LogMaker, directory: Path) -> None:
    data = segment(directory, NEXT).read_bytes()
    segment(directory, NEXT).write_bytes(data.replace(b'"shard-21"', b'"shard-99"'))


def _change_entry_and_leaf(maker: LogMaker, directory: Path) -> None:
    _change_entry(maker, directory)
    lines = segment(directory, NEXT).read_bytes().split(b"\n")[:-1]
    leaves(directory, NEXT).write_bytes(b"".join(map(leaf_of, lines)))


def _empty_first(_: LogMaker, directory: Path) -> None:
    segment(directory, NEXT).write_bytes(b"")


#: Name → what is done, and the verdicts by vkey, by K_0, and by both.
ATTACKS: dict[str, tuple[Attack, tuple[str, str, str]]] = {
    "cut more than the record says": (_unlink(13), ("truncated",) * 3),
    "cut all but the record's own segment": (_unlink(13, 19), ("truncated",) * 3),
    "cut everything": (_unlink(13, 19, 25), ("truncated",) * 3),
    "cut the record's own segment": (_unlink(25), ("truncated",) * 3),
    "a hole in the middle": (_unlink(19), ("truncated",) * 3),
    "remove the record": (_drop_record, ("truncated",) * 3),
    "rewrite the record to cut more": (_rewrite_record, ("tampered",) * 3),
    "repeat the record": (_repeat_record, ("tampered",) * 3),
    "the record of another log": (_put_in_record_of_another_log, ("tampered",) * 3),
    "a record of one's own": (_append_own_record, ("truncated", "tampered", "tampered")),
    "a later segment in place of the first": (_rename, ("tampered",) * 3),
    "empty the first segment that stays": (_empty_first, ("truncated",) * 3),
    "change a leaf hash": (_flip_leaf, ("tampered",) * 3),
    "swap leaf hashes": (_swap_leaves, ("tampered",) * 3),
    "remove the first leaf hashes": (_unlink_leaves(0), ("truncated",) * 3),
    "remove later leaf hashes": (_unlink_leaves(7), ("truncated",) * 3),
    "remove all leaf hashes": (_unlink_leaves(*SEGMENTS), ("truncated",) * 3),
    "shorten leaf hashes": (_resize_leaves(-32), ("truncated",) * 3),
    "cut into a leaf hash": (_resize_leaves(-1), ("truncated",) * 3),
    "lengthen leaf hashes": (_resize_leaves(32), ("truncated",) * 3),
    "a checkpoint from before the record": (_take_old_checkpoint(26), ("truncated", "pruned", "pruned")),
    "a checkpoint from before what is gone": (_take_old_checkpoint(5), ("truncated",) * 3),
    "no checkpoint": (_take_no_checkpoint, ("truncated",) * 3),
    "change an entry that stays": (_change_entry, ("tampered",) * 3),
    "change an entry that stays and its leaf": (_change_entry_and_leaf, ("tampered",) * 3),
}


@everybody
@pytest.mark.parametrize("name", ATTACKS)
def test_no_loss_passes_for_a_pruning(tmp_path: Path, trusted: str, name: str) -> None:
    attack, verdicts = ATTACKS[name]
    maker, directory = pruned_log(tmp_path)
    attack(maker, directory)
    verdict = verify(directory, **keys(maker, trusted))
    assert verdict.verdict == verdicts[TRUST.index(trusted)], verdict.first_bad
    assert bool(verdict) == (verdict.first_bad is None)


@everybody
def test_entries_missing_without_any_record_are_truncation(tmp_path: Path, trusted: str) -> None:
    maker = unrecorded()
    maker.close()
    directory = maker.write(tmp_path / "log", segments=SEGMENTS, pruned=GONE)
    verdict = verify(directory, **keys(maker, trusted))
    assert verdict.verdict == "truncated"
    assert verdict.first_bad is not None
    assert (verdict.first_bad.index, verdict.first_bad.file) == (0, f"entries/{NEXT:020}.jsonl")


#: What a writer that lies may say: a right mac and root do not help. By vkey alone a wrong last_mac cannot be
#: told: only who can make macs can check one.
LIES: dict[str, tuple[dict[str, Any], tuple[str, str, str]]] = {
    "root_hash": ({"root_hash": "00" * 32}, ("tampered",) * 3),
    "last_mac": ({"last_mac": "00" * 32}, ("pruned", "tampered", "tampered")),
    "next_epoch": ({"next_epoch": 1}, ("tampered",) * 3),
    "next_epoch beyond all": ({"next_epoch": 2**62}, ("truncated",) * 3),
    "first_index behind": ({"first_index": NEXT}, ("tampered",) * 3),
    "a place in a segment": ({"next_index": 12}, ("truncated",) * 3),
    "no hash": ({"root_hash": "x"}, ("tampered",) * 3),
    "upper case": ({"last_mac": "AB" * 32}, ("tampered",) * 3),
    "a text for a number": ({"next_epoch": "2"}, ("tampered",) * 3),
    "a field too many": ({"more": 1}, ("tampered",) * 3),
}


@everybody
@pytest.mark.parametrize("name", LIES)
def test_a_malformed_or_lying_record_is_never_believed(tmp_path: Path, trusted: str, name: str) -> None:
    wrong, verdicts = LIES[name]
    maker, directory = pruned_log(tmp_path, make_lying(wrong))
    verdict = verify(directory, **keys(maker, trusted))
    assert verdict.verdict == verdicts[TRUST.index(trusted)], verdict.first_bad


@everybody
@pytest.mark.parametrize("name", sorted({*LIES} - {"first_index behind"}))
def test_a_lying_record_is_tampering_also_where_everything_is_still_there(
    tmp_path: Path, trusted: str, name: str
) -> None:
    maker = make_lying(LIES[name][0])
    directory = maker.write(tmp_path / "log", segments=SEGMENTS)
    verdict = verify(directory, **keys(maker, trusted))
    assert verdict.verdict == "tampered"
    assert verdict.first_bad is not None
    assert verdict.first_bad.index == 27


def make_lying(wrong: dict[str, Any]) -> LogMaker:
    maker = unrecorded()
    maker.record_pruning(NEXT, wrong=wrong)
    maker.close()
    return maker


@pytest.mark.parametrize(
    ("first", "then"), [((7, 0), (13, 0)), ((7, 0), (13, 13)), ((7, 7), (13, 7)), ((13, 0), (7, 13))]
)
def test_records_that_do_not_follow_each_other_are_tampering(
    tmp_path: Path, first: tuple[int, int], then: tuple[int, int]
) -> None:
    maker = unrecorded()
    maker.record_pruning(*first)
    maker.record_pruning(*then)
    maker.close()
    directory = maker.write(tmp_path / "log", segments=SEGMENTS)
    assert verify(directory, mac_key=maker.k0).verdict == "tampered"


def test_a_pruned_entry_is_shown_as_such(tmp_path: Path) -> None:
    maker, directory = pruned_log(tmp_path)
    with pytest.raises(InvalidInputError, match="entry 3 was pruned, as entry 27 of 2025-10-02T") as caught:
        find(directory, 3)
    assert "older than 365d: a text that asks for it" in str(caught.value)
    assert find(directory, NEXT).line == maker.lines[NEXT]
    with pytest.raises(InvalidInputError, match="no entry 30"):
        find(directory, 30)


@everybody
@pytest.mark.parametrize(
    "wrong", [{}, {"entries": 5}, {"closed_segment": f"{0:020}.jsonl"}, {"closed_segment": "x"}]
)
def test_a_rotation_after_what_is_gone_must_fit_its_place(
    tmp_path: Path, trusted: str, wrong: dict[str, Any]
) -> None:
    maker = LogMaker()
    maker.open()
    maker.seal()
    maker.end_epoch()
    start = len(maker.lines)
    numbers = {"closed_segment": f"{0:020}.jsonl", "sha256": "00" * 32, "entries": start}
    if wrong.get("closed_segment") == numbers["closed_segment"]:
        wrong = {"closed_segment": f"{1:020}.jsonl"}
    maker.append("segment_rotated", **numbers | wrong)
    maker.record_pruning(start)
    maker.close()
    directory = maker.write(tmp_path / "log", segments=(0, start), pruned=(0,))
    verdict = verify(directory, **keys(maker, trusted))
    assert verdict.verdict == ("tampered" if wrong else "pruned")


# --- time ---------------------------------------------------------------------------------------------------


@everybody
@pytest.mark.parametrize("workers", [1, 2])
def test_time_that_steps_back_without_saying_so_is_tampering(
    tmp_path: Path, trusted: str, workers: int
) -> None:
    maker = LogMaker()
    maker.open()
    maker.seal(1)
    maker.step_s = -0.000001
    maker.seal(2)
    maker.step_s = 1
    maker.seal(3)
    maker.close()
    verdict = verify(maker.write(tmp_path / "log"), **keys(maker, trusted), workers=workers)
    assert verdict.verdict == "tampered"
    assert verdict.first_bad is not None
    assert verdict.first_bad.index == 2
    assert "clock_stepped_back" in verdict.first_bad.reason


@everybody
@pytest.mark.parametrize("workers", [1, 2])
def test_a_step_back_on_the_record_and_equal_times_are_fine(
    tmp_path: Path, trusted: str, workers: int
) -> None:
    maker = LogMaker()
    maker.open()
    maker.seal(1)
    maker.step_s = -2
    maker.append("clock_stepped_back", by_us=2_000_000)
    maker.step_s = 0
    for number in range(4):
        maker.seal(number)
    maker.close()
    assert verify(maker.write(tmp_path / "log"), **keys(maker, trusted), workers=workers).verdict == "intact"


def test_many_entries_with_one_step_back_among_them_are_caught_in_every_batch(tmp_path: Path) -> None:
    for at in (1, 2, 400, 700, 799):
        maker = LogMaker()
        maker.open()
        for number in range(800):
            maker.step_s = -0.5 if number == at else 0.5
            maker.seal(number)
        verdict = verify(maker.write(tmp_path / str(at)), vkey=maker.vkey)
        assert verdict.first_bad is not None
        assert (verdict.verdict, verdict.first_bad.index) == ("tampered", at + 1)


def test_the_root_of_a_pruned_log_is_the_one_that_is_signed(tmp_path: Path) -> None:
    maker, directory = pruned_log(tmp_path)
    signed = (directory / "checkpoint").read_text().split("\n")[2]
    found = verify(directory, mac_key=maker.k0).root_hash
    assert found is not None
    assert base64.b64decode(signed) == bytes.fromhex(found)


@everybody
@pytest.mark.parametrize("range_bytes", [300, 1000, 2500])
def test_ranges_of_any_length_give_the_same_verdicts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, trusted: str, range_bytes: int
) -> None:
    monkeypatch.setattr(survey, "RANGE_BYTES", range_bytes)
    for number, (attack, verdicts) in enumerate([(None, ("pruned",) * 3), *ATTACKS.values()]):
        (tmp_path / str(number)).mkdir()
        maker, directory = pruned_log(tmp_path / str(number))
        if attack is not None:
            attack(maker, directory)
        verdict = verify(directory, **keys(maker, trusted), workers=1)
        assert verdict.verdict == verdicts[TRUST.index(trusted)], (number, verdict.first_bad)
