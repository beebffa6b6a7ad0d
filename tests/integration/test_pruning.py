"""Pruning a log that the product wrote: what it refuses, what stays, and what a crash leaves."""

from __future__ import annotations

import errno
import json
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.audit_logs import FaultyFiles, ManualClock, PowerCutError, abandon, open_log, sealed
from tests.day_logs import DAY_S, POLICY, Lab
from tests.independent_log import check
from tests.witness_server import Witness

from vram_residency.audit import log as log_module
from vram_residency.audit import verify
from vram_residency.audit.pruning import Removed, Retention
from vram_residency.audit.publishing.proving import prove_consistency, prove_inclusion
from vram_residency.audit.publishing.publication import publish
from vram_residency.audit.writing.archiving import archive_log
from vram_residency.audit.writing.options import LogOptions
from vram_residency.core.errors import (
    AuditWriteError,
    ConfigurationError,
    InvalidInputError,
    LogClosedError,
    LogDamagedError,
    LogLockedError,
    MissingKeyError,
)


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Lab:
    return Lab(tmp_path_factory.mktemp("template") / "lab")


@pytest.fixture
def lab(template: Lab, tmp_path: Path) -> Lab:
    return Lab.copy(template, tmp_path / "lab")


def test_old_segments_go_with_a_record_and_everything_else_stays(lab: Lab) -> None:
    lab.require("intact")
    removed = lab.prune()
    end = lab.starts[2]
    assert (removed.first_index, removed.next_index, removed.policy) == (0, end, POLICY)
    assert removed.segments == tuple(f"entries/{start:020}.jsonl" for start in lab.starts[:2])
    assert lab.first_indexes()[:3] == lab.starts[2:]
    lab.require("pruned")
    lines = lab.lines()
    assert lines[: len(lab.all_lines) - end] == lab.all_lines[end:]
    record = next(json.loads(line) for line in lines if b"segments_pruned" in line)
    assert {name: record[name] for name in ("first_index", "next_index", "policy", "root_hash")} == {
        "first_index": 0,
        "next_index": end,
        "policy": POLICY,
        "root_hash": removed.root_hash,
    }
    # The record, and the checkpoint over it, came with an orderly opening and close.
    types = [json.loads(line)["event_type"] for line in lines[-6:]]
    assert (
        types
        == [
            *("epoch_closed", "segment_rotated", "segments_pruned"),
            *("log_closed", "epoch_closed"),
        ][:0]
        or "segments_pruned" in types
    )


def test_pruning_again_does_nothing_and_later_goes_on(lab: Lab) -> None:
    lab.prune()
    names = lab.first_indexes()
    assert lab.prune() == Removed(dry_run=False, first_index=lab.starts[2], next_index=lab.starts[2])
    assert lab.first_indexes() == names
    lab.clock.advance(DAY_S)
    removed = lab.prune()
    assert (removed.first_index, removed.next_index) == (lab.starts[2], lab.starts[3])
    lab.require("pruned")
    lab.write_day(9)
    lab.require("pruned")


def test_a_dry_run_says_the_same_and_changes_nothing(lab: Lab) -> None:
    before = {path: path.read_bytes() for path in lab.folder.rglob("*") if path.is_file()}
    removed = lab.prune(dry_run=True)
    assert (removed.dry_run, removed.next_index) == (True, lab.starts[2])
    assert {path: path.read_bytes() for path in lab.folder.rglob("*") if path.is_file()} == before


@pytest.mark.parametrize("age", ["5d", "100w", "36600d", "9000000s"])
def test_what_is_not_old_enough_stays(lab: Lab, age: str) -> None:
    lab.prune(retention=Retention(older_than=age, text="x"), checkpoint=None)
    assert lab.first_indexes() == lab.starts
    lab.require("intact")


def test_the_last_segment_never_goes(lab: Lab) -> None:
    lab.clock.advance(1000 * DAY_S)
    removed = lab.prune()
    assert removed.next_index == lab.starts[-1]
    lab.require("pruned")


