"""`vram audit` from the outside: exit codes, what stands on stdout and stderr, nothing lost."""

from __future__ import annotations

import json
import os
import select
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from tests.event_table import EVENTS, OWN_EVENTS, sample
from tests.independent_log import SEGMENT, LogMaker, check

from vram_residency.cli.main import main

Run = subprocess.CompletedProcess[bytes]


def vram(*words: object, stdin: bytes = b"") -> Run:
    command = [sys.executable, "-m", "vram_residency.cli.main", "audit", *map(str, words)]
    run = subprocess.run(command, input=stdin, capture_output=True, check=False, timeout=60)
    assert b"Traceback" not in run.stderr + run.stdout
    return run


def _line(event_type: str, **fields: Any) -> bytes:
    return json.dumps({"event_type": event_type, **fields}).encode() + b"\n"


def _verified(shard_id: str) -> bytes:
    return _line("seal_verified", shard_id=shard_id, worker_id="w")


@pytest.fixture
def log(tmp_path: Path) -> Path:
    assert vram("init", tmp_path / "log", "--service", "worker-gpu-0", "--keep-genesis").returncode == 0
    return tmp_path / "log"


def test_init_prints_what_must_be_kept_and_keeps_k0_only_when_asked(tmp_path: Path) -> None:
    run = vram("init", tmp_path / "log", "--service", "w-0", "--json")
    document = json.loads(run.stdout)
    assert set(document) == {"origin", "vkey", "mac_genesis_key"}
    assert not (tmp_path / "log.keys" / "genesis.key").exists()
    assert check(tmp_path / "log", k0=bytes.fromhex(document["mac_genesis_key"]), vkey=document["vkey"]) == []
    again = vram("init", tmp_path / "log", "--service", "w-0")
    assert again.returncode == 2
    assert again.stderr.startswith(b"vram: error: ")
    assert vram("init", tmp_path / "x", "--service", "a b").returncode == 2


def test_every_event_can_be_emitted_and_comes_back_unchanged(log: Path) -> None:
    lines = b"".join(_line(event_type, **sample(event_type)) for event_type in EVENTS)
    run = vram("emit", log, "--receipts", stdin=lines)
    assert run.returncode == 0, run.stderr
    receipts = [json.loads(line) for line in run.stdout.splitlines()]
    assert [receipt["line"] for receipt in receipts] == list(range(1, len(EVENTS) + 1))
    entries = {}
    for line in vram("query", log, "--json").stdout.splitlines():
        entry = json.loads(line)
        entries[entry["index"]] = entry
    for receipt, event_type in zip(receipts, EVENTS, strict=True):
        entry = entries[receipt["index"]]
        assert entry["event_type"] == event_type
        assert entry["audit_id"] == receipt["audit_id"]
        expected = sample(event_type)
        if "customer_id" in expected:
            assert entry["customer_id"].startswith("pseudonym:")
            expected["customer_id"] = entry["customer_id"]
        assert {name: entry[name] for name in expected} == expected
        own = [name for name in entry if name in expected]
        assert own == list(expected)
        assert "sanitized" not in entry
    assert vram("verify", log).returncode == 0


@pytest.mark.parametrize("event_type", OWN_EVENTS)
def test_the_logs_own_events_are_refused(log: Path, event_type: str) -> None:
    run = vram("emit", log, stdin=_line(event_type, **sample(event_type)))
    assert run.returncode == 2
    assert b"only the log's writer" in run.stderr
    assert event_type not in [e["event_type"] for e in _entries(log)[1:-2]]


def test_emit_stops_at_the_first_bad_line_after_writing_those_before_it(log: Path) -> None:
    bad = b'{"event_type":"seal_verified","shard_id":"3","shard_id":"4","worker_id":"w"}\n'
    run = vram(
        "emit", log, "--receipts", stdin=_verified("1") + b"\n" + _verified("2") + bad + _verified("5")
    )
    assert run.returncode == 2
    assert b"line 4" in run.stderr
    assert len(run.stderr.splitlines()) == 3  # the warning about keys, the error, the hint
    assert [json.loads(line)["line"] for line in run.stdout.splitlines()] == [1, 3]
    assert [entry.get("shard_id") for entry in _entries(log)] == [None, "1", "2", None, None]


