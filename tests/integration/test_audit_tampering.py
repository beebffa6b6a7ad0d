"""Whatever is done to a log's bytes is caught, with the right verdict at the right place."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.independent_log import SEGMENT, LogMaker, make_log

from vram_residency.audit import AuditLogger, SealVerified, VramSealed, create_log, verify
from vram_residency.core.errors import ConfigurationError, InvalidInputError, MissingKeyError

pytestmark = pytest.mark.filterwarnings("ignore::vram_residency.audit.KeyPlacementWarning")


class Product:
    """A log that the product wrote: opened, seven events, closed."""

    def __init__(self, folder: Path) -> None:
        self.directory = folder / "log"
        new = create_log(self.directory, service_id="w-0", keep_genesis=True)
        self.old_checkpoint = (self.directory / "checkpoint").read_bytes()
        with AuditLogger.open(self.directory, service_id="w-0") as logger:
            for number in range(4):
                logger.emit(
                    VramSealed(
                        shard_id=f"s-{number}",
                        gpu_device=0,
                        vram_bytes=1,
                        digest="d",
                        worker_id="w",
                        model_ref="\n",
                    )
                )
            logger.emit(SealVerified(shard_id="s-0", worker_id="w"))
        self.vkey = new.vkey
        self.k0 = bytes.fromhex(new.mac_genesis_key)
        self.segment = self.directory / "entries" / SEGMENT
        self.lines = self.segment.read_bytes().split(b"\n")[:-1]
        self.checkpoint = (self.directory / "checkpoint").read_bytes()

    def keys(self, trusted: str) -> dict[str, Any]:
        return {"local": {}, "vkey": {"vkey": self.vkey}, "k0": {"mac_key": self.k0}}[trusted]

    def write(self, lines: list[bytes], end: bytes = b"") -> None:
        self.segment.write_bytes(b"".join(line + b"\n" for line in lines) + end)


@pytest.fixture
def log(tmp_path: Path) -> Product:
    return Product(tmp_path)


#: Another digit, another case, no ASCII any more.
FLIPS = (0x01, 0x20, 0x80)
everybody = pytest.mark.parametrize("trusted", ["local", "vkey", "k0"])


@everybody
def test_every_single_changed_byte_of_the_entries_is_named_by_index_and_offset(
    log: Product, trusted: str
) -> None:
    data = log.segment.read_bytes()
    starts = [0]
    for line in log.lines:
        starts.append(starts[-1] + len(line) + 1)
    index = 0
    for offset in range(len(data)):
        if offset == starts[index + 1]:
            index += 1
        _overwrite(log.segment, offset, data[offset] ^ FLIPS[offset % 3])
        verdict = verify(log.directory, **log.keys(trusted))
        bad = verdict.first_bad
        assert verdict.verdict == "tampered", offset
        assert bad is not None
        assert (bad.index, bad.file, bad.offset) == (index, f"entries/{SEGMENT}", starts[index]), (
            offset,
            bad,
        )
        _overwrite(log.segment, offset, data[offset])
    assert verify(log.directory, **log.keys(trusted)).verdict == "intact"


@everybody
@pytest.mark.parametrize("name", ["log.json", "checkpoint"])
def test_every_single_changed_byte_of_the_small_files_is_caught(
    log: Product, trusted: str, name: str
) -> None:
    path = log.directory / name
    data = path.read_bytes()
    for offset, byte in enumerate(data):
        _overwrite(path, offset, byte ^ FLIPS[offset % 3])
        verdict = verify(log.directory, **log.keys(trusted))
        assert verdict.verdict == "tampered", offset
        assert verdict.first_bad is not None
        _overwrite(path, offset, byte)


@everybody
def test_derived_files_are_never_believed(log: Product, trusted: str) -> None:
    """Leaf hashes and frontier are rebuildable: garbage there neither hides nor invents a change."""
    for path in (log.directory / "tree").iterdir():
        path.write_bytes(b"\x00" * len(path.read_bytes()))
    assert verify(log.directory, **log.keys(trusted)).verdict == "intact"
    log.write([*log.lines[:2], log.lines[2].replace(b'"s-1"', b'"s-9"'), *log.lines[3:]])
    verdict = verify(log.directory, **log.keys(trusted))
    assert verdict.verdict == "tampered"
    assert verdict.first_bad is not None
    assert verdict.first_bad.index == (None if trusted == "vkey" else 2)


def _changes() -> Iterator[tuple[str, Callable[[list[bytes]], list[bytes]], int]]:
    """A name, a change of the lines, and the index at which it must be found."""
    for i in range(7):
        yield f"swap {i}", lambda lines, i=i: [*lines[:i], lines[i + 1], lines[i], *lines[i + 2 :]], i
        yield f"remove {i}", lambda lines, i=i: [*lines[:i], *lines[i + 1 :]], i
        yield f"repeat {i}", lambda lines, i=i: [*lines[: i + 1], *lines[i:]], i + 1
        yield f"blank line {i}", lambda lines, i=i: [*lines[:i], b"", *lines[i:]], i
        yield f"carriage return {i}", lambda lines, i=i: [*lines[:i], lines[i] + b"\r", *lines[i + 1 :]], i
        yield (
            f"space {i}",
            lambda lines, i=i: [*lines[:i], lines[i].replace(b",", b", ", 1), *lines[i + 1 :]],
            i,
        )
    yield "reverse", lambda lines: lines[::-1], 0
    yield "repeat all", lambda lines: lines * 2, 8
    yield "append a copy", lambda lines: [*lines, lines[-1]], 8
    yield "append garbage", lambda lines: [*lines, b"garbage"], 8
    yield "append NUL bytes", lambda lines: [*lines, b"\x00" * 512], 8
    yield "append an endless line", lambda lines: [*lines, b"x" * 200_000], 8


CHANGES = {name: (change, index) for name, change, index in _changes()}


@everybody
@pytest.mark.parametrize("name", CHANGES)
def test_lines_swapped_removed_repeated_and_added_are_caught_at_their_index(
    log: Product, trusted: str, name: str
) -> None:
    change, index = CHANGES[name]
    assert len(log.lines) == 8
    log.write(change(log.lines))
    verdict = verify(log.directory, **log.keys(trusted))
    assert verdict.verdict == "tampered"
    assert verdict.first_bad is not None
    assert verdict.first_bad.index == index
    assert verdict.exit_code == 1


@everybody
def test_a_log_cut_at_any_byte_is_truncated(log: Product, trusted: str) -> None:
    data = log.segment.read_bytes()
    for size in range(len(data) - 1, -1, -1 if trusted == "k0" else -37):
        os.truncate(log.segment, size)
        verdict = verify(log.directory, **log.keys(trusted))
        whole = data[:size].count(b"\n")
        assert (verdict.verdict, verdict.exit_code) == ("truncated", 1), size
        assert verdict.first_bad is not None
        assert (verdict.first_bad.index, verdict.entries) == (whole, whole)


@everybody
def test_an_emptied_log_is_truncated(log: Product, trusted: str) -> None:
    log.segment.unlink()
    verdict = verify(log.directory, **log.keys(trusted))
    assert (verdict.verdict, verdict.entries) == ("truncated", 0)
    (log.directory / "entries").rmdir()
    assert verify(log.directory, **log.keys(trusted)).verdict == "truncated"


@everybody
def test_a_log_without_its_checkpoint_is_truncated(log: Product, trusted: str) -> None:
    (log.directory / "checkpoint").unlink()
    verdict = verify(log.directory, **log.keys(trusted))
    assert verdict.verdict == "truncated"
    assert verdict.first_bad is not None
    assert verdict.first_bad.file == "checkpoint"


@everybody
def test_a_change_counts_more_than_a_missing_checkpoint(log: Product, trusted: str) -> None:
    """With a vkey alone nothing but the checkpoint authenticates, so there only the loss can be said."""
    (log.directory / "checkpoint").unlink()
    log.write([log.lines[0], log.lines[1].replace(b'"s-0"', b'"s-9"'), *log.lines[2:]])
    verdict = verify(log.directory, **log.keys(trusted))
    # Every own event's root hash was recomputed: epoch_closed notices even where no key can.
    assert verdict.verdict == "tampered"


@everybody
@pytest.mark.parametrize(
    "junk", [b"", b"\n", b"\xff", b"a\n1\nb\n", b"x" * 70_000, b"o\n-1\nAAAA\n\n\xe2\x80\x94 o AAAA\n"]
)
def test_a_malformed_checkpoint_is_tampering(log: Product, trusted: str, junk: bytes) -> None:
    (log.directory / "checkpoint").write_bytes(junk)
    verdict = verify(log.directory, **log.keys(trusted))
    assert verdict.verdict == "tampered"
    assert verdict.first_bad is not None
    assert verdict.first_bad.file == "checkpoint"


def test_an_older_checkpoint_put_back_leaves_entries_that_only_k0_vouches_for(log: Product) -> None:
    """The log is whole: K_0 proves it to its end, a vkey says what it cannot say."""
    (log.directory / "checkpoint").write_bytes(log.old_checkpoint)
    assert verify(log.directory, mac_key=log.k0).unvouched_entries == 0
    verdict = verify(log.directory, vkey=log.vkey)
    assert (verdict.verdict, verdict.unvouched_entries) == ("intact", 8)


@pytest.mark.parametrize("keep", range(8))
def test_a_rolled_back_log_is_caught_by_the_key_folder_or_by_a_checkpoint_kept_elsewhere(
    log: Product, keep: int
) -> None:
    (log.directory / "checkpoint").write_bytes(log.old_checkpoint)
    log.write(log.lines[:keep])
    assert verify(log.directory).verdict == "truncated"  # mac.key counts eight entries
    shutil.rmtree(log.directory.with_name("log.keys"))
    for keys in ({"vkey": log.vkey}, {"mac_key": log.k0}):
        assert verify(log.directory, **keys, checkpoint=log.checkpoint).verdict == "truncated"
    # Without either nothing can tell: this is the promise's limit (audit-log.md section 6), shown as such.
    verdict = verify(log.directory, mac_key=log.k0)
    assert (verdict.verdict, verdict.unprotected_entries) == ("intact", keep)


def test_a_fork_is_caught_by_a_checkpoint_kept_elsewhere(tmp_path: Path) -> None:
    maker = make_log(seals=3)
    fork = make_log(seals=3)
    fork.origin, fork.private, fork.ident, fork.vkey = maker.origin, maker.private, maker.ident, maker.vkey
    directory = maker.write(tmp_path / "log")
    verdict = verify(directory, vkey=maker.vkey, checkpoint=fork.checkpoint(5))
    assert verdict.verdict == "tampered"


def test_a_log_made_anew_by_somebody_else_is_tampering_for_those_who_hold_a_key(tmp_path: Path) -> None:
    ours, theirs = make_log(), make_log()
    directory = theirs.write(tmp_path / "log")
    assert verify(directory, vkey=ours.vkey).verdict == "tampered"
    assert verify(directory, mac_key=ours.k0).verdict == "tampered"
    assert verify(directory, checkpoint=ours.checkpoint()).verdict == "tampered"


def test_a_log_json_that_is_missing_or_not_ours_is_tampering(log: Product) -> None:
    path = log.directory / "log.json"
    for data in (b"", b"{}", b"null", b"[" * 100_000, b'{"format":1}', b"\xff", b"x" * 100_000):
        path.write_bytes(data)
        assert verify(log.directory).verdict == "tampered"
    path.unlink()
    assert verify(log.directory).verdict == "tampered"


@pytest.mark.parametrize(
    "wrong", [{"epoch": 1}, {"tree_size": 0}, {"tree_size": "6"}, {"root_hash": "00" * 32}, {"extra": 1}]
)
def test_numbers_of_epoch_closed_are_recomputed_even_where_the_mac_is_right(
    tmp_path: Path, wrong: dict[str, Any]
) -> None:
    maker = LogMaker()
    maker.open()
    maker.seal()
    maker.end_epoch(**wrong)
    maker.seal()
    verdict = verify(maker.write(tmp_path / "log"), mac_key=maker.k0, vkey=maker.vkey)
    assert verdict.verdict == "tampered"
    assert verdict.first_bad is not None
    assert verdict.first_bad.index == 2


@pytest.mark.parametrize(
    "field",
    [
        ("index", 7),
        ("index", True),
        ("timestamp", "2025-10-02T10:00:00Z"),
        ("timestamp", "2025-10-02T10:00:00.000000+00:00"),
        ("service_id", "somebody-else"),
        ("audit_id", "00000000-1"),
        ("event_type", 5),
    ],
)
def test_an_envelope_that_lies_is_caught_even_where_the_mac_is_right(
    tmp_path: Path, field: tuple[str, Any]
) -> None:
    import json

    maker = LogMaker()
    maker.open()
    maker.seal()
    body = json.loads(maker.lines.pop())
    del body["mac"]
    body[field[0]] = field[1]
    maker.mac = bytes.fromhex(json.loads(maker.lines[0])["mac"])
    maker.append_body(json.dumps(body, separators=(",", ":")).encode()[:-1])
    verdict = verify(maker.write(tmp_path / "log"), mac_key=maker.k0)
    assert verdict.verdict == "tampered"
    assert verdict.first_bad is not None
    assert verdict.first_bad.index == 1


def test_segment_rotated_is_recomputed(tmp_path: Path) -> None:
    import hashlib

    def rotated(**wrong: Any) -> str:
        maker = LogMaker()
        maker.open()
        maker.seal()
        maker.end_epoch()
        data = b"".join(line + b"\n" for line in maker.lines)
        numbers = {
            "closed_segment": SEGMENT,
            "sha256": hashlib.sha256(data).hexdigest(),
            "entries": 3,
        } | wrong
        maker.append("segment_rotated", **numbers)
        maker.close()
        place = tmp_path / f"log-{len(list(tmp_path.iterdir()))}"
        return verify(maker.write(place, segments=(0, 3)), mac_key=maker.k0, vkey=maker.vkey).verdict

    assert rotated() == "intact"
    assert rotated(entries=2) == "tampered"
    assert rotated(sha256="00" * 32) == "tampered"
    assert rotated(closed_segment="00000000000000000003.jsonl") == "tampered"


def test_a_missing_segment_is_truncation_wherever_it_was(tmp_path: Path) -> None:
    maker = make_log(seals=20)
    for victim in (0, 5, 12):
        directory = maker.write(tmp_path / f"log-{victim}", segments=(0, 5, 12))
        (directory / "entries" / f"{victim:020}.jsonl").unlink()
        verdict = verify(directory, vkey=maker.vkey, mac_key=maker.k0)
        assert verdict.verdict == "truncated"
        assert verdict.first_bad is not None
        assert verdict.first_bad.index == victim


# --- unsealed ---------------------------------------------------------------------------------------------


def _late(maker: LogMaker, seconds: float) -> None:
    from datetime import timedelta

    maker.now += timedelta(seconds=seconds)


@pytest.mark.parametrize("what", ["entry", "close", "opening"])
def test_what_comes_later_than_two_intervals_after_the_last_epoch_is_unsealed(
    tmp_path: Path, what: str
) -> None:
    maker = LogMaker(epoch_interval_s=100)
    maker.open()
    maker.end_epoch()
    maker.seal()
    _late(maker, 200)
    {"entry": maker.seal, "close": maker.close, "opening": maker.open}[what]()
    maker.end_epoch()
    verdict = verify(maker.write(tmp_path / "log"), mac_key=maker.k0)
    assert (verdict.verdict, verdict.exit_code) == ("unsealed", 1)
    assert verdict.first_bad is not None
    assert verdict.first_bad.index == 3
    assert verdict.first_bad.file == f"entries/{SEGMENT}"


def test_an_opening_that_admits_a_crash_excuses_the_silence_before_it(tmp_path: Path) -> None:
    maker = LogMaker(epoch_interval_s=100)
    maker.open()
    maker.seal()
    _late(maker, 10_000)
    maker.append(
        "events_dropped",
        count=1,
        critical_count=0,
        first_timestamp="2025-10-02T10:00:00.000000Z",
        last_timestamp="2025-10-02T10:00:00.000000Z",
    )
    maker.open(clean=False)
    maker.close()
    assert verify(maker.write(tmp_path / "log"), mac_key=maker.k0).verdict == "intact"


def test_tampering_counts_more_than_being_unsealed_and_that_more_than_a_missing_key(tmp_path: Path) -> None:
    maker = LogMaker(epoch_interval_s=100)
    maker.open()
    _late(maker, 201)
    maker.seal()
    directory = maker.write(tmp_path / "log")
    assert verify(directory).verdict == "unsealed"
    maker.lines[1] = maker.lines[1].replace(b"shard-0", b"shard-1")
    shutil.rmtree(directory)
    assert verify(maker.write(directory), mac_key=maker.k0).verdict == "tampered"


# --- input and keys ---------------------------------------------------------------------------------------


def test_what_is_no_log_at_all_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    for path in (tmp_path, tmp_path / "missing", tmp_path / "file"):
        with pytest.raises(InvalidInputError, match=r"not a directory|not an audit log"):
            verify(path)


def test_a_malformed_argument_is_refused(log: Product) -> None:
    with pytest.raises(InvalidInputError, match="vkey"):
        verify(log.directory, vkey="nonsense")
    with pytest.raises(InvalidInputError, match="mac_key"):
        verify(log.directory, mac_key="12")
    with pytest.raises(InvalidInputError, match="checkpoint"):
        verify(log.directory, vkey=log.vkey, checkpoint=b"nonsense")
    with pytest.raises(InvalidInputError, match="checkpoint"):
        verify(log.directory, vkey=log.vkey, checkpoint=make_log().checkpoint())


@pytest.mark.parametrize("name", ["", "log.key", "mac.key", "genesis.key"])
def test_local_keys_that_others_may_read_are_refused_with_the_command_that_mends_it(
    log: Product, name: str
) -> None:
    path = log.directory.with_name("log.keys") / name
    path.chmod(0o755 if path.is_dir() else 0o644)
    with pytest.raises(ConfigurationError, match="looser") as caught:
        verify(log.directory)
    assert "chmod" in caught.value.hint
    assert str(path) in str(caught.value)
    # A key that was given does not need them.
    assert verify(log.directory, vkey=log.vkey).verdict == "intact"


def test_a_file_that_cannot_be_read_makes_the_log_unverifiable(log: Product) -> None:
    log.segment.unlink()
    os.mkfifo(log.segment)
    verdict = verify(log.directory)
    assert (verdict.verdict, verdict.exit_code) == ("unverifiable", 5)


def test_leftovers_of_a_crash_are_no_part_of_the_log(log: Product) -> None:
    (log.directory / "checkpoint.new").write_bytes(b"half")
    (log.directory / "entries" / f"{SEGMENT}.torn").write_bytes(b'{"index":9')
    (log.directory / "entries" / f"{8:020}.jsonl").touch()
    assert verify(log.directory).verdict == "intact"


def _overwrite(path: Path, offset: int, byte: int) -> None:
    with path.open("r+b") as file:
        file.seek(offset)
        file.write(bytes([byte]))


def test_a_key_folder_that_is_missing_or_empty_is_an_error_of_its_own(log: Product, tmp_path: Path) -> None:
    """Nothing was found against the log: what is missing is a key."""
    with pytest.raises(MissingKeyError, match="no such folder"):
        verify(log.directory, keys=tmp_path / "nowhere")
    (tmp_path / "empty").mkdir(mode=0o700)
    with pytest.raises(MissingKeyError, match="neither"):
        verify(log.directory, keys=tmp_path / "empty")
