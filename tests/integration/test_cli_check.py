"""``vram check``: one shot from a file to a verdict, on real and on hostile models."""

from __future__ import annotations

import hashlib
import json
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
from blake3 import blake3
from tests.hostile import HostileFile, corpus
from tests.models import MINILM, REAL_MODELS, RealModel, split_model
from tests.shards import memfds, raw_bytes, write_model

from vram_residency.audit import verify
from vram_residency.cli.main import main

FIELDS = {
    "shard_id", "device", "vram_bytes", "digest", "format", "tensors", "sealed_at", "verified", "residency",
    "timings_s",
}  # fmt: skip


@pytest.fixture
def check(capsys: pytest.CaptureFixture[str]) -> Iterator[Callable[..., tuple[int, str, str]]]:
    """Run ``vram check`` in this process: exit code, stdout, stderr. Nothing may be left in memory."""
    before = memfds()

    def run(*arguments: str | Path) -> tuple[int, str, str]:
        code = main(["check", *map(str, arguments)])
        streams = capsys.readouterr()
        return code, streams.out, streams.err

    yield run
    assert memfds() == before


def entries_of(log: Path) -> list[dict[str, Any]]:
    (segment,) = (log / "entries").iterdir()
    return [json.loads(line) for line in segment.read_text().splitlines()]


def digest_of(path: Path) -> str:
    return f"blake3:{blake3(path.read_bytes()).hexdigest()}"


@pytest.mark.parametrize("model", REAL_MODELS, ids=lambda model: model.distribution)
def test_a_real_model_is_sealed_verified_and_reported(model: RealModel, check: Any):
    code, out, err = check(model.path, "--json", "--expect", digest_of(model.path))
    assert (code, err) == (0, "")
    document = json.loads(out)
    (shard,) = document["shards"]
    assert set(shard) >= FIELDS
    assert {name: document[name] for name in shard} == shard
    assert (shard["format"], shard["tensors"]) == (model.format, model.tensors)
    assert (shard["digest"], shard["vram_bytes"]) == (digest_of(model.path), model.path.stat().st_size)
    assert (shard["device"], shard["verified"]) == ("host", True)
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z", shard["sealed_at"])
    assert set(shard["timings_s"]) == {"load", "digest", "verify"}
    assert all(isinstance(seconds, float) and seconds > 0 for seconds in shard["timings_s"].values())
    assert set(shard["residency"]) >= {"policy", "facts"}
    assert shard["residency"]["policy"]["mode"] == "development"
    assert shard["residency"]["facts"]["seals"] == "seal,shrink,grow,write,exec"


def test_an_indexed_directory_gives_one_shard_per_file(tmp_path: Path, check: Any):
    split_model(MINILM.path, tmp_path)
    code, out, err = check(tmp_path, "--json")
    assert (code, err) == (0, "")
    document = json.loads(out)
    assert len(document["shards"]) == 3
    assert "digest" not in document
    assert sum(shard["tensors"] for shard in document["shards"]) == MINILM.tensors
    names = sorted(path.name for path in tmp_path.glob("*.safetensors"))
    assert [shard["model_ref"] for shard in document["shards"]] == names
    assert [shard["digest"] for shard in document["shards"]] == [digest_of(tmp_path / name) for name in names]
    code, out, err = check(tmp_path, "--expect", document["manifest_digest"])
    assert (code, err) == (0, "")
    assert "all 3 shards are in memory exactly as approved" in out


def test_a_person_is_told_format_digest_residency_and_verdict(tmp_path: Path, check: Any):
    path = write_model(tmp_path, 1000)
    code, out, err = check(path)
    assert (code, err) == (0, "")
    assert "safetensors, 1 tensor, " in out
    assert digest_of(path) in out
    assert "policy vram_only does not hold (host_memory), allowed by mode 'development'" in out
    verdict, advice, option = out.splitlines()[-3:]
    assert verdict == "VERIFIED: this shard is in memory exactly as sealed."
    assert advice.startswith("Next: ")
    assert option == f"--expect {digest_of(path)}"
    code, out, err = check(path, *option.split())
    assert (code, err) == (0, "")
    assert out.endswith("VERIFIED: this shard is in memory exactly as approved.\n")
    assert max(map(len, out.splitlines())) <= 80