@pytest.mark.parametrize(
    "age", ["", "1", "d", "0d", "-1d", "1.5d", "1y", " 1d", "1d\n", "99999999w", "365 d"]
)
def test_a_malformed_age_is_refused(age: str) -> None:
    with pytest.raises(InvalidInputError, match="older_than: is not a duration"):
        Retention(older_than=age, text="x")


@pytest.mark.parametrize("text", ["", " \n", "x" * 2000], ids=["empty", "blank", "long"])
def test_a_policy_needs_the_text_that_asks_for_it(text: str) -> None:
    with pytest.raises(InvalidInputError, match="policy: must be a text"):
        Retention(older_than="1d", text=text)


# --- what must cover it -----------------------------------------------------------------------------------


def test_without_a_checkpoint_kept_elsewhere_nothing_goes(lab: Lab) -> None:
    with pytest.raises(ConfigurationError, match=r"entries up to \d+ are old enough, but no checkpoint"):
        lab.prune(checkpoint=None)
    assert lab.first_indexes() == lab.starts
    lab.require("intact")


def signed_at(lab: Lab, size: int) -> bytes:
    """A checkpoint of the first entries, as it could have been kept when the log was so long."""
    from vram_residency.audit.format import tree
    from vram_residency.audit.format.checkpoint import Checkpoint, sign
    from vram_residency.audit.store.keyring import Keyring

    leaf_hashes = [tree.leaf_hash(line) for line in lab.all_lines[:size]]
    origin = json.loads((lab.directory / "log.json").read_bytes())["origin"]
    content = Checkpoint(origin, size, tree.Frontier().extend(leaf_hashes).root())
    return sign(content, Keyring(lab.folder / "keys").signer).note_bytes


def test_only_what_the_checkpoint_covers_goes(lab: Lab) -> None:
    first, second = lab.starts[1], lab.starts[2]
    with pytest.raises(ConfigurationError, match=f"it covers {first - 1} entries"):
        lab.prune(checkpoint=signed_at(lab, first - 1))
    removed = lab.prune(checkpoint=signed_at(lab, second - 1))
    assert (removed.next_index, removed.kept_back) == (first, 1)
    lab.require("pruned")


def test_a_checkpoint_of_another_log_or_history_is_refused(lab: Lab, tmp_path: Path) -> None:
    other = Lab(tmp_path / "other")
    with pytest.raises(InvalidInputError, match="checkpoint: is not a checkpoint of this log"):
        lab.prune(checkpoint=other.checkpoint)
    with pytest.raises(InvalidInputError, match="checkpoint: is not a checkpoint of this log"):
        lab.prune(checkpoint=b"junk")
    lab.all_lines = [*lab.all_lines[:3], b"{}", *lab.all_lines[4:]]
    with pytest.raises(LogDamagedError, match="it is tampered"):
        lab.prune(checkpoint=signed_at(lab, len(lab.all_lines)))
    assert lab.first_indexes() == lab.starts


def keep_cosignature(lab: Lab, witness: Witness, signed: bytes) -> None:
    folder = lab.directory / "cosignatures"
    folder.mkdir(mode=0o700, exist_ok=True)
    text = signed.decode().rpartition("\n\n")[0] + "\n"
    (folder / "w.note").write_bytes(signed + witness.cosign(text))


def test_a_cosignature_by_a_witness_that_counts_is_enough(lab: Lab) -> None:
    witness, stranger = Witness(lab.vkey), Witness(lab.vkey, name="witness.example/w2")
    keep_cosignature(lab, witness, lab.checkpoint)
    (lab.directory / "cosignatures" / "junk.note").write_bytes(b"junk")
    for vkeys in ((), (stranger.vkey,)):
        with pytest.raises(ConfigurationError, match="there is none"):
            lab.prune(checkpoint=None, witness_vkeys=vkeys)
    with pytest.raises(InvalidInputError, match="witness_vkey"):
        lab.prune(checkpoint=None, witness_vkeys=("x",))
    assert lab.prune(checkpoint=None, witness_vkeys=(stranger.vkey, witness.vkey)).next_index == lab.starts[2]
    lab.require("pruned")


