"""Rolled back, copied and restored logs and keys: each is refused, and nothing is written.

A witness as ``anchor=`` is asked before anything is signed.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.audit_logs import (
    SERVICE,
    abandon,
    copy_tree,
    event_types,
    make_log,
    open_log,
    read_entries,
    reference_check,
    sealed,
)
from tests.witness_server import Witness, serving

from vram_residency.audit import WitnessAnchor, create_log, verify
from vram_residency.audit.log import AuditLogger
from vram_residency.audit.store import machine
from vram_residency.core.errors import (
    ConfigurationError,
    InvalidInputError,
    LogDamagedError,
    VramError,
    WitnessError,
)


def _write(folder: Path, count: int = 1, *, anchor: WitnessAnchor | None = None) -> None:
    with open_log(folder, anchor=anchor) as logger:
        for number in range(count):
            logger.emit(sealed(number))


def _state(folder: Path) -> dict[str, bytes]:
    """Every byte of log and keys, cosignatures and the lock's text aside."""
    files = (path for path in sorted(folder.rglob("*")) if path.is_file())
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in files
        if path.name != "lock" and path.parent.name != "cosignatures"
    }


@pytest.fixture
def witness(tmp_path: Path) -> Iterator[Witness]:
    """A witness that knows the log in ``tmp_path / 'own'``."""
    with serving(Witness(make_log(tmp_path / "own").vkey)) as running:
        yield running


def _anchor(witness: Witness, **options: float) -> WitnessAnchor:
    return WitnessAnchor(witness.url, witness.vkey, **options)


# --- a witness as anchor ----------------------------------------------------------------------------------


def test_a_log_that_its_witness_knows_is_opened_and_cosigned_first(tmp_path: Path, witness: Witness) -> None:
    folder = tmp_path / "own"
    for _ in range(3):
        _write(folder, 2, anchor=_anchor(witness))
    sizes = [witness.seen[origin][0] for origin in witness.seen]
    assert 0 < sizes[0] < len(read_entries(folder))
    assert list((folder / "log" / "cosignatures").glob("*.note"))
    reference_check(folder)


def test_a_backup_of_log_and_keys_is_refused_where_the_witness_saw_more(
    tmp_path: Path, witness: Witness
) -> None:
    """Everything on the machine rolled back together: nothing there can tell."""
    folder = tmp_path / "own"
    _write(folder, 2, anchor=_anchor(witness))
    backup = copy_tree(folder, tmp_path / "backup")
    for _ in range(2):
        _write(folder, 2, anchor=_anchor(witness))
    shutil.rmtree(folder)
    copy_tree(backup, folder)
    before = _state(folder)
    with pytest.raises(LogDamagedError, match="has seen 10 entries, the log has 5: rolled back"):
        open_log(folder, anchor=_anchor(witness))
    assert _state(folder) == before


def test_a_copy_on_the_same_machine_is_refused_once_the_witness_saw_the_other(
    tmp_path: Path, witness: Witness
) -> None:
    folder = tmp_path / "own"
    _write(folder, anchor=_anchor(witness))
    twin = copy_tree(folder, tmp_path / "twin")
    for _ in range(2):
        _write(folder, 1, anchor=_anchor(witness))
    _write(twin, 9)  # nobody asked the witness yet
    before = _state(twin)
    with pytest.raises(LogDamagedError, match="a fork"):
        open_log(twin, anchor=_anchor(witness))
    assert _state(twin) == before


def test_a_witness_that_is_away_keeps_the_log_closed(tmp_path: Path, witness: Witness) -> None:
    folder = tmp_path / "own"
    before = _state(folder)
    away = WitnessAnchor("http://127.0.0.1:9/w1", witness.vkey, timeout_s=1.0)
    with pytest.raises(WitnessError, match=r"127\.0\.0\.1:9"):
        open_log(folder, anchor=away)
    assert _state(folder) == before
    _write(folder)  # the lock was given back, and who decides to do without opens without


def test_a_witness_with_another_key_keeps_the_log_closed(tmp_path: Path, witness: Witness) -> None:
    other = Witness().vkey
    with pytest.raises(WitnessError, match="none of the keys given signed"):
        open_log(tmp_path / "own", anchor=WitnessAnchor(witness.url, other))


@pytest.mark.parametrize("vkey", ["", "witness+00000000+AAAA", "low-order"])
def test_a_malformed_witness_key_is_refused(tmp_path: Path, witness: Witness, vkey: str) -> None:
    if vkey == "low-order":
        witness.public_key = (1).to_bytes(32, "little")
        vkey = witness.vkey
    with pytest.raises(InvalidInputError, match="witness_vkey"):
        open_log(tmp_path / "own", anchor=WitnessAnchor(witness.url, vkey))


def test_a_killed_writers_log_opens_with_its_witness(tmp_path: Path, witness: Witness) -> None:
    folder = tmp_path / "own"
    logger = open_log(folder, anchor=_anchor(witness))
    logger.emit(sealed(), durable=True)
    abandon(logger)
    _write(folder, anchor=_anchor(witness))
    reference_check(folder)


