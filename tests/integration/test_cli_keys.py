"""`vram audit keys` and `init --fork` from the outside: what is printed, and with which exit code."""

from __future__ import annotations

import base64
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from tests.audit_logs import SERVICE, make_log, open_log, read_entries, sealed

from vram_residency.audit.format import note
from vram_residency.cli.main import main


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    make_log(tmp_path)
    with open_log(tmp_path) as logger:
        logger.emit(sealed())
    return tmp_path


def _vram(folder: Path, *words: str) -> int:
    return main(["audit", *words, "--keys", str(folder / "keys")])


def _json(capsys: pytest.CaptureFixture[str], code: int = 0) -> dict[str, Any]:
    captured = capsys.readouterr()
    assert captured.err == ""
    document: dict[str, Any] = json.loads(captured.out)
    assert ("error" in document) == (code != 0)
    return document


def test_the_keys_of_a_log_are_shown(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    log = str(folder / "log")
    assert _vram(folder, "keys", log, "--json") == 0
    shown = _json(capsys)
    assert _vram(folder, "keys", "show", log, "--json") == 0
    assert _json(capsys) == shown
    vkey = json.loads((folder / "log" / "log.json").read_bytes())["vkeys"][0]
    assert [key["vkey"] for key in shown["vkeys"]] == [vkey]
    assert shown["vkeys"][0]["fingerprint"].startswith("SHA256:")
    assert [file["name"] for file in shown["files"]] == ["log.key", "mac.key", "pseudonym.key", "genesis.key"]
    assert {file["mode"] for file in shown["files"]} == {"0600"}
    assert (shown["signer"], shown["parent"]) == ("file", None)
    assert len(shown["warnings"]) == 2
    assert _vram(folder, "keys", log) == 0
    text = capsys.readouterr().out
    assert vkey in text
    assert "Warning: genesis.key is still here" in text
    assert (folder / "keys" / "log.key").read_text().strip() not in text


def test_the_next_step_is_named_where_nothing_is_amiss(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "safe").mkdir(mode=0o700)
    (folder / "keys").rename(folder / "safe" / "keys")
    (folder / "safe" / "keys" / "genesis.key").unlink()
    assert main(["audit", "keys", str(folder / "log"), "--keys", str(folder / "safe" / "keys")]) == 0
    text = capsys.readouterr().out
    assert "Warning" not in text
    assert "Next: Give the newest vkey to those who verify" in text


def test_what_is_amiss_with_keys_is_said_with_the_command_that_mends_it(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "keys").chmod(0o755)
    (folder / "keys" / "mac.key").chmod(0o640)
    shutil.copy2(folder / "keys" / "log.key", folder / "keys" / "log.key.next")
    assert _vram(folder, "keys", str(folder / "log"), "--json") == 0
    warnings = "\n".join(_json(capsys)["warnings"])
    assert f"chmod 700 {folder / 'keys'}" in warnings
    assert f"chmod 600 {folder / 'keys' / 'mac.key'}" in warnings
    assert "cut short" in warnings


def test_keys_of_another_log_are_said_to_be_so(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    make_log(folder / "other")
    assert (
        main(["audit", "keys", str(folder / "log"), "--keys", str(folder / "other" / "keys"), "--json"]) == 0
    )
    assert "are these the keys of this log?" in _json(capsys)["warnings"][0]


def test_a_log_key_is_rotated(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    log = str(folder / "log")
    assert _vram(folder, "keys", "rotate", log, "--json") == 0
    done = _json(capsys)
    assert _vram(folder, "keys", "rotate", log) == 0
    assert done["new_vkey"] in capsys.readouterr().out
    types = [entry["event_type"] for entry in read_entries(folder)]
    assert types[-8:] == ["log_opened", "key_rotated", "log_closed", "epoch_closed"] * 2
    for vkey in (done["old_vkey"], done["new_vkey"]):
        assert main(["audit", "verify", log, "--vkey", vkey]) == 0
    assert _vram(folder, "keys", log, "--json") == 0
    capsys.readouterr()


def test_a_log_that_is_open_elsewhere_is_not_rotated(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with open_log(folder):
        assert _vram(folder, "keys", "rotate", str(folder / "log"), "--json") == 5
    assert "is being written by" in _json(capsys, 5)["error"]["message"]


def test_a_fork_is_made_and_shown(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["audit", "init", str(folder / "new"), "--fork", str(folder / "log"), "--json"]
    assert main(words) == 0
    new = _json(capsys)
    assert new["origin"].startswith(f"{SERVICE}/")
    assert main(["audit", "keys", str(folder / "new"), "--json"]) == 0
    assert _json(capsys)["parent"]["tree_size"] == len(read_entries(folder))
    assert main(["audit", "keys", str(folder / "new")]) == 0
    assert f"goes on from {SERVICE}/" in capsys.readouterr().out


def test_without_a_service_and_without_a_parent_no_log_is_made(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["audit", "init", str(tmp_path / "new")]) == 2
    assert "--service" in capsys.readouterr().err
    assert main(["audit", "init", str(tmp_path / "new"), "--fork", str(tmp_path)]) == 2
    assert not (tmp_path / "new").exists()


def test_a_group_without_a_directory_explains_itself(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["audit", "keys"]) == 0
    text = capsys.readouterr().out
    assert "rotate" in text
    assert all(len(line) <= 80 for line in text.splitlines())


def _low_order_vkey(name: str) -> str:
    weak = (1).to_bytes(32, "little")
    data = base64.b64encode(b"\x01" + weak).decode()
    return f"{name}+{note.key_id(name, weak).hex()}+{data}"


def _is_two_lines(error: str) -> bool:
    lines = error.splitlines()
    return len(lines) == 2 and lines[0].startswith("vram: error: ") and lines[1].startswith("hint: ")


@pytest.mark.parametrize(
    ("content", "code"),
    [
        pytest.param(b"", 2, id="empty"),
        pytest.param(b"PRIVATE+KEY+x", 2, id="cut"),
        pytest.param(b"PRIVATE+KEY+s+00000000+AAAA\n", 2, id="short"),
        pytest.param(b"SSH+AGENT+KEY+", 2, id="agent-cut"),
        pytest.param(b"SSH+AGENT+KEY+low", 2, id="agent-low-order"),
        pytest.param(b"\xff\xfe", 2, id="not-utf-8"),
        pytest.param(b"P" * 70_000, 2, id="too-long"),
        pytest.param(None, 5, id="missing"),
    ],
)
def test_a_malformed_log_key_is_one_line_of_error(
    folder: Path, capsys: pytest.CaptureFixture[str], content: bytes | None, code: int
) -> None:
    path = folder / "keys" / "log.key"
    if content is None:
        path.unlink()
    else:
        origin = json.loads((folder / "log" / "log.json").read_bytes())["origin"]
        path.write_bytes(content.replace(b"low", _low_order_vkey(origin).encode()))
    log = str(folder / "log")
    for words in (["keys", log], ["keys", "rotate", log], ["emit", log]):
        assert _vram(folder, *words) == code
        captured = capsys.readouterr()
        assert captured.out == ""
        assert _is_two_lines(captured.err)


@pytest.mark.parametrize("place", ["verify", "witness", "log.json"])
def test_a_low_order_key_is_refused_wherever_one_enters(
    folder: Path, capsys: pytest.CaptureFixture[str], place: str
) -> None:
    """Such a key accepts a signature of anything."""
    log = folder / "log"
    config = json.loads((log / "log.json").read_bytes())
    weak = _low_order_vkey(config["origin"])
    if place == "verify":
        assert main(["audit", "verify", str(log), "--vkey", weak]) == 2
    elif place == "witness":
        assert main(["audit", "witness", str(log), "http://127.0.0.1:9", "--witness-vkey", weak]) == 2
    else:
        config["vkeys"].append(weak)
        (log / "log.json").write_text(json.dumps(config))
        assert _vram(folder, "verify", str(log)) == 1
        assert _vram(folder, "keys", str(log)) == 1
        capsys.readouterr()
        assert _vram(folder, "keys", "rotate", str(log)) == 1
    captured = capsys.readouterr()
    assert "small order" in captured.err
    assert _is_two_lines(captured.err)
