"""The directory and the keys: what is made, with which modes, and what is refused."""

from __future__ import annotations

import json
import os
import stat
from pathlib import Path

import pytest
from tests.audit_logs import SERVICE, make_log, open_log, reference_check

from vram_residency.audit import verify
from vram_residency.audit.format import chain, note
from vram_residency.audit.store.directory import Directory, LogConfig, LogConfigError, WriterLock
from vram_residency.audit.store.keyring import SLOT_BYTES, Keyring, MacState, read_genesis_key
from vram_residency.audit.writing.creation import create_log
from vram_residency.core.errors import ConfigurationError, LogDamagedError, LogLockedError


def _mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_init_makes_a_log_without_an_entry_and_a_signed_empty_checkpoint(tmp_path: Path) -> None:
    new = make_log(tmp_path)
    config = json.loads((tmp_path / "log" / "log.json").read_bytes())
    assert list(config) == [
        "format",
        "origin",
        "service_id",
        "created_at",
        "epoch_interval_s",
        "mac_genesis_id",
        "vkeys",
    ]
    assert config["origin"] == new.origin
    assert config["epoch_interval_s"] == 900
    assert config["vkeys"] == [new.vkey]
    assert config["mac_genesis_id"] == chain.genesis_id(bytes.fromhex(new.mac_genesis_key))
    assert list((tmp_path / "log" / "entries").iterdir()) == []
    assert reference_check(tmp_path) == []
    checkpoint = (tmp_path / "log" / "checkpoint").read_bytes()
    text = note.verify(checkpoint, [note.VerifierKey.parse(new.vkey)])
    assert text == f"{new.origin}\n0\n47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=\n"


def test_the_genesis_key_is_kept_only_where_asked(tmp_path: Path) -> None:
    new = create_log(tmp_path / "log", service_id=SERVICE, keys=tmp_path / "keys")
    assert sorted(path.name for path in (tmp_path / "keys").iterdir()) == [
        "log.key",
        "mac.key",
        "pseudonym.key",
    ]
    assert len(bytes.fromhex(new.mac_genesis_key)) == 32
    assert new.mac_genesis_key not in repr(new)
    other = create_log(tmp_path / "b", service_id=SERVICE, keys=tmp_path / "k", keep_genesis=True)
    assert (tmp_path / "k" / "genesis.key").read_text() == other.mac_genesis_key + "\n"


@pytest.mark.parametrize("umask", [0o000, 0o022, 0o077])
def test_directories_are_0700_and_files_0600_whatever_the_umask(tmp_path: Path, umask: int) -> None:
    before = os.umask(umask)
    try:
        with open_log(tmp_path) as logger:
            logger.flush()
    finally:
        os.umask(before)
    for root in ("log", "keys"):
        for path in (tmp_path / root, *(tmp_path / root).rglob("*")):
            assert _mode(path) == (0o700 if path.is_dir() else 0o600), path


@pytest.mark.parametrize(
    "name",
    [
        "log",
        "log/log.json",
        "log/checkpoint",
        "log/lock",
        "log/entries",
        "log/entries/00000000000000000000.jsonl",
        "log/tree",
        "log/tree/frontier",
        "keys",
        "keys/log.key",
        "keys/mac.key",
        "keys/pseudonym.key",
    ],
)
def test_a_looser_mode_is_refused_with_the_command_that_mends_it(tmp_path: Path, name: str) -> None:
    open_log(tmp_path).close()
    path = tmp_path / name
    right = _mode(path)
    path.chmod(right | 0o040)
    with pytest.raises(ConfigurationError, match="is looser than") as caught:
        open_log(tmp_path)
    assert str(path) in str(caught.value)
    assert caught.value.hint == f"Run `chmod {right:o} {path}`."
    path.chmod(right)
    open_log(tmp_path).close()


def test_a_closed_segment_may_be_read_only(tmp_path: Path) -> None:
    open_log(tmp_path).close()
    Directory(tmp_path / "log").log_json.chmod(0o400)
    open_log(tmp_path).close()


def test_init_never_writes_over_anything(tmp_path: Path) -> None:
    make_log(tmp_path)
    with pytest.raises(ConfigurationError, match="a log here already"):
        make_log(tmp_path)
    with pytest.raises(ConfigurationError, match="never written over"):
        create_log(tmp_path / "other", service_id=SERVICE, keys=tmp_path / "keys")
    used = tmp_path / "used"
    used.mkdir(mode=0o700)
    (used / "file").write_text("x")
    with pytest.raises(ConfigurationError, match="not empty"):
        create_log(used, service_id=SERVICE, keys=tmp_path / "k")
    with pytest.raises(ConfigurationError, match="not a directory"):
        create_log(used / "file", service_id=SERVICE, keys=tmp_path / "k")
    assert not (tmp_path / "k").exists()


def test_keys_inside_the_directory_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="own directory"):
        create_log(tmp_path / "log", service_id=SERVICE, keys=tmp_path / "log" / "keys")
    assert not (tmp_path / "log").exists()


def test_missing_wrong_and_foreign_keys_are_named(tmp_path: Path) -> None:
    make_log(tmp_path)
    log_key = tmp_path / "keys" / "log.key"
    good = log_key.read_text()
    make_log(tmp_path / "foreign")
    log_key.write_text((tmp_path / "foreign" / "keys" / "log.key").read_text())
    with pytest.raises(ConfigurationError, match=r"is not the key that log\.json names"):
        open_log(tmp_path)
    log_key.write_text(good[:-5])
    with pytest.raises(ConfigurationError, match="is not a log key") as caught:
        open_log(tmp_path)
    assert good[-20:-5] not in str(caught.value)
    log_key.unlink()
    with pytest.raises(ConfigurationError, match=r"log\.key"):
        open_log(tmp_path)
    log_key.write_text(good)
    log_key.chmod(0o600)
    (tmp_path / "keys" / "mac.key").unlink()
    with pytest.raises(ConfigurationError, match=r"mac\.key"):
        open_log(tmp_path)
    (tmp_path / "keys").rename(tmp_path / "gone")
    with pytest.raises(ConfigurationError, match="no such folder of keys"):
        open_log(tmp_path)