@pytest.mark.parametrize("algorithm", ["blake3", "sha256"])
def test_another_file_than_the_approved_one_is_the_answer_no(algorithm: str, tmp_path: Path, check: Any):
    path = tmp_path / "model.bin"
    path.write_bytes(raw_bytes(1000))
    code, out, err = check(path, "--expect", f"{algorithm}:{'00' * 32}")
    assert (code, out) == (1, "")
    assert re.fullmatch(r"vram: error: digest mismatch: .*\nhint: .*\n", err)
    code, out, _ = check(path, "--expect", f"{algorithm}:{'00' * 32}", "--json")
    assert code == 1
    assert json.loads(out)["error"]["code"] == "digest_mismatch"


def test_sha256_can_be_the_digest_of_the_seal(tmp_path: Path, check: Any):
    path = tmp_path / "model.bin"
    path.write_bytes(raw_bytes(1000))
    _, out, _ = check(path, "--algorithm", "sha256", "--json")
    assert json.loads(out)["digest"] == f"sha256:{hashlib.sha256(path.read_bytes()).hexdigest()}"


@pytest.mark.filterwarnings("default::vram_residency.audit.KeyPlacementWarning")
def test_a_strict_policy_is_refused_on_the_host(tmp_path: Path, check: Any):
    path = write_model(tmp_path, 1000)
    code, out, err = check(path, "--device", "host", "--policy", "strict", "--audit", tmp_path / "audit")
    assert (code, out) == (3, "")
    assert "vram: error: policy 'vram_only' violated (host_memory)" in err
    code, out, _ = check(path, "--policy", "strict", "--json")
    assert code == 3
    assert json.loads(out)["error"]["code"] == "policy_violation"
    entries = entries_of(tmp_path / "audit")
    assert [entry["action_taken"] for entry in entries if entry["event_type"] == "policy_violation"] == [
        "worker_stopped"
    ]


@pytest.mark.filterwarnings("default::vram_residency.audit.KeyPlacementWarning")
def test_what_was_done_is_in_the_audit_log(tmp_path: Path, check: Any):
    path, log = write_model(tmp_path, 1000), tmp_path / "audit"
    assert check(path, "--audit", log)[0] == 0
    assert check(path, "--audit", log)[0] == 0
    bad = tmp_path / "bad.safetensors"
    bad.write_bytes(b"\xff" * 20)
    assert check(bad, "--audit", log)[0] == 2
    assert verify(log).verdict == "intact"
    entries = entries_of(log)
    names = [entry["event_type"] for entry in entries]
    assert names.count("vram_sealed") == names.count("seal_verified") == 2
    assert names.count("vram_deallocated") == 2
    assert names.count("malformed_model_rejected") == 1


def test_a_log_made_for_another_service_takes_the_record_too(tmp_path: Path, check: Any):
    """As it is made by `vram audit init`, with its keys elsewhere."""
    path, log, keys = write_model(tmp_path, 1000), tmp_path / "audit", tmp_path / "elsewhere"
    assert main(["audit", "init", str(log), "--service", "worker-gpu-0", "--keys", str(keys)]) == 0
    code, _, err = check(path, "--audit", log, "--keys", keys)
    assert (code, err) == (0, "")
    assert {entry["service_id"] for entry in entries_of(log)} == {"worker-gpu-0"}
    assert verify(log, keys=keys).verdict == "intact"


