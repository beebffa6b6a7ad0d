"""Log keys follow each other: signed by the old one, and nobody loses the thread."""

from __future__ import annotations

import base64
import contextlib
import json
from pathlib import Path
from typing import Any

import pytest
from tests.audit_logs import (
    FaultyFiles,
    ManualClock,
    PowerCutError,
    abandon,
    copy_tree,
    make_log,
    open_log,
    read_entries,
    reference_check,
    sealed,
)
from tests.independent_log import check

from vram_residency.audit.format import note
from vram_residency.audit.format.key_change import KeyChange
from vram_residency.audit.reading import survey
from vram_residency.audit.reading.verdict import Verdict
from vram_residency.audit.reading.verification import verify
from vram_residency.core import ed25519
from vram_residency.core.errors import AuditWriteError, ConfigurationError, InvalidInputError


def _rotated(folder: Path, times: int = 1) -> list[str]:
    """A closed log whose key was rotated so often; its vkeys in order of use."""
    vkeys = [make_log(folder).vkey]
    with open_log(folder) as logger:
        for number in range(times):
            logger.emit(sealed(number))
            vkeys.append(logger.rotate_key())
        logger.emit(sealed(times))
    return vkeys


def _verify(folder: Path, **trust: Any) -> Verdict:
    """Without this machine's keys, unless they are what is trusted."""
    return verify(folder / "log", **(trust or {"keys": folder / "keys"}))


def _genesis_key(folder: Path) -> str:
    return (folder / "keys" / "genesis.key").read_text().strip()


def _signers(folder: Path) -> list[str]:
    _, signatures = note.split((folder / "log" / "checkpoint").read_bytes())
    return [signature.key_id.hex() for signature in signatures]


def _id(vkey: str) -> str:
    return note.VerifierKey.parse(vkey).id.hex()


def test_after_a_rotation_both_keys_lead_to_the_same_verdict(tmp_path: Path) -> None:
    vkeys = _rotated(tmp_path, 3)
    for vkey in vkeys:
        found = _verify(tmp_path, vkey=vkey)
        assert (found.verdict, found.unvouched_entries) == ("intact", 0)
    assert _verify(tmp_path).verdict == "intact"
    assert _verify(tmp_path, mac_key=_genesis_key(tmp_path)).verdict == "intact"
    assert json.loads((tmp_path / "log" / "log.json").read_bytes())["vkeys"] == vkeys
    reference_check(tmp_path)


def test_a_second_implementation_follows_the_keys(tmp_path: Path) -> None:
    vkeys = _rotated(tmp_path, 3)
    k0 = bytes.fromhex(_genesis_key(tmp_path))
    assert len(check(tmp_path / "log", k0=k0, vkey=vkeys[0])) == len(read_entries(tmp_path))
    open_log(tmp_path).close()
    check(tmp_path / "log", k0=k0, vkey=vkeys[0])


def test_audit_ids_change_with_the_key_right_after_the_entry(tmp_path: Path) -> None:
    old, new = _rotated(tmp_path)
    entries = read_entries(tmp_path)
    change = next(entry["index"] for entry in entries if entry["event_type"] == "key_rotated")
    for entry in entries:
        expected = old if entry["index"] <= change else new
        assert entry["audit_id"] == f"{_id(expected)}-{entry['index']}"


def test_the_checkpoint_over_the_entry_is_signed_by_both_keys_and_later_ones_by_the_new(
    tmp_path: Path,
) -> None:
    old = make_log(tmp_path).vkey
    with open_log(tmp_path) as logger:
        new = logger.rotate_key()
        assert _signers(tmp_path) == [_id(old), _id(new)]
        assert [entry["event_type"] for entry in read_entries(tmp_path)] == ["log_opened", "key_rotated"]
        logger.emit(sealed())
    assert _signers(tmp_path) == [_id(new)]


def test_the_signature_by_the_old_key_is_a_signed_note_that_stock_tools_open(tmp_path: Path) -> None:
    old, new = _rotated(tmp_path)
    entry = next(each for each in read_entries(tmp_path) if each["event_type"] == "key_rotated")
    origin = old.partition("+")[0]
    text = f"vram-residency/audit/v1/key-rotated\n{origin}\n{entry['index']}\n{old}\n{new}\n"
    signed = f"{text}\n\u2014 {origin} {entry['signature_by_old']}\n".encode()
    assert note.verify(signed, [note.VerifierKey.parse(old)]) == text


