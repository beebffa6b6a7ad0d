"""`vram audit prove` and `publish` from the outside: what is printed, and with which exit code."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from tests.independent_log import LogMaker, leaf_of, make_log, open_note
from tests.merkle_reference import ReferenceTree
from tests.tile_reader import TileReader

from vram_residency.cli.main import main

MAKER = make_log(10)
SIZE = len(MAKER.lines)


@pytest.fixture
def log(tmp_path: Path) -> Path:
    return MAKER.write(tmp_path / "log")


def _json(capsys: pytest.CaptureFixture[str], *words: object) -> dict[str, object]:
    assert main(["audit", *map(str, words), "--json"]) == 0
    document: dict[str, object] = json.loads(capsys.readouterr().out)
    return document


def test_an_inclusion_proof_is_printed_as_text_and_as_json(
    log: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    document = _json(capsys, "prove", "inclusion", log, 4)
    reference = ReferenceTree(MAKER.lines)
    assert document == {
        "origin": MAKER.origin,
        "index": 4,
        "leaf_hash": leaf_of(MAKER.lines[4]).hex(),
        "tree_size": SIZE,
        "root_hash": MAKER.root().hex(),
        "hashes": [hash_.hex() for hash_ in reference.path(4, 0, SIZE)],
        "checkpoint": MAKER.checkpoint().decode(),
        "tlog_proof": document["tlog_proof"],
    }
    command = [sys.executable, "-m", "vram_residency.cli.main", "audit", "prove", "inclusion", str(log), "4"]
    run = subprocess.run(command, capture_output=True, check=True)
    assert run.stdout.decode() == document["tlog_proof"]
    assert run.stderr == b""
    assert run.stdout.startswith(b"c2sp.org/tlog-proof@v1\nindex 4\n")
    assert open_note(run.stdout.partition(b"\n\n")[2], MAKER.vkey)[1] == SIZE


def test_a_consistency_proof_is_printed_as_text_and_as_json(
    log: Path, capfdbinary: pytest.CaptureFixture[bytes]
) -> None:
    reference = ReferenceTree(MAKER.lines)
    for new in (SIZE, 7):
        assert main(["audit", "prove", "consistency", str(log), "3", str(new), "--json"]) == 0
        document = json.loads(capfdbinary.readouterr().out)
        assert (document["old_size"], document["tree_size"]) == (3, new)
        assert document["old_root_hash"] == MAKER.root(3).hex()
        assert document["root_hash"] == MAKER.root(new).hex()
        assert document["hashes"] == [hash_.hex() for hash_ in reference.proof(3, new)]
    assert main(["audit", "prove", "consistency", str(log), "3"]) == 0
    signed = capfdbinary.readouterr()
    assert signed.out.startswith(b"old 3\n")
    assert signed.out.endswith(MAKER.checkpoint())
    assert signed.err == b""
    assert main(["audit", "prove", "consistency", str(log), "3", "7"]) == 0
    assert b"is not signed" in capfdbinary.readouterr().err


def test_a_receipt_s_leaf_hash_can_be_asked_for(log: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["audit", "prove", "inclusion", str(log), "4", "--json", "--leaf-hash"]
    assert main([*words, leaf_of(MAKER.lines[4]).hex().upper()]) == 0
    assert main([*words, leaf_of(MAKER.lines[5]).hex()]) == 1
    assert main([*words, "12"]) == 2
    assert "Traceback" not in capsys.readouterr().err


def test_publish_prints_what_now_stands_there(
    log: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    document = _json(capsys, "publish", log, out)
    assert document == {
        "origin": MAKER.origin,
        "tree_size": SIZE,
        "root_hash": MAKER.root().hex(),
        "old_size": 0,
        "files_written": 3,
    }
    assert main(["audit", "publish", str(log), str(out)]) == 0
    assert f"Published {SIZE} entries" in capsys.readouterr().out
    assert TileReader(out, MAKER.vkey).check() == MAKER.lines


@pytest.mark.parametrize(
    "words",
    [
        ["prove", "inclusion", "LOG", str(SIZE)],
        ["prove", "inclusion", "LOG", "-1"],
        ["prove", "inclusion", "LOG", "x"],
        ["prove", "inclusion", "LOG", str(2**70)],
        ["prove", "inclusion", "NOWHERE", "0"],
        ["prove", "consistency", "LOG", "5", "4"],
        ["prove", "consistency", "LOG", "5", str(SIZE + 1)],
        ["publish", "LOG", "LOG/inside"],
        ["publish", "NOWHERE", "OUT"],
        ["publish", "LOG", "FILE"],
    ],
)
def test_bad_input_is_one_line_a_hint_and_exit_code_2(
    log: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], words: list[str]
) -> None:
    (tmp_path / "file").write_text("")
    names = {"LOG": log, "NOWHERE": tmp_path / "nowhere", "OUT": tmp_path / "out", "FILE": tmp_path / "file"}
    filled = [str(names.get(word, word)).replace("LOG", str(log)) for word in words]
    assert main(["audit", *filled]) == 2
    lines = capsys.readouterr().err.splitlines()
    assert [line.partition(":")[0] for line in lines] == ["vram", "hint"]


def test_a_log_that_was_changed_is_exit_code_1(
    log: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = log / "entries" / f"{0:020}.jsonl"
    path.write_bytes(path.read_bytes().replace(b"shard-4", b"shard-5"))
    for words in (["prove", "inclusion", str(log), "1"], ["publish", str(log), str(tmp_path / "out")]):
        assert main(["audit", *words]) == 1
        assert "do not hash to the signed root" in capsys.readouterr().err
    empty = LogMaker().write(tmp_path / "empty")
    (empty / "checkpoint").unlink()
    assert main(["audit", "prove", "consistency", str(empty), "0"]) == 1
