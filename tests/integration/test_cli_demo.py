"""``vram demo``: the whole story, run as people run it."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.hostile import good_gguf
from tests.models import MINILM, SILERO
from tests.shards import write_model

from vram_residency.cli.main import main
from vram_residency.cli.minilm import WordPiece, embed


def run(*arguments: str | Path, code: int = 0) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "vram_residency", "demo", *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == code, done.stderr
    return done


def test_the_demo_tells_the_whole_story_on_a_real_model():
    done = run()
    assert done.stderr == ""
    for words in (
        "model.safetensors (safetensors, ",
        "memfd, read-only",
        "host memory, not VRAM",
        "refused    by the kernel: Operation not permitted",
        "every byte",
        "+0.7",
        "CAUGHT     digest_mismatch: damage in bytes",
        "execution refused",
        "vram_sealed",
        "seal_verification_failed",
        "intact:",
        "Done in ",
    ):
        assert words in done.stdout, words
    assert "\x1b" not in done.stdout
    lines = done.stdout.splitlines()
    assert max(map(len, lines)) <= 80
    assert [line for line in lines if line != line.rstrip()] == []


def test_the_demo_is_one_json_document_with_the_same_facts():
    document: dict[str, Any] = json.loads(run("--json", "--model", SILERO.path).stdout)
    assert (document["model"], document["tensors"]) == (SILERO.path.name, SILERO.tensors)
    assert document["write_refused"] is True
    assert document["caught"] is True
    assert document["audit"]["verdict"] == "intact"
    assert document["reason"] == "digest_mismatch"
    assert document["tensors_damaged"]
    assert {name: each["scope"] for name, each in document["verifications"].items()} == {
        "full": "full", "fast": "full", "sample": "sample",
    }  # fmt: skip


@pytest.mark.parametrize("kind", ["safetensors", "gguf", "raw"])
def test_the_demo_takes_any_model(
    kind: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    path = tmp_path / f"model.{kind}"
    path = write_model(tmp_path, 1000) if kind == "safetensors" else path
    if kind != "safetensors":
        path.write_bytes(good_gguf() if kind == "gguf" else b"just bytes")
    assert main(["demo", "--json", "--model", str(path)]) == 0
    assert json.loads(capsys.readouterr().out)["caught"] is True
    assert [each for each in tmp_path.iterdir() if each != path] == []


@pytest.mark.parametrize(
    ("content", "code"), [(None, 2), (b"\xff" * 30, 2), (b"", 2)], ids=["missing", "malformed", "empty"]
)
def test_a_model_that_cannot_be_told_about_is_refused_in_two_lines(
    content: bytes | None, code: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    path = tmp_path / "model.safetensors"
    if content is not None:
        path.write_bytes(content)
    assert main(["demo", "--model", str(path)]) == code
    assert re.search(r"vram: error: .*\nhint: .*\n\Z", capsys.readouterr().err)


def test_the_engine_of_the_demo_finds_the_meaning_of_sentences():
    from safetensors.numpy import load_file

    tokenizer = WordPiece(MINILM.path.parent / "vocab.txt")
    weights = load_file(MINILM.path).__getitem__
    texts = ("A man is eating food.", "A man eats something.", "The stock market fell sharply.")
    first, near, far = (embed(tokenizer.encode(text), weights) for text in texts)
    assert first.shape == (384,)
    assert np.linalg.norm(first) == pytest.approx(1, abs=1e-5)
    assert first @ near > 0.6
    assert first @ far < 0.3


def test_the_tokenizer_cuts_words_into_known_pieces(tmp_path: Path):
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "play", "##ing", "cafe", "!"]
    (tmp_path / "vocab.txt").write_text("\n".join(words))
    tokenizer = WordPiece(tmp_path / "vocab.txt")
    assert tokenizer.encode("Playing CAFÉ! zzz") == [2, 4, 5, 6, 7, 1, 3]
    assert len(tokenizer.encode("play " * 1000)) == 512