def test_the_old_private_key_is_gone_after_a_rotation(tmp_path: Path) -> None:
    make_log(tmp_path)
    path = tmp_path / "keys" / "log.key"
    before = path.read_text()
    with path.open("rb") as still_open, open_log(tmp_path) as logger:
        logger.rotate_key()
        assert still_open.read() == bytes(len(before))
    assert path.read_text() != before
    assert not list((tmp_path / "keys").glob("log.key?*"))
    assert path.stat().st_mode & 0o777 == 0o600


def test_a_checkpoint_that_the_old_key_signed_still_proves_what_it_covers(tmp_path: Path) -> None:
    make_log(tmp_path)
    with open_log(tmp_path) as logger:
        logger.emit(sealed())
        kept = logger.flush()
        assert kept is not None
        new = logger.rotate_key()
    found = _verify(tmp_path, vkey=new, checkpoint=kept)
    assert (found.verdict, found.unprotected_entries) == ("intact", found.entries - kept.size)
    with open_log(tmp_path, anchor=kept) as logger:
        logger.emit(sealed())


def test_a_checkpoint_by_a_retired_key_is_refused(tmp_path: Path) -> None:
    """Whoever stole the old key must not be able to vouch for anything that came later."""
    make_log(tmp_path)
    stolen = note.SignerKey.parse((tmp_path / "keys" / "log.key").read_text().strip())
    with open_log(tmp_path) as logger:
        logger.rotate_key()
        logger.emit(sealed())
    path = tmp_path / "log" / "checkpoint"
    text, _ = note.split(path.read_bytes())
    forged = note.sign(text, stolen)
    with pytest.raises(InvalidInputError, match="not the log's at that size"):
        _verify(tmp_path, vkey=str(stolen.verifier), checkpoint=forged)
    path.write_bytes(forged)
    for trust in ({"vkey": str(stolen.verifier)}, {"mac_key": _genesis_key(tmp_path)}, {}):
        found = _verify(tmp_path, **trust)
        assert found.verdict == "tampered"
        assert found.first_bad is not None
        assert "signed" in found.first_bad.reason


def test_a_log_that_only_the_old_key_vouches_for_is_not_intact_by_the_new_one(tmp_path: Path) -> None:
    """Whoever stole the old key can write a key_rotated to any key, whose owner never signed anything."""
    make_log(tmp_path)
    thief = open_log(tmp_path)
    victim = note.SignerKey.generate(thief.flush().origin).verifier  # type: ignore[union-attr]
    ledger = thief._writer.ledger
    draft = ledger.draft()
    at_ns = ledger.position.timestamp_us * 1000  # type: ignore[operator]
    draft.add_key_rotated(ledger._keyring.signer, victim, at_ns)
    ledger.append(draft, closes_epoch=False)
    abandon(thief)
    config = tmp_path / "log" / "log.json"
    content = json.loads(config.read_bytes())
    content["vkeys"].append(str(victim))
    config.write_text(json.dumps(content, separators=(",", ":")) + "\n")
    found = _verify(tmp_path, vkey=str(victim))
    assert found.verdict == "tampered"
    assert found.first_bad is not None
    assert "neither by the trusted key" in found.first_bad.reason


@pytest.mark.parametrize("changed", ["signature", "index", "other-signer", "garbage", "same-key"])
def test_a_rotation_that_the_old_key_did_not_sign_is_tampered(tmp_path: Path, changed: str) -> None:
    """Even where macs, tree and checkpoint are made anew by whoever holds all keys but the old one."""
    make_log(tmp_path)
    logger = open_log(tmp_path)
    ledger = logger._writer.ledger
    old = ledger._keyring.signer
    new = note.SignerKey.generate(old.verifier.name)
    index = ledger.position.size
    signature = {
        "signature": lambda: base64.b64encode(new.verifier.id + bytes(64)).decode(),
        "index": lambda: KeyChange(index + 1, old.verifier, new.verifier).sign(old),
        "other-signer": lambda: KeyChange(index, old.verifier, new.verifier).sign(new),
        "garbage": lambda: "\u2014 x\n\n",
        "same-key": lambda: KeyChange(index, old.verifier, old.verifier).sign(old),
    }[changed]()
    draft = ledger.draft()
    fields = {
        "old_vkey": str(old.verifier),
        "new_vkey": str(old.verifier if changed == "same-key" else new.verifier),
        "signature_by_old": signature,
    }
    draft.add("key_rotated", ledger.position.timestamp_us * 1000, fields)  # type: ignore[operator]
    ledger.append(draft, closes_epoch=False)
    ledger.sign(new)
    abandon(logger)
    found = _verify(tmp_path, mac_key=_genesis_key(tmp_path))
    assert found.verdict == "tampered"
    assert found.first_bad is not None
    assert found.first_bad.index == index
    assert found.first_bad.reason.startswith("key_rotated is not signed by the log's key")