GOOD = {
    "format": "vram-residency/audit/v1",
    "origin": "s/" + "0" * 32,
    "service_id": "s",
    "created_at": "2025-10-02T10:00:00.000000Z",
    "epoch_interval_s": 900,
    "mac_genesis_id": "0" * 16,
    "vkeys": [str(note.SignerKey.generate("s/" + "0" * 32).verifier)],
}


def test_a_log_json_prints_as_it_was_parsed() -> None:
    data = json.dumps(GOOD, separators=(",", ":")).encode() + b"\n"
    assert LogConfig.parse(data).encode() == data


@pytest.mark.parametrize(
    "change",
    [
        {"format": "vram-residency/audit/v2"},
        {"origin": "t/" + "0" * 32},
        {"origin": "s/" + "0" * 31},
        {"service_id": "s s"},
        {"created_at": "yesterday"},
        {"created_at": "2025-10-02T10:00:00"},
        {"epoch_interval_s": 0},
        {"epoch_interval_s": "900"},
        {"mac_genesis_id": "0"},
        {"vkeys": []},
        {"vkeys": ["junk"]},
        {"vkeys": [str(note.SignerKey.generate("other").verifier)]},
        {"unknown": 1},
        {"format": None},
    ],
)
def test_a_log_json_that_breaks_a_rule_is_refused(tmp_path: Path, change: dict[str, object]) -> None:
    data = json.dumps(GOOD | change).encode()
    with pytest.raises(LogConfigError, match=r"."):
        LogConfig.parse(data)
    make_log(tmp_path)
    (tmp_path / "log" / "log.json").write_bytes(data)
    with pytest.raises(LogDamagedError, match=r"log\.json"):
        open_log(tmp_path)


@pytest.mark.parametrize("data", [b"", b"[]", b"{", b"\xff", b"[" * 100_000, b"x" * 70_000])
def test_bytes_that_are_no_log_json_are_refused(tmp_path: Path, data: bytes) -> None:
    make_log(tmp_path)
    (tmp_path / "log" / "log.json").write_bytes(data)
    with pytest.raises(LogDamagedError, match=r"log\.json"):
        open_log(tmp_path)


def test_a_lock_file_that_is_replaced_while_it_is_taken_is_noticed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    directory = Directory(tmp_path)
    real_take = WriterLock._take

    def take_then_replace(self: WriterLock, place: Directory) -> None:
        real_take(self, place)
        place.lock.unlink()
        place.lock.touch()

    monkeypatch.setattr(WriterLock, "_take", take_then_replace)
    with pytest.raises(LogLockedError, match="replaced the file"):
        WriterLock(directory, holder="me")


def test_a_holders_name_cannot_carry_control_characters(tmp_path: Path) -> None:
    directory = Directory(tmp_path)
    lock = WriterLock(directory, holder="pid 1\x1b[31m")
    with pytest.raises(LogLockedError) as caught:
        WriterLock(directory, holder="me")
    assert "\x1b" not in str(caught.value)
    lock.close()
    lock.close()
    WriterLock(directory, holder="me").close()


def test_a_slot_reads_back_and_any_changed_byte_voids_it() -> None:
    state = MacState(epoch=3, key=bytes(range(32)), tree_size=41, last_mac=bytes(32), host_id="h")
    slot = state.encode()
    assert len(slot) == SLOT_BYTES
    assert MacState.parse(slot) == state
    assert state.key.hex() not in repr(state)
    for offset in range(SLOT_BYTES):
        changed = bytearray(slot)
        changed[offset] ^= 1
        assert MacState.parse(bytes(changed)) is None


def test_a_destroyed_pseudonym_key_does_not_stop_the_log(tmp_path: Path) -> None:
    make_log(tmp_path)
    (tmp_path / "keys" / "pseudonym.key").unlink()
    open_log(tmp_path).close()
    keyring = Keyring(tmp_path / "keys")
    assert keyring.read_pseudonym_key() != keyring.read_pseudonym_key()


def test_a_kept_genesis_key_has_one_form(tmp_path: Path) -> None:
    make_log(tmp_path)
    path = tmp_path / "keys" / "genesis.key"
    found = read_genesis_key(tmp_path / "keys")
    assert found is not None
    path.write_text(found.hex().upper())
    with pytest.raises(ConfigurationError, match="is not a key of 64 lower-case hex digits"):
        verify(tmp_path / "log", keys=tmp_path / "keys")
    path.unlink()
    assert read_genesis_key(tmp_path / "keys") is None
    assert verify(tmp_path / "log", keys=tmp_path / "keys").verdict == "intact"


def test_directories_above_a_new_log_are_private_whatever_the_umask(tmp_path: Path) -> None:
    """Whoever may write above a log may replace it."""
    before = os.umask(0)
    try:
        create_log(tmp_path / "deep" / "er" / "log", service_id="svc", keys=tmp_path / "far" / "keys")
    finally:
        os.umask(before)
    for made in ("deep", "deep/er", "deep/er/log", "far", "far/keys"):
        assert stat.S_IMODE((tmp_path / made).stat().st_mode) == 0o700