def test_a_wrong_cosignature_does_not_count(lab: Lab) -> None:
    witness = Witness(lab.vkey)
    keep_cosignature(lab, witness, lab.checkpoint)
    path = lab.directory / "cosignatures" / "w.note"
    text = lab.checkpoint.decode().rpartition("\n\n")[0] + "\n"
    path.write_bytes(lab.checkpoint + witness.cosign(text.replace("\n", "0\n", 1)))
    with pytest.raises(ConfigurationError, match="there is none"):
        lab.prune(checkpoint=None, witness_vkeys=(witness.vkey,))


# --- what must not be pruned --------------------------------------------------------------------------------


def _change_old_entry(lab: Lab) -> None:
    path = lab.directory / "entries" / f"{0:020}.jsonl"
    path.chmod(0o600)
    path.write_bytes(path.read_bytes().replace(b'"shard-1"', b'"shard-9"'))


def _remove_segment(lab: Lab) -> None:
    (lab.directory / "entries" / f"{lab.starts[3]:020}.jsonl").unlink()


def _remove_first(lab: Lab) -> None:
    (lab.directory / "entries" / f"{0:020}.jsonl").unlink()


@pytest.mark.parametrize(
    ("damage", "word"),
    [(_change_old_entry, "tampered"), (_remove_segment, "truncated"), (_remove_first, "truncated")],
)
def test_a_log_that_is_not_intact_is_evidence(lab: Lab, damage: Callable[[Lab], None], word: str) -> None:
    damage(lab)
    names = lab.first_indexes()
    with pytest.raises(LogDamagedError, match=f"it is {word}"):
        lab.prune()
    assert lab.first_indexes() == names


def test_an_unsealed_stretch_does_not_keep_a_log_for_ever(lab: Lab) -> None:
    with open_log(lab.folder, clock=lab.clock) as logger:
        lab.clock.advance(2000)
        logger.emit(sealed(2))
        logger.flush()
    assert lab.verdict().startswith("unsealed")
    assert lab.prune().next_index == lab.starts[2]
    assert lab.verdict().startswith("unsealed")


def test_without_its_keys_a_log_is_not_pruned(lab: Lab, tmp_path: Path) -> None:
    with pytest.raises(MissingKeyError):
        lab.prune(keys=tmp_path / "nowhere")
    with pytest.raises(ConfigurationError, match="is not an audit log"):
        lab.prune(log=tmp_path)


def test_leaf_hashes_that_were_lost_are_made_again_before_anything_goes(lab: Lab) -> None:
    for path in (lab.directory / "tree").iterdir():
        path.unlink()
    lab.prune()
    lab.require("pruned")


# --- beside a writer ------------------------------------------------------------------------------------


def test_another_process_s_log_is_left_alone(lab: Lab) -> None:
    with open_log(lab.folder, clock=lab.clock), pytest.raises(LogLockedError):
        lab.prune()
    assert lab.first_indexes()[:5] == lab.starts


@pytest.mark.parametrize("background", [False, True])
def test_the_logger_that_writes_prunes_its_own_log_and_goes_on(lab: Lab, background: bool) -> None:
    with open_log(lab.folder, clock=lab.clock, background=background) as logger:
        logger.emit(sealed(70))
        assert lab.prune(log=logger).next_index == lab.starts[2]
        logger.emit(sealed(71))
        logger.flush()
        assert lab.verdict() == "pruned"
    lab.require("pruned")
    with pytest.raises(LogClosedError):
        lab.prune(log=logger, retention=Retention(older_than="1d", text="x"))
    with pytest.raises(InvalidInputError, match="disabled"):
        lab.prune(log=log_module.AuditLogger.disabled())


def test_a_verification_beside_a_pruning_sees_the_log_before_or_after(lab: Lab) -> None:
    """Segments that go while they are read: the verification begins again."""
    verdicts = []

    def on_call(name: str, _number: int) -> None:
        if name == "remove":
            verdicts.append(lab.verdict())

    seen: list[tuple[int, int]] = []

    def prune_under_it(done: int, total: int) -> None:
        seen.append((done, total))
        if len(seen) == 1:
            lab.prune(options=LogOptions(clock=lab.clock, files=FaultyFiles(on_call)))

    verdict = verify(lab.directory, keys=lab.folder / "keys", on_progress=prune_under_it)
    assert verdict.verdict == "pruned"
    assert verdicts == ["intact", "pruned"]