@pytest.mark.parametrize("change", ["dropped", "added", "swapped", "spaced"])
def test_a_changed_list_of_keys_in_log_json_is_seen(tmp_path: Path, change: str) -> None:
    """Also where the rotation came after the last opening, which states the hash of log.json."""
    vkeys = _rotated(tmp_path, 2)
    config = tmp_path / "log" / "log.json"
    content = json.loads(config.read_bytes())
    extra = str(note.SignerKey.generate(content["origin"]).verifier)
    content["vkeys"] = {
        "dropped": vkeys[:2],
        "added": [*vkeys, extra],
        "swapped": [vkeys[0], vkeys[2], vkeys[1]],
        "spaced": vkeys,
    }[change]
    config.write_text(json.dumps(content, separators=(", " if change == "spaced" else ",", ":")) + "\n")
    assert _verify(tmp_path, vkey=vkeys[0]).exit_code == 1
    assert _verify(tmp_path, mac_key=_genesis_key(tmp_path)).exit_code == 1


def test_a_log_cut_before_its_rotation_is_truncated(tmp_path: Path) -> None:
    old, new = _rotated(tmp_path)
    segment = next((tmp_path / "log" / "entries").glob("*.jsonl"))
    lines = segment.read_bytes().splitlines(keepends=True)
    segment.write_bytes(b"".join(lines[:2]))
    for vkey in (old, new):
        found = _verify(tmp_path, vkey=vkey)
        assert found.verdict == "truncated"
        assert found.first_bad is not None
        assert found.first_bad.index == 2


@pytest.mark.parametrize("workers", [1, 2])
def test_ranges_scanned_apart_follow_the_keys_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, workers: int
) -> None:
    """A scan that assumed the old key's ID vouches for nothing after the change, and is made up for."""
    old = make_log(tmp_path).vkey
    with open_log(tmp_path) as logger:
        for _ in range(3):
            for number in range(40):
                logger.emit(sealed(number))
            new = logger.rotate_key()
    whole = _verify(tmp_path, vkey=old, workers=1)
    monkeypatch.setattr(survey, "RANGE_BYTES", 4096)
    for vkey in (old, new):
        assert _verify(tmp_path, vkey=vkey, workers=workers) == whole
    assert whole.verdict == "intact"


def test_an_opened_log_goes_on_with_the_new_key(tmp_path: Path) -> None:
    old, new = _rotated(tmp_path)
    with open_log(tmp_path) as logger:
        logger.emit(sealed())
    assert read_entries(tmp_path)[-1]["audit_id"].startswith(_id(new))
    assert _verify(tmp_path, vkey=old).verdict == "intact"


def test_old_keys_and_rolled_back_log_json_do_not_open_a_rotated_log(tmp_path: Path) -> None:
    make_log(tmp_path)
    keys, config = tmp_path / "keys" / "log.key", tmp_path / "log" / "log.json"
    before = keys.read_bytes(), config.read_bytes()
    with open_log(tmp_path) as logger:
        logger.rotate_key()
    after = keys.read_bytes()
    keys.write_bytes(before[0])
    with pytest.raises(ConfigurationError, match="is not the key"):
        open_log(tmp_path)
    keys.write_bytes(after)
    config.write_bytes(before[1])
    with pytest.raises(ConfigurationError, match="is not the key"):
        open_log(tmp_path)


