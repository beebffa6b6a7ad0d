"""`vram proof` from the outside; and a receipt that becomes a proof, from shell to shell."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from tests.bundles import SHARD, independent_check, make_log, members_of
from tests.independent_log import leaf_of, open_note

from vram_residency import AuditLogger, VramManager
from vram_residency.audit import create_log
from vram_residency.cli.main import main

MAKER = make_log()


@pytest.fixture
def log(tmp_path: Path) -> Path:
    return MAKER.write(tmp_path / "log")


@pytest.fixture
def bundle(log: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Path:
    target = tmp_path / "bundle.zip"
    assert main(["proof", "export", SHARD, str(target), "--audit", str(log)]) == 0
    assert "Bundled 3 entries" in capsys.readouterr().out
    return target


def _json(capsys: pytest.CaptureFixture[str], *words: object, code: int = 0) -> dict[str, Any]:
    assert main([*map(str, words), "--json"]) == code
    document: dict[str, Any] = json.loads(capsys.readouterr().out)
    return document


def test_a_bundle_is_exported_and_verified_without_the_log(
    log: Path, bundle: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    log.rename(log.with_name("gone"))
    assert main(["proof", "verify", str(bundle), "--vkey", MAKER.vkey]) == 0
    printed = capsys.readouterr().out
    assert printed.startswith("PROVEN by the vkey that you gave")
    assert "Not proved:" in printed
    found = _json(capsys, "proof", "verify", bundle, "--vkey", MAKER.vkey)
    assert (found["verdict"], found["trust"]) == ("proven", "given")
    assert found["subject"] == {"shard_id": SHARD}
    assert [entry["index"] for entry in found["entries"]] == [2, 6, 7]
    assert [step["name"] for step in found["steps"]] == ["form", "checkpoint", "entries", "subject"]
    assert [entry["index"] for entry in independent_check(bundle.read_bytes(), MAKER.vkey)] == [2, 6, 7]


def test_without_a_vkey_it_cannot_say(bundle: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["proof", "verify", str(bundle)]) == 5
    printed = capsys.readouterr().out
    assert printed.startswith("UNVERIFIABLE")
    assert "Next: Get the vkey" in printed


def test_another_key_and_a_lying_page_are_exit_code_1(
    bundle: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["proof", "verify", str(bundle), "--vkey", make_log().vkey]) == 1
    assert capsys.readouterr().out.startswith("REFUTED")
    bundle.write_bytes(
        bundle.read_bytes().replace(b"This page is not the proof", b"This page is your  proof")
    )
    assert _json(capsys, "proof", "verify", bundle, "--vkey", MAKER.vkey, code=1)["verdict"] == "refuted"


def test_a_number_is_an_index_unless_it_is_said_to_be_a_shard(
    log: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    target = tmp_path / "x.zip"
    made = _json(capsys, "proof", "export", 4, target, "--audit", log)
    assert made == {
        "file": str(target),
        "size_bytes": target.stat().st_size,
        "subject": {"entry": 4},
        "origin": MAKER.origin,
        "tree_size": len(MAKER.lines),
        "entries": [4],
        "uncovered_entries": 0,
    }
    assert main(["proof", "export", "4", str(target), "--audit", str(log), "--shard"]) == 2
    assert "checkpoint is about 4" in capsys.readouterr().err


@pytest.mark.parametrize(
    "words",
    [
        ["export", "99", "OUT", "--audit", "LOG"],
        ["export", "9" * 5000, "OUT", "--audit", "LOG"],
        ["export", "nobody", "OUT", "--audit", "LOG"],
        ["export", "4", "OUT", "--audit", "NOWHERE"],
        ["export", "4", "OUT"],
        ["export", "4", "NOWHERE/x/y", "--audit", "LOG"],
        ["export", "4", "LOG", "--audit", "LOG"],
        ["export", "4", "OUT", "--audit", "LOG", "--residency", "FILE"],
        ["export", "4", "OUT", "--audit", "LOG", "--attestation", "NOWHERE"],
        ["verify", "FILE", "--vkey", "VKEY"],
        ["verify", "NOWHERE"],
        ["verify", "LOG"],
        ["verify", "/dev/zero"],
        ["verify", "FILE", "--vkey", "nonsense"],
        ["verify", "FILE", "--attestation-key", "nonsense"],
    ],
    ids=lambda words: " ".join(words)[:60],
)
def test_bad_input_is_one_line_a_hint_and_exit_code_2(
    log: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], words: list[str]
) -> None:
    (tmp_path / "file").write_text("[]")
    names = {"LOG": log, "OUT": tmp_path / "out", "FILE": tmp_path / "file", "VKEY": MAKER.vkey}
    filled = [str(names.get(word, word)).replace("NOWHERE", str(tmp_path / "nowhere")) for word in words]
    assert main(["proof", *filled]) == 2
    lines = capsys.readouterr().err.splitlines()
    assert [line.partition(":")[0] for line in lines] == ["vram", "hint"]
    assert not (tmp_path / "out").exists()


def _vram(*words: object, stdin: bytes = b"") -> bytes:
    command = [sys.executable, "-m", "vram_residency.cli.main", *map(str, words)]
    return subprocess.run(command, input=stdin, capture_output=True, check=True).stdout


def test_a_receipt_becomes_a_proof_and_a_bundle(tmp_path: Path) -> None:
    """init, emit --receipts, prove inclusion --leaf-hash, proof export and verify: each its own process."""
    log = tmp_path / "log"
    vkey = json.loads(_vram("audit", "init", log, "--service", "w-0", "--json"))["vkey"]
    event = {"event_type": "seal_verified", "shard_id": "s-1", "worker_id": "w"}
    lines = json.dumps(event).encode() + b"\n"
    receipts = [
        json.loads(line) for line in _vram("audit", "emit", log, "--receipts", stdin=lines * 3).splitlines()
    ]
    receipt = receipts[1]
    words = ("audit", "prove", "inclusion", log, receipt["index"], "--leaf-hash", receipt["leaf_hash"])
    text = _vram(*words)
    assert text.startswith(f"c2sp.org/tlog-proof@v1\nindex {receipt['index']}\n".encode())
    open_note(text.partition(b"\n\n")[2], vkey)
    target = tmp_path / "bundle.zip"
    _vram("proof", "export", receipt["index"], target, "--audit", log)
    document = json.loads(_vram("proof", "verify", target, "--vkey", vkey, "--json"))
    assert document["entries"][0]["leaf_hash"] == receipt["leaf_hash"]
    name = f"{receipt['index']:020}"
    members = members_of(target.read_bytes())
    assert leaf_of(members[f"entries/{name}.json"]).hex() == receipt["leaf_hash"]
    assert members[f"proofs/{name}.tlog-proof"] == text


def test_what_check_and_attest_give_can_be_attached(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The residency record that `vram check --json` prints is the one whose hash the log holds."""
    model, log, target = tmp_path / "model.bin", tmp_path / "log", tmp_path / "bundle.zip"
    model.write_bytes(bytes(range(256)) * 100)
    checked = json.loads(_vram("check", model, "--audit", log, "--device", "host", "--json"))
    record = tmp_path / "residency.json"
    record.write_text(json.dumps(checked["residency"], indent=2))
    words = ("proof", "export", checked["shard_id"], target, "--audit", log, "--residency", record)
    assert _json(capsys, *words)["entries"] == [3, 4, 5]
    vkey = json.loads((log / "log.json").read_bytes())["vkeys"][0]
    steps = _json(capsys, "proof", "verify", target, "--vkey", vkey)["steps"]
    assert [(step["name"], step["holds"]) for step in steps][-1] == ("residency", True)


