"""The commands that talk to a running worker: what they say, and with which exit code."""

from __future__ import annotations

import json
import os
import pty
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from tests.running_worker import RunningWorker, running_worker
from tests.shards import TOKEN, WORKER, write_model

from vram_residency.cli.main import main
from vram_residency.cli.top import event_line
from vram_residency.seal import open_attestation

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def worker(tmp_path: Path) -> Iterator[RunningWorker]:
    with running_worker(tmp_path) as running:
        write_model(running.models, 300_000, 20)
        yield running


@pytest.fixture
def run(worker: RunningWorker, capsys: pytest.CaptureFixture[str]) -> Run:
    """Run a command against the worker; its exit code, stdout and stderr."""

    def run(*words: str) -> tuple[int, str, str]:
        code = main([*words, "--socket", str(worker.socket)])
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return run


def document(run: Run, *words: str) -> Any:
    code, out, err = run(*words, "--json")
    assert err == ""
    return code, json.loads(out)


def test_the_life_of_a_shard_for_people(run: Run, worker: RunningWorker):
    """Each command says what it did, and what to do next."""
    assert "holds no shard" in run("ls")[1]
    code, out, _ = run("seal", str(worker.models / "model.safetensors"), "--id", "m1")
    assert (code, "Sealed m1: 293.1 KB of safetensors" in out, "vram verify m1" in out) == (0, True, True)
    assert run("verify", "m1")[1].startswith("VERIFIED m1: full, 293.1 KB read in ")
    assert "VERIFIED m1: sample" in run("verify", "--all", "--scope", "sample")[1]
    _, out, _ = run("ls")
    assert "m1" in out
    assert "sealed" in out
    _, out, _ = run("show", "m1")
    assert "digest" in out
    assert "blake3:" in out
    _, out, _ = run("status")
    assert f"{WORKER} is READY" in out
    assert "1 shard in 293.1 KB" in out
    assert run("free", "m1")[:2] == (0, "Freed m1\n")


def test_the_life_of_a_shard_for_programs(run: Run, worker: RunningWorker):
    """One document each, with the API's own names."""
    code, sealed = document(run, "seal", str(worker.models / "model.safetensors"), "--id", "m1")
    assert (code, sealed["handle_id"], sealed["shards"][0]["handle_id"]) == (0, "m1", "m1")
    assert document(run, "ls") == (0, {"shards": sealed["shards"]})
    assert document(run, "show", "m1") == (0, sealed["shards"][0])
    code, verified = document(run, "verify", "m1")
    assert (code, verified["verified"], verified["scope"]) == (0, True, "full")
    assert verified["bytes_checked"] == sealed["vram_bytes"]
    code, status = document(run, "status")
    assert (code, status["state"], status["shards"]) == (0, "ready", 1)
    assert document(run, "free", "m1") == (0, {"freed": "m1"})
    assert document(run, "verify", "--all") == (0, {"verified": True, "shards": []})