@pytest.mark.parametrize(
    "arguments",
    [
        ["/no/such/file"],
        ["."],
        ["/dev/zero"],
        ["--expect", "blake3:short"],
        ["--device", "tpu"],
        ["--format", "raw", "--no-such-option"],
        ["--algorithm", "md5"],
    ],
    ids=" ".join,
)
def test_bad_usage_is_two_lines_and_exit_code_2(arguments: list[str], tmp_path: Path, check: Any):
    path = write_model(tmp_path, 1000)
    words = arguments if not arguments[0].startswith("-") else [str(path), *arguments]
    if words == ["."]:
        words = [str(tmp_path / "empty")]
        Path(words[0]).mkdir()
    code, out, err = check(*words)
    assert (code, out) == (2, "")
    assert re.fullmatch(r"vram: error: .*\nhint: .*\n", err)


@pytest.mark.parametrize("option", [["--format", "raw"], ["--algorithm", "sha256"]], ids=" ".join)
def test_what_is_about_one_file_is_refused_for_a_directory(option: list[str], tmp_path: Path, check: Any):
    code, _, err = check(tmp_path, *option)
    assert (code, "about one file" in err) == (2, True)


def test_a_pipe_never_hangs_the_check(tmp_path: Path, check: Any):
    os.mkfifo(tmp_path / "pipe")
    code, _, err = check(tmp_path / "pipe")
    assert (code, "a named pipe" in err) == (2, True)


SAMPLED = [file for number, file in enumerate(corpus()) if number % 20 == 0 or file.size_bytes]


@pytest.mark.parametrize("file", SAMPLED, ids=lambda file: file.name)
def test_a_hostile_file_is_one_line_of_error_and_exit_code_2(file: HostileFile, tmp_path: Path, check: Any):
    path = file.write(tmp_path)
    code, out, err = check(path)
    assert (code, out) == (2, "")
    assert re.fullmatch(r"vram: error: .*malformed model at byte \d+: .*\nhint: .*\n", err)
    assert "Traceback" not in err


def test_a_hostile_file_is_one_json_document_too(tmp_path: Path, check: Any):
    for file in islice(corpus(), 0, None, 200):
        code, out, err = check(file.write(tmp_path), "--json")
        assert (code, err) == (2, "")
        assert set(json.loads(out)["error"]) == {"code", "message", "hint"}
        assert json.loads(out)["error"]["code"] == "malformed_model"


def test_a_hostile_name_stays_on_its_line(tmp_path: Path, check: Any):
    path = Path(os.fsdecode(os.fsencode(tmp_path) + b"/a\n\x1b[31mred\xff.safetensors"))
    path.write_bytes(b"\xff" * 20)
    code, _, err = check(path)
    assert code == 2
    assert len(err.splitlines()) == 2
    assert "\x1b" not in err
    good = Path(os.fsdecode(os.fsencode(tmp_path) + b"/b\n\x1b[31mred\xff.bin"))
    good.write_bytes(b"bytes")
    code, out, err = check(good)
    assert (code, err) == (0, "")
    assert "\x1b" not in out
    assert len(out.splitlines()) == 9


def test_the_program_itself_narrates_on_stderr_and_answers_on_stdout(tmp_path: Path):
    command = [sys.executable, "-m", "vram_residency", "check", write_model(tmp_path, 1000), "--json"]
    done = subprocess.run([*command, "--narrate", "info"], capture_output=True, text=True, check=True)
    assert json.loads(done.stdout)["verified"] is True
    assert re.search("Sealed model shard '.*' in .* host memory on host", done.stderr)
    quiet = subprocess.run(command, capture_output=True, text=True, check=True)
    assert quiet.stderr == ""


def test_a_model_that_does_not_fit_is_told_to_come_back_later(tmp_path: Path, check: Any):
    path = tmp_path / "vast.bin"
    path.touch()
    os.truncate(path, 99 << 30)
    code, out, err = check(path)
    assert (code, out) == (4, "")
    assert err.startswith("vram: error: not enough device memory: 106300440576 bytes requested, ")