def test_a_key_folder_with_a_linked_log_key_is_not_rotated(tmp_path: Path) -> None:
    make_log(tmp_path)
    path = tmp_path / "keys" / "log.key"
    path.rename(tmp_path / "elsewhere")
    path.symlink_to(tmp_path / "elsewhere")
    with open_log(tmp_path) as logger, pytest.raises(AuditWriteError, match="symbolic link"):
        logger.rotate_key()
    assert _verify(tmp_path).verdict == "intact"


# --- every crash point ------------------------------------------------------------------------------------


def test_no_stop_during_a_rotation_leaves_a_log_that_does_not_open_or_verify(tmp_path: Path) -> None:
    old = make_log(tmp_path / "template", clock=ManualClock()).vkey
    rotations = 0
    for stop_at in range(1, 200):
        folder = copy_tree(tmp_path / "template", tmp_path / str(stop_at))
        stopped = _rotate_until(folder, stop_at)
        # 1. As the crash left it.
        assert _verify(folder, vkey=old).verdict == "intact", f"stopped before call {stop_at}"
        assert _verify(folder, mac_key=_genesis_key(folder)).verdict == "intact"
        assert _verify(folder).verdict == "intact"
        # 2. Opened again, and rotated once more.
        with open_log(folder, clock=_later()) as logger:
            logger.emit(sealed(shard_id="afterwards"))
            last = logger.rotate_key()
            logger.emit(sealed(shard_id="at last"))
        for trust in ({"vkey": old}, {"vkey": last}, {"mac_key": _genesis_key(folder)}, {}):
            assert _verify(folder, **trust).verdict == "intact", f"stopped before call {stop_at}"
        names = [entry.get("shard_id") for entry in reference_check(folder)]
        assert "at last" in names
        assert not list((folder / "keys").glob("log.key?*"))
        rotations += len(json.loads((folder / "log" / "log.json").read_bytes())["vkeys"]) == 3
        if not stopped:
            assert stop_at > 20
            assert rotations > 10
            return
    raise AssertionError("the rotation never ended")


def _later() -> ManualClock:
    clock = ManualClock()
    clock.advance(60)
    return clock


def _rotate_until(folder: Path, stop_at: int) -> bool:
    """Whether the machine stopped before that call, counted from the rotation's first."""

    def on_call(_name: str, number: int) -> None:
        if number == limit:
            raise PowerCutError

    limit = 0
    files = FaultyFiles(on_call)
    logger = open_log(folder, files=files, clock=ManualClock())
    limit = len(files.calls) + stop_at
    try:
        logger.emit(sealed(shard_id="before"))
        logger.rotate_key()
    except PowerCutError:
        return True
    finally:
        abandon(logger)
    return False


def test_a_rotation_that_the_disk_stops_goes_on_with_the_next_write(tmp_path: Path) -> None:
    old = make_log(tmp_path / "template").vkey
    finished = 0
    for fail_at in range(1, 60):
        folder = copy_tree(tmp_path / "template", tmp_path / str(fail_at))
        reached, vkeys = _rotate_with_failure(folder, fail_at)
        finished += len(vkeys) > 1
        for trust in ({"vkey": vkeys[-1]}, {"vkey": old}, {}):
            assert _verify(folder, **trust).verdict == "intact", f"failed at call {fail_at}"
        if not reached:
            assert finished > 5
            return
    raise AssertionError("the rotation never ended")


def _rotate_with_failure(folder: Path, fail_at: int) -> tuple[bool, list[str]]:
    limit = 0

    def on_call(_name: str, number: int) -> None:
        if number == limit:
            raise OSError(5, "Input/output error")

    files = FaultyFiles(on_call)
    with open_log(folder, files=files) as logger:
        limit = len(files.calls) + fail_at
        with contextlib.suppress(AuditWriteError):
            logger.rotate_key()
        reached, limit = len(files.calls) >= limit, 0
        logger.emit(sealed(shard_id="afterwards"), durable=True)
    return reached, json.loads((folder / "log" / "log.json").read_bytes())["vkeys"]


# --- what is signed ---------------------------------------------------------------------------------------


def test_a_change_of_key_names_two_keys_of_one_log() -> None:
    one, other = (note.SignerKey(name, ed25519.SigningKey(bytes(32))).verifier for name in ("a", "b"))
    for old, new in ((one, one), (one, other)):
        with pytest.raises(note.NoteFormatError, match="not another one of the same log"):
            KeyChange.parse(0, str(old), str(new))