def test_emit_carries_correlation_and_actor_into_the_envelope(log: Path) -> None:
    actor = {"user_id": "u", "auth_method": "internal"}
    line = _line("seal_verified", shard_id="s", worker_id="w", correlation_id="req-1", actor=actor)
    assert vram("emit", log, stdin=line + _verified("t")).returncode == 0
    entries = _entries(log)
    assert list(entries[1])[5:] == ["correlation_id", "actor", "shard_id", "worker_id", "mac"]
    assert list(entries[2])[5:] == ["shard_id", "worker_id", "mac"]


def test_emit_gives_receipts_while_the_pipe_stays_open(log: Path) -> None:
    command = [sys.executable, "-m", "vram_residency.cli.main", "audit", "emit", str(log), "--receipts"]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        for number in range(1, 4):
            os.write(process.stdin.fileno(), _verified(str(number)))
            assert select.select([process.stdout], [], [], 30)[0]
            assert json.loads(process.stdout.readline())["line"] == number
        os.write(process.stdin.fileno(), _verified("last").rstrip(b"\n"))
        process.stdin.close()
        assert json.loads(process.stdout.readline())["line"] == 4
    assert process.returncode == 0


def test_emit_takes_more_events_than_the_buffer_holds(log: Path) -> None:
    run = vram("emit", log, "--json", stdin=b"".join(_verified(str(number)) for number in range(5000)))
    assert (run.returncode, json.loads(run.stdout)) == (0, {"events": 5000})
    assert len(_entries(log)) == 5003


@pytest.mark.parametrize(
    "hostile", ["a\nb", "\u202egpj", "\x1b[2J", "\u200b", "\ud800", '"},{"', "x" * 100_000]
)
def test_hostile_text_reaches_neither_the_log_nor_the_terminal(log: Path, hostile: str) -> None:
    lines = [
        _line("vram_sealed", **{**sample("vram_sealed"), name: hostile}) for name in ("shard_id", "model_ref")
    ]
    assert vram("emit", log, stdin=b"".join(lines)).returncode == 0
    assert all(line.isascii() or "…" in line.decode() for line in _lines(log))
    assert len(_lines(log)) == 5
    for command in (["query", log], ["show", log, 1], ["show", log, 2], ["verify", log]):
        run = vram(*command)
        assert run.returncode == 0
        shown = run.stdout.decode()
        assert not any(char in shown for char in "\x1b\u202e\u200b\ud800")
    if hostile == "a\nb":
        assert "a\\u{000A}b" in vram("show", log, 1).stdout.decode()


def test_verify_tells_the_verdict_in_words_json_and_exit_code(log: Path) -> None:
    vram("emit", log, stdin=_verified("1") + _verified("2"))
    run = vram("verify", log, "--json")
    document = json.loads(run.stdout)
    assert run.returncode == 0
    assert document["verdict"] == "intact"
    assert document["first_bad"] is None
    assert document["checked"] == {"mac": True, "tree": True, "checkpoint": True}
    assert document["trust"] == "local"
    assert (document["entries"], document["tree_size"], document["unprotected_entries"]) == (5, 5, 5)
    assert document["recovered_entries"] == 0
    assert len(document["root_hash"]) == 64
    assert b"INTACT by this machine's own keys" in vram("verify", log).stdout
    segment = log / "entries" / SEGMENT
    segment.write_bytes(segment.read_bytes().replace(b'"shard_id":"2"', b'"shard_id":"3"'))
    run = vram("verify", log, "--json")
    document = json.loads(run.stdout)
    assert run.returncode == 1
    assert document["verdict"] == "tampered"
    assert document["first_bad"]["index"] == 2
    assert document["first_bad"]["file"] == f"entries/{SEGMENT}"
    assert set(document["first_bad"]) == {"index", "file", "offset", "reason"}
    run = vram("verify", log)
    assert b"TAMPERED" in run.stdout
    assert b"entry 2" in run.stdout
    assert b"Next:" in run.stdout