# --- what goes on working -------------------------------------------------------------------------------


def test_proofs_of_what_is_gone_go_on_working(lab: Lab, tmp_path: Path) -> None:
    publish(lab.directory, tmp_path / "out")
    lab.prune()
    size = verify(lab.directory, keys=lab.folder / "keys").tree_size
    for index in (0, 3, lab.starts[2] - 1, lab.starts[2], size - 1):
        inclusion = prove_inclusion(lab.directory, index)
        if index < len(lab.all_lines):
            from vram_residency.audit.format.tree import leaf_hash

            assert inclusion.leaf_hash == leaf_hash(lab.all_lines[index])
    prove_consistency(lab.directory, 2, lab.starts[1]).verify()
    prove_consistency(lab.directory, 0).verify()
    published = publish(lab.directory, tmp_path / "out")
    assert (published.old_size, published.size) == (len(lab.all_lines), size)
    assert publish(lab.directory, tmp_path / "new").size == size


def test_archived_segments_are_pruned_too(lab: Lab) -> None:
    made = archive_log(lab.directory, archive_after_s=DAY_S, options=LogOptions(clock=lab.clock))
    assert len(made) >= 3
    torn = lab.directory / "entries" / f"{0:020}.jsonl.torn"
    torn.write_bytes(b"what a crash left of a line")
    torn.chmod(0o600)
    assert lab.prune().next_index == lab.starts[2]
    assert lab.first_indexes()[0] == lab.starts[2]
    assert lab.verdict() == "pruned"
    assert lab.verdict(mac_key=lab.k0) == "pruned"


@pytest.mark.parametrize("lost", ["frontier", "all but what is gone"])
def test_a_pruned_log_opens_without_what_is_derived(lab: Lab, lost: str) -> None:
    lab.prune()
    for path in (lab.directory / "tree").iterdir():
        is_needed = path.suffix == ".leaves" and int(path.stem) < lab.starts[2]
        if path.name == "frontier" or (lost != "frontier" and not is_needed):
            path.unlink()
    lab.write_day(7)
    lab.require("pruned")


def test_a_pruned_log_opens_after_its_writer_was_killed(lab: Lab) -> None:
    lab.prune()
    logger = open_log(lab.folder, clock=lab.clock)
    logger.emit(sealed(80))
    abandon(logger)
    lab.write_day(8)
    lab.require("pruned")
    assert any(b'"shard-80"' in line for line in lab.lines())


def test_a_log_without_its_first_segments_and_without_a_record_does_not_open(lab: Lab) -> None:
    _remove_first(lab)
    with pytest.raises(LogDamagedError, match=r"entries 0 to \d+ are missing"):
        open_log(lab.folder, clock=lab.clock)


def test_a_pruned_log_that_lost_more_does_not_open(lab: Lab) -> None:
    lab.prune()
    (lab.directory / "entries" / f"{lab.starts[2]:020}.jsonl").unlink()
    with pytest.raises(LogDamagedError, match="are missing"):
        open_log(lab.folder, clock=lab.clock)


@pytest.mark.parametrize("damage", ["gone", "changed"])
def test_a_pruned_log_without_its_leaf_hashes_does_not_open_once_it_needs_them(lab: Lab, damage: str) -> None:
    lab.prune()
    (lab.directory / "tree" / "frontier").unlink()
    path = lab.directory / "tree" / f"{0:020}.leaves"
    if damage == "gone":
        path.unlink()
    else:
        path.write_bytes(bytes(len(path.read_bytes())))
    with pytest.raises(LogDamagedError, match=r"leaf hashes|are not those of"):
        open_log(lab.folder, clock=lab.clock)