def test_a_path_that_is_not_here_is_the_workers(run: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.chdir(tmp_path)
    assert run("seal", "model.safetensors")[0] == 0
    monkeypatch.chdir(tmp_path / "models")
    assert run("seal", "model.safetensors")[0] == 0


def test_damage_is_said_by_every_command_alike(run: Run, worker: RunningWorker):
    """Verify names it, show, status and the next verify agree."""
    for name in ("m1", "m2"):
        assert run("seal", "model.safetensors", "--id", name)[0] == 0
    worker.device.flip_bit("m1", 4096)
    code, out, _ = run("verify", "--all")
    assert code == 1
    assert "NOT VERIFIED m1" in out
    assert "digest_mismatch" in out
    assert "VERIFIED m2: full" in out
    code, found = document(run, "verify", "m1")
    assert (code, found["verified"], found["error"]["message"]) == (1, False, "shard 'm1' is quarantined")
    assert run("show", "m1")[0] == 1
    assert run("show", "m2")[0] == 0
    code, out, _ = run("status")
    assert (code, "is STOPPED: shard 'm1' failed verification" in out) == (1, True)
    assert run("seal", "model.safetensors")[0] == 5


def test_an_attestation_is_written_and_opens(run: Run, worker: RunningWorker, tmp_path: Path):
    run("seal", "model.safetensors", "--id", "m1")
    public_key = worker.service.manager.attestation_public_key
    _, envelope = document(run, "attest", "m1", "--nonce", "mine")
    assert open_attestation(envelope, public_key=public_key, nonce="mine").statement.shard_id == "m1"
    code, told = document(run, "attest", "m1", "--out", str(tmp_path / "a.json"))
    written = json.loads((tmp_path / "a.json").read_text("utf-8"))
    assert (code, told["file"]) == (0, str(tmp_path / "a.json"))
    attested = open_attestation(written, public_key=public_key, nonce=told["nonce"])
    assert attested.statement.shard_id == "m1"


FAILURES: dict[str, tuple[list[str], int, str]] = {
    "no such shard": (["show", "none"], 2, "no shard 'none'"),
    "free what is not there": (["free", "none"], 2, "no shard 'none'"),
    "no such file": (["seal", "none.safetensors"], 2, "none.safetensors"),
    "outside the roots": (["seal", "/etc/hostname"], 2, "model root"),
    "not the approved one": (["seal", "model.safetensors", "--expect", "blake3:" + "0" * 64], 1, "mismatch"),
    "malformed": (["seal", "bad.safetensors"], 2, "malformed model"),
    "too large": (["seal", "large.bin"], 4, "not enough device memory"),
    "verify nothing": (["verify"], 2, "--all"),
    "verify too much": (["verify", "m1", "--all"], 2, "--all"),
}


@pytest.mark.parametrize("what", FAILURES)
def test_a_failure_has_its_code_and_a_hint(what: str, run: Run, worker: RunningWorker):
    (worker.models / "bad.safetensors").write_bytes(b"\xff" * 64)
    (worker.models / "large.bin").write_bytes(bytes(17 << 20))
    words, expected, message = FAILURES[what]
    code, out, err = run(*words)
    assert (code, out) == (expected, "")
    first, second = err.splitlines()
    assert message in first
    assert second.startswith("hint: ")


@pytest.mark.parametrize(
    "words",
    [["seal", "x"], ["ls"], ["show", "x"], ["verify", "--all"], ["free", "x"], ["status"], ["attest", "x"]],
    ids=lambda words: words[0],
)
def test_without_a_worker_nobody_can_say(
    words: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    """5, and how to start one."""
    assert main([*words, "--socket", str(tmp_path / "none.sock")]) == 5
    err = capsys.readouterr().err
    assert "no worker answers at" in err
    assert "`vram serve`" in err
    assert main([*words, "--socket", str(tmp_path / "none.sock"), "--json"]) == 5
    assert json.loads(capsys.readouterr().out)["error"]["code"] == "worker_unreachable"


def test_a_token_comes_from_a_private_file_alone(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    """As every secret does."""
    token = tmp_path / "token"
    token.write_text(TOKEN)
    token.chmod(0o644)
    words = ["status", "--url", "http://127.0.0.1:1", "--token-file", str(token)]
    assert main(words) == 2
    assert "looser than" in capsys.readouterr().err
    token.chmod(0o600)
    assert main(words) == 5
    assert TOKEN not in capsys.readouterr().err


def test_top_shows_the_worker_at_each_moment(run: Run, worker: RunningWorker):
    """Room, state and every shard; off a terminal picture after picture."""
    run("seal", "model.safetensors", "--id", "m1")
    code, out, err = run("top", "--count", "2", "--interval", "0.1")
    assert (code, err) == (0, "")
    assert out.count(f"{WORKER} is READY") == 2
    assert out.count("m1") == 2
    assert "░" in out
    code, out, _ = run("top", "--count", "2", "--interval", "0.1", "--json")
    pictures = [json.loads(line) for line in out.splitlines()]
    assert [picture["shards"][0]["handle_id"] for picture in pictures] == ["m1", "m1"]
    assert pictures[0]["status"]["state"] == "ready"


def test_top_tells_what_happens_on_one_line_each():
    """The narration's sentence or the entry's type; what is for programs alone is left out."""
    told = {"emitted_at": "2026-01-02T03:04:05.000006Z", "human": "Sealed\nm1"}
    assert event_line("story", told).splitlines() == [event_line("story", told)]
    assert event_line("story", told).startswith("03:04:05 story    Sealed")
    assert "vram_sealed" in event_line("evidence", {"event_type": "vram_sealed"})
    assert event_line("ping", None) == ""
    assert event_line("ping", {}) == ""


def test_top_on_a_terminal_draws_and_ends(worker: RunningWorker):
    """A real terminal: the screen is drawn, and given back."""
    pid, terminal = pty.fork()
    if pid == 0:
        os.environ["TERM"] = "xterm"
        words = ["top", "--count", "3", "--interval", "0.1", "--socket", str(worker.socket)]
        os.execv(sys.executable, [sys.executable, "-m", "vram_residency", *words])
    shown = b""
    with suppress(OSError):  # how Linux says that the other side of a terminal is gone
        while block := os.read(terminal, 65536):
            shown += block
    os.close(terminal)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    assert WORKER.encode() in shown
    assert b"\x1b[?1049l" in shown
