"""Proofs from a log on disk: whatever state its derived files are in, and whoever wrote it."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.audit_logs import ManualClock, open_log, sealed
from tests.independent_log import LogMaker, leaf_of, make_log, open_note
from tests.merkle_reference import ReferenceTree

from vram_residency.audit import Receipt, prove_consistency, prove_inclusion
from vram_residency.audit.format import note
from vram_residency.audit.format.tlog_proof import TlogProof
from vram_residency.audit.publishing.publication import publish
from vram_residency.core.errors import ConfigurationError, InvalidInputError, LogDamagedError

SEGMENTS = (0, 4, 9, 15)


@pytest.fixture
def maker() -> LogMaker:
    return make_log(20)


@pytest.fixture
def log(tmp_path: Path, maker: LogMaker) -> Path:
    directory = maker.write(tmp_path / "log", segments=SEGMENTS)
    (directory / "tree").mkdir()
    ends = (*SEGMENTS[1:], len(maker.lines))
    for first, end in zip(SEGMENTS, ends, strict=True):
        leaves = b"".join(leaf_of(line) for line in maker.lines[first:end])
        (directory / "tree" / f"{first:020}.leaves").write_bytes(leaves)
    return directory


def _require_all_proofs(log: Path, maker: LogMaker) -> None:
    size = len(maker.lines)
    reference = ReferenceTree(maker.lines)
    keys = [note.VerifierKey.parse(maker.vkey)]
    for index in range(size):
        made = prove_inclusion(log, index)
        assert made.leaf_hash == reference.leaf_hashes[index]
        assert list(made.proof.hashes) == reference.path(index, 0, size)
        TlogProof.parse(bytes(made)).verify(made.leaf_hash, keys, origin=maker.origin)
    for old_size in range(size + 1):
        consistency = prove_consistency(log, old_size)
        assert (consistency.old_root, consistency.root) == (maker.root(old_size), maker.root())
        assert list(consistency.hashes) == (reference.proof(old_size, size) if old_size else [])


def _remove(log: Path) -> None:
    for path in (log / "tree").iterdir():
        path.unlink()


def _remove_folder(log: Path) -> None:
    _remove(log)
    (log / "tree").rmdir()


def _change(log: Path) -> None:
    path = log / "tree" / f"{4:020}.leaves"
    path.write_bytes(b"\0" * 32 + path.read_bytes()[32:])


def _cut(log: Path) -> None:
    path = log / "tree" / f"{4:020}.leaves"
    path.write_bytes(path.read_bytes()[:-33])


def _lengthen(log: Path) -> None:
    path = log / "tree" / f"{4:020}.leaves"
    path.write_bytes(path.read_bytes() + bytes(32))


def _replace_by_folder(log: Path) -> None:
    path = log / "tree" / f"{0:020}.leaves"
    path.unlink()
    path.mkdir()


def _nothing(log: Path) -> None:
    del log


def _damage_entry_tail(log: Path) -> None:
    with (log / "entries" / f"{15:020}.jsonl").open("ab") as file:
        file.write(b'{"torn')


@pytest.mark.parametrize(
    "do",
    [_nothing, _remove, _remove_folder, _change, _cut, _lengthen, _replace_by_folder, _damage_entry_tail],
)
def test_stored_leaves_are_used_where_they_are_right_and_never_trusted(
    log: Path, maker: LogMaker, do: Callable[[Path], None]
) -> None:
    do(log)
    before = {path: path.read_bytes() for path in log.rglob("*") if path.is_file()}
    _require_all_proofs(log, maker)
    assert {path: path.read_bytes() for path in log.rglob("*") if path.is_file()} == before


def test_proofs_go_on_where_segments_were_pruned(log: Path, maker: LogMaker) -> None:
    """Their leaf hashes stay (audit-log.md section 7)."""
    for first in SEGMENTS[:2]:
        (log / "entries" / f"{first:020}.jsonl").unlink()
    _require_all_proofs(log, maker)
    (log / "tree" / f"{9:020}.leaves").unlink()
    _require_all_proofs(log, maker)  # the rest is made again from the entries that are left


def test_without_leaves_or_entries_there_is_no_proof(log: Path) -> None:
    (log / "entries" / f"{4:020}.jsonl").unlink()
    (log / "tree" / f"{4:020}.leaves").unlink()
    with pytest.raises(LogDamagedError, match="do not hash to the signed root"):
        prove_inclusion(log, 2)


def test_an_entry_that_was_changed_is_not_proven_though_its_stored_leaf_is_right(
    log: Path, maker: LogMaker
) -> None:
    path = log / "entries" / f"{4:020}.jsonl"
    path.write_bytes(path.read_bytes().replace(b"shard-4", b"shard-X"))
    changed = next(index for index, line in enumerate(maker.lines) if b"shard-4" in line)
    with pytest.raises(LogDamagedError, match=f"entry {changed} is not the one that was signed"):
        prove_inclusion(log, changed)
    assert prove_inclusion(log, changed + 1).leaf_hash == leaf_of(maker.lines[changed + 1])
    _remove(log)
    with pytest.raises(LogDamagedError, match="do not hash to the signed root"):
        prove_inclusion(log, changed + 1)


def test_proofs_stand_under_the_checkpoint_not_beyond_it(tmp_path: Path, maker: LogMaker) -> None:
    log = maker.write(tmp_path / "log", size=10)
    assert prove_inclusion(log, 9).proof.checkpoint.size == 10
    for index in (10, 11, 2**63, -1):
        with pytest.raises(InvalidInputError, match="covers 10 entries"):
            prove_inclusion(log, index)
    for sizes in [(5, 11), (11, None)]:
        with pytest.raises(InvalidInputError, match="covers 10 entries"):
            prove_consistency(log, *sizes)
    for sizes in [(6, 5), (-1, 5)]:
        with pytest.raises(InvalidInputError, match="not in order"):
            prove_consistency(log, *sizes)


def test_a_consistency_proof_may_end_before_the_newest_checkpoint(log: Path, maker: LogMaker) -> None:
    made = prove_consistency(log, 3, 7)
    assert (made.old_root, made.root) == (maker.root(3), maker.root(7))
    assert not made.is_signed
    head, _, unsigned = bytes(made).partition(b"\n\n")
    assert head.startswith(b"old 3\n")
    assert unsigned == maker.checkpoint(7).rpartition(b"\n\n")[0] + b"\n"
    assert bytes(prove_consistency(log, 3)).endswith(maker.checkpoint())


def test_an_empty_log_has_its_trivial_proof(tmp_path: Path) -> None:
    maker = LogMaker()
    log = maker.write(tmp_path / "log")
    assert prove_consistency(log, 0).hashes == ()
    with pytest.raises(InvalidInputError, match="covers 0 entries"):
        prove_inclusion(log, 0)


def test_a_checkpoint_by_another_key_is_refused(log: Path) -> None:
    other = make_log()
    (log / "checkpoint").write_bytes(other.checkpoint())
    with pytest.raises(LogDamagedError, match="not a checkpoint of this log"):
        prove_inclusion(log, 0)
    (log / "checkpoint").unlink()
    with pytest.raises(LogDamagedError, match="cannot be read"):
        prove_inclusion(log, 0)


def test_a_directory_that_is_no_log_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="is not an audit log"):
        prove_inclusion(tmp_path, 0)


def test_a_receipt_becomes_a_proof_once_a_checkpoint_covers_it(tmp_path: Path) -> None:
    """Beside the live writer, and after it has closed the log."""
    log, clock = tmp_path / "log", ManualClock()
    with open_log(tmp_path, clock=clock) as logger:
        receipts = []
        for number in range(5):
            clock.advance(2)  # a checkpoint is signed at most once a second
            receipts.append(logger.emit(sealed(number), durable=True))
            assert prove_inclusion(log, receipts[-1]).leaf_hash.hex() == receipts[-1].leaf_hash
        late = logger.emit(sealed(), durable=True)
        with pytest.raises(InvalidInputError, match="the newest checkpoint covers"):
            prove_inclusion(log, late)
    for receipt in [*receipts, late]:
        assert prove_inclusion(log, receipt).leaf_hash.hex() == receipt.leaf_hash


def test_a_receipt_that_the_log_no_longer_honours_is_evidence(log: Path, maker: LogMaker) -> None:
    good = Receipt(3, leaf_of(maker.lines[3]).hex(), f"{maker.ident.hex()}-3")
    assert prove_inclusion(log, good).leaf_hash == leaf_of(maker.lines[3])
    with pytest.raises(LogDamagedError, match="not the one for which the receipt was given"):
        prove_inclusion(log, Receipt(3, leaf_of(maker.lines[4]).hex(), good.audit_id))


def test_an_independent_reader_accepts_the_checkpoint_in_a_proof(log: Path, maker: LogMaker) -> None:
    note_bytes = bytes(prove_inclusion(log, 3)).partition(b"\n\n")[2]
    assert open_note(note_bytes, maker.vkey) == (maker.origin, len(maker.lines), maker.root())


def test_progress_ends_at_the_size(log: Path, maker: LogMaker) -> None:
    seen: list[tuple[int, int]] = []
    prove_inclusion(log, 3, on_progress=lambda *step: seen.append(step))
    prove_consistency(log, 3, on_progress=lambda *step: seen.append(step))
    assert seen == [(len(maker.lines), len(maker.lines))] * 2


def test_a_line_that_is_too_long_for_an_entry_is_none(tmp_path: Path) -> None:
    """Though the log's key signed a tree with it: no bundle could hold it (audit-log.md section 2)."""
    maker = make_log(1)
    maker.lines.append(b"x" * 65_536)
    log = maker.write(tmp_path / "log")
    with pytest.raises(LogDamagedError, match="do not hash to the signed root"):
        prove_inclusion(log, 0)
    with pytest.raises(LogDamagedError, match="do not hash to the signed root"):
        publish(log, tmp_path / "out")


def test_a_named_pipe_in_the_place_of_a_file_is_refused_and_not_waited_for(log: Path) -> None:
    (log / "log.json").unlink()
    os.mkfifo(log / "log.json")
    with pytest.raises(LogDamagedError):
        prove_inclusion(log, 1)