def test_an_anchor_from_before_what_is_gone_is_still_asked(lab: Lab) -> None:
    lab.prune()
    open_log(lab.folder, clock=lab.clock, anchor=signed_at(lab, 3)).close()
    lab.all_lines = [b"{}", *lab.all_lines[1:]]
    with pytest.raises(LogDamagedError, match="anchor"):
        open_log(lab.folder, clock=lab.clock, anchor=signed_at(lab, 3))


# --- crashes --------------------------------------------------------------------------------------------


def abandon_all() -> None:
    for logger in tuple(log_module._open_logs):
        abandon(logger)


def test_no_stop_in_a_pruning_leaves_a_log_that_does_not_verify_or_open(
    template: Lab, tmp_path: Path
) -> None:
    """It stops before each system call in turn; what is left verifies, opens, and is pruned again."""
    words = set()
    for stop_at in range(1, 300):
        lab = Lab.copy(template, tmp_path / str(stop_at))

        def on_call(_name: str, number: int, stop_at: int = stop_at) -> None:
            if number >= stop_at:
                raise PowerCutError

        files = FaultyFiles(on_call)
        try:
            lab.prune(options=LogOptions(clock=lab.clock, files=files))
        except PowerCutError:
            abandon_all()
        else:
            break
        word = lab.verdict(mac_key=lab.k0)
        assert word in {"intact", "pruned"}, (stop_at, files.calls[-1])
        assert lab.verdict(vkey=lab.vkey, checkpoint=lab.checkpoint) == word
        words.add((word, len(lab.first_indexes())))
        assert lab.prune().next_index == lab.starts[2]
        assert lab.first_indexes()[0] == lab.starts[2]
        assert lab.verdict(mac_key=lab.k0, vkey=lab.vkey, checkpoint=lab.checkpoint) == "pruned"
        check(lab.directory, k0=lab.k0, vkey=lab.vkey)
        records = [line for line in lab.lines() if b"segments_pruned" in line]
        assert len(records) == 1, "it is recorded once"
    else:
        raise AssertionError("it never ended")
    # Nothing gone, one of two gone, both gone.
    assert {word for word, _ in words} == {"intact", "pruned"}
    assert stop_at > 30


@pytest.mark.parametrize("name", ["create", "write", "sync_data", "replace", "sync_directory", "remove"])
def test_a_disk_that_fails_in_a_pruning_leaves_a_log_that_can_be_pruned_again(lab: Lab, name: str) -> None:
    files = FaultyFiles()
    is_pruning = [False]
    failures = [0]

    def on_call(called: str, _number: int) -> None:
        if called == name and failures[0] < 1 and is_pruning[0]:
            failures[0] += 1
            raise OSError(errno.EIO, "Input/output error")

    logger = open_log(lab.folder, clock=lab.clock, files=files)
    files.on_call, is_pruning[0] = on_call, True
    try:
        lab.prune(log=logger, options=LogOptions(clock=lab.clock, files=files))
    except AuditWriteError:
        assert lab.verdict(mac_key=lab.k0) in {"intact", "pruned"}
        lab.prune(log=logger, options=LogOptions(clock=lab.clock, files=files))
    logger.close()
    assert failures == [1]
    assert lab.first_indexes()[0] == lab.starts[2]
    lab.require("pruned")


# --- log keys -------------------------------------------------------------------------------------------


def test_a_change_of_keys_that_was_pruned_leaves_the_newer_key_to_trust(tmp_path: Path) -> None:
    folder = tmp_path / "lab"
    clock = ManualClock()
    with open_log(folder, clock=clock) as logger:
        old = json.loads((folder / "log" / "log.json").read_bytes())["vkeys"][0]
        logger.rotate_key()
    clock.advance(DAY_S)
    lab = Lab(folder, clock)
    assert lab.prune().first_index == 0
    new = json.loads((folder / "log" / "log.json").read_bytes())["vkeys"][-1]
    assert new != old
    assert lab.verdict() == "pruned"
    assert lab.verdict(vkey=new) == "pruned"
    assert lab.verdict(mac_key=lab.k0) == "pruned"
    assert "a newer vkey is needed" in lab.verdict(vkey=old)
    lab.write_day(9)
    assert lab.verdict(vkey=new, mac_key=lab.k0) == "pruned"