def test_verify_takes_keys_and_a_checkpoint(tmp_path: Path) -> None:
    maker = LogMaker()
    maker.open()
    maker.seal()
    maker.close()
    directory = maker.write(tmp_path / "log")
    (tmp_path / "k0").write_text(maker.k0.hex() + "\n")
    (tmp_path / "checkpoint").write_bytes(maker.checkpoint(3))
    assert vram("verify", directory).returncode == 5
    assert vram("verify", directory, "--vkey", maker.vkey).returncode == 0
    run = vram("verify", directory, "--mac-key-file", tmp_path / "k0", "--json")
    assert (run.returncode, json.loads(run.stdout)["trust"]) == (0, "given")
    run = vram("verify", directory, "--vkey", maker.vkey, "--checkpoint", tmp_path / "checkpoint", "--json")
    assert json.loads(run.stdout)["unprotected_entries"] == 1
    assert vram("verify", directory, "--vkey", "nonsense").returncode == 2
    assert vram("verify", directory, "--mac-key-file", tmp_path / "missing").returncode == 2
    assert vram("verify", directory, "--checkpoint", tmp_path / "k0").returncode == 2


def test_query_and_show_read_without_verifying(log: Path, capsysbinary: pytest.CaptureFixture[bytes]) -> None:
    vram("emit", log, stdin=_verified("1") + _verified("2"))
    assert main(["audit", "query", str(log), "--event", "seal.verified", "--shard", "2", "--json"]) == 0
    assert capsysbinary.readouterr().out == _lines(log)[2] + b"\n"
    assert main(["audit", "show", str(log), "2", "--json"]) == 0
    document = json.loads(capsysbinary.readouterr().out)
    assert document["entry"]["shard_id"] == "2"
    assert document["file"] == f"entries/{SEGMENT}"
    assert vram("show", log, 99).returncode == 2
    assert vram("query", log, "--since", "noon").returncode == 2


@pytest.mark.parametrize("command", [["verify"], ["query"], ["emit"], ["show", 0]])
def test_what_is_no_log_exits_with_2_and_one_line(tmp_path: Path, command: list[object]) -> None:
    name, *rest = command
    run = vram(name, tmp_path, *rest)
    assert (run.returncode, run.stdout) == (2, b"")
    assert run.stderr.startswith(b"vram: error: ")
    run = vram(name, tmp_path, *rest, "--json")
    assert (run.returncode, run.stderr) == (2, b"")
    assert set(json.loads(run.stdout)["error"]) == {"code", "message", "hint"}


@pytest.mark.parametrize("command", ["init", "emit", "verify", "query", "show"])
def test_every_command_explains_itself_with_an_example(command: str) -> None:
    run = vram(command, "--help")
    assert run.returncode == 0
    assert b"Example:" in run.stdout
    assert b"--json" in run.stdout


def _lines(log: Path) -> list[bytes]:
    return (log / "entries" / SEGMENT).read_bytes().splitlines()


def _entries(log: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in _lines(log)]


@pytest.mark.parametrize(
    ("line", "hint"),
    [
        (b'{"event_type":"seal_verified","shard":"s"}\n', b"Its fields: shard_id, worker_id, digest?, "),
        (b'{"event_type":"seal_verifed"}\n', b"Did you mean 'seal_verified'?"),
        (b'{"event_type":"acme.model_promoted"}\n', b"a program that registers its class"),
        (b"shard s verified\n", b'A line is such as {"event_type":"seal_verified",'),
    ],
)
def test_a_bad_line_is_told_how_to_be_a_good_one(log: Path, line: bytes, hint: bytes) -> None:
    run = vram("emit", log, stdin=line)
    assert run.returncode == 2
    assert run.stderr.splitlines()[-1].startswith(b"hint: ")
    assert hint in run.stderr.splitlines()[-1]


def test_a_query_without_an_answer_says_what_may_have_been_meant(log: Path) -> None:
    run = vram("query", log, "--event", "seal_verifed")
    assert (run.returncode, run.stdout) == (0, b"")
    assert run.stderr == b"No entry passes. Did you mean --event seal_verified?\n"
    assert vram("query", log, "--severity", "urgent").returncode == 2


def test_what_a_forger_calls_its_fields_does_not_reach_the_terminal(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    maker = LogMaker()
    maker.append("no_such_event", **{"\x1b[2J\u202e\r\nforged": "x"})
    directory = str(maker.write(tmp_path / "log"))
    assert main(["audit", "show", directory, "0"]) == 0
    shown = capsys.readouterr().out
    assert "\\u{001B}[2J\\u{202E}" in shown
    assert not any(char in shown for char in "\x1b\u202e\r")
    assert not any(line.startswith("forged") for line in shown.splitlines())