def test_a_manager_s_attestation_is_bundled_and_checked_by_its_key_and_nonce(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    log, keys, target = tmp_path / "log", tmp_path / "keys", tmp_path / "bundle.zip"
    vkey = create_log(log, service_id="w-0", keys=keys).vkey
    with (
        AuditLogger.open(log, service_id="w-0", keys=keys) as logger,
        VramManager.new_with_token(
            "a token of sixteen characters", gpu_device=0, audit_logger=logger, worker_id="w-0", device="host"
        ) as manager,
    ):
        shard = manager.seal_model(bytes(range(256)) * 64, shard_id="s-1")
        attested = tmp_path / "attestation.json"
        attested.write_text(json.dumps(manager.attest(shard, nonce="n-1"), indent=2))
        key = manager.attestation_public_key.hex()
    assert (
        main(["proof", "export", "s-1", str(target), "--audit", str(log), "--attestation", str(attested)])
        == 0
    )
    capsys.readouterr()
    words = ("proof", "verify", target, "--vkey", vkey, "--attestation-key", key, "--nonce")
    found = _json(capsys, *words, "n-1")
    assert [step["name"] for step in found["steps"] if step["holds"]][-2:] == [
        "attestation",
        "attestation signature",
    ]
    assert "its verification is entry" in found["steps"][4]["finding"]
    assert _json(capsys, *words, "n-2", code=1)["verdict"] == "refuted"