def test_a_witness_follows_a_log_through_a_change_of_its_key(tmp_path: Path, witness: Witness) -> None:
    """The checkpoint over the change bears the old signature too, so it passes before the witness is told."""
    folder = tmp_path / "own"
    with open_log(folder, anchor=_anchor(witness)) as logger:
        new = logger.rotate_key()
        abandon(logger)
        opened = open_log(folder, anchor=_anchor(witness))
        abandon(opened)
    _write(folder)
    with pytest.raises(WitnessError, match="403"):
        open_log(folder, anchor=_anchor(witness))
    witness.log_vkeys[new.partition("+")[0]] = new
    _write(folder, anchor=_anchor(witness))
    reference_check(folder)


# --- without anybody outside ------------------------------------------------------------------------------


@pytest.mark.parametrize("what", ["log", "keys"])
def test_log_or_keys_from_a_backup_are_refused(tmp_path: Path, what: str) -> None:
    _write(tmp_path, 2)
    backup = copy_tree(tmp_path / what, tmp_path / "backup")
    # Twice: mac.key one epoch behind a final epoch_closed is what a crash leaves, and is ratcheted.
    _write(tmp_path)
    _write(tmp_path)
    shutil.rmtree(tmp_path / what)
    copy_tree(backup, tmp_path / what)
    before = _state(tmp_path)
    with pytest.raises(LogDamagedError):
        open_log(tmp_path)
    assert _state(tmp_path) == before


def test_keys_of_another_log_are_refused(tmp_path: Path) -> None:
    for name in ("one", "two"):
        _write(tmp_path / name)
    with pytest.raises(ConfigurationError, match=r"is not the key that log\.json names"):
        AuditLogger.open(tmp_path / "one" / "log", service_id=SERVICE, keys=tmp_path / "two" / "keys")


# --- another machine --------------------------------------------------------------------------------------


@pytest.fixture
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A log of 4 entries and its keys, copied to a machine of another name."""
    monkeypatch.setattr(machine, "host_id", lambda: "0123456789abcdef")
    _write(tmp_path / "there")
    copy = copy_tree(tmp_path / "there", tmp_path / "here")
    monkeypatch.setattr(machine, "host_id", lambda: "fedcba9876543210")
    return copy


def test_a_copy_on_another_machine_is_refused_and_the_hint_names_the_way(elsewhere: Path) -> None:
    before = _state(elsewhere)
    with pytest.raises(ConfigurationError, match="written on another machine") as caught:
        open_log(elsewhere)
    assert f"vram audit init NEW --fork {elsewhere / 'log'}" in caught.value.hint
    assert _state(elsewhere) == before


def test_a_fork_has_an_origin_of_its_own_and_records_its_parent(elsewhere: Path, tmp_path: Path) -> None:
    before = _state(elsewhere)
    fork = tmp_path / "fork"
    new = create_log(
        fork / "log",
        service_id=SERVICE,
        keys=fork / "keys",
        keep_genesis=True,
        fork=elsewhere / "log",
    )
    assert _state(elsewhere) == before
    config = json.loads((fork / "log" / "log.json").read_bytes())
    old = json.loads((elsewhere / "log" / "log.json").read_bytes())
    found = verify(elsewhere / "log", keys=elsewhere / "keys")
    assert config["parent"] == {
        "origin": old["origin"],
        "tree_size": found.tree_size,
        "root_hash": found.root_hash,
    }
    assert new.origin not in {"", old["origin"]}
    assert config["mac_genesis_id"] != old["mac_genesis_id"]
    _write(fork, 2)
    assert verify(fork / "log", vkey=new.vkey).verdict == "intact"
    assert event_types(fork)[0] == "log_opened"
    reference_check(fork)


@pytest.mark.parametrize("field", ["origin", "tree_size", "root_hash"])
def test_a_changed_parent_is_tampered(elsewhere: Path, tmp_path: Path, field: str) -> None:
    """log.json is what the entry log_opened states, and so part of the tree."""
    fork = tmp_path / "fork"
    new = create_log(fork / "log", service_id=SERVICE, keys=fork / "keys", fork=elsewhere / "log")
    _write(fork)
    path = fork / "log" / "log.json"
    config = json.loads(path.read_bytes())
    config["parent"][field] = {"origin": "s/" + "0" * 32, "tree_size": 1, "root_hash": "0" * 64}[field]
    path.write_text(json.dumps(config, separators=(",", ":")) + "\n")
    assert verify(fork / "log", vkey=new.vkey).verdict == "tampered"


def test_a_damaged_log_is_not_gone_on_from(elsewhere: Path, tmp_path: Path) -> None:
    segment = next((elsewhere / "log" / "entries").glob("*.jsonl"))
    segment.write_bytes(segment.read_bytes().replace(b"shard-0", b"shard-1"))
    with pytest.raises(LogDamagedError):
        create_log(tmp_path / "fork", service_id=SERVICE, keys=tmp_path / "k", fork=elsewhere / "log")
    assert not (tmp_path / "fork").exists()


def test_what_is_no_log_is_not_gone_on_from(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "nowhere"):
        with pytest.raises(VramError, match="not an audit log"):
            create_log(tmp_path / "fork", service_id=SERVICE, keys=tmp_path / "k", fork=path)
