"""``vram digest`` and ``vram devices`` as a user runs them."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path

import blake3
import pytest

from vram_residency.cli.errors import ExitCode
from vram_residency.cli.main import main

KIB = 1024
SIZES = [
    0,
    1,
    63,
    64,
    65,
    *(n + d for n in (KIB, 2 * KIB, 128 * KIB, 256 * KIB) for d in (-1, 0, 1)),
    300_000,
]


def file_of(path: Path, size_bytes: int) -> bytes:
    data = bytes(index % 251 for index in range(size_bytes))
    path.write_bytes(data)
    return data


@pytest.mark.parametrize("size_bytes", SIZES)
def test_every_size_agrees_with_the_official_library(
    size_bytes: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Around the edges of blocks, chunks and groups: `<hex>  <path>`, as b3sum prints it."""
    path = tmp_path / "file"
    data = file_of(path, size_bytes)
    assert main(["digest", str(path)]) == ExitCode.DONE
    assert capsys.readouterr().out == f"{blake3.blake3(data).hexdigest()}  {path}\n"


def test_sha256_is_what_sha256sum_prints(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """For comparison with what model hubs publish."""
    path = tmp_path / "file"
    data = file_of(path, 5000)
    assert main(["digest", "--algorithm", "sha256", str(path)]) == ExitCode.DONE
    assert capsys.readouterr().out == f"{hashlib.sha256(data).hexdigest()}  {path}\n"


def test_names_are_escaped_as_b3sum_does(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Backslash, newline and carriage return, with a backslash in front of the line; bad UTF-8 as U+FFFD."""
    monkeypatch.chdir(tmp_path)
    name = os.fsdecode(b"a\\b\nc\rd\xff")
    file_of(Path(name), 1)
    assert main(["digest", name]) == ExitCode.DONE
    assert capsys.readouterr().out == f"\\{blake3.blake3(bytes(1)).hexdigest()}  a\\\\b\\nc\\rd\ufffd\n"


def test_a_terminal_is_not_written_to_by_a_file_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """On a terminal, and only there, control characters are made visible."""
    monkeypatch.chdir(tmp_path)
    file_of(Path("\x1b[2Jx"), 1)
    main(["digest", "\x1b[2Jx"])
    assert "\x1b[2Jx" in capsys.readouterr().out
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True, raising=False)
    main(["digest", "\x1b[2Jx"])
    assert "\\u{001B}[2Jx" in capsys.readouterr().out


def test_json_lists_the_files_and_repeats_a_single_one(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The digest carries its algorithm; one file's fields stand at the top as well."""
    first, second = tmp_path / "a", tmp_path / "b"
    digests = [
        f"blake3:{blake3.blake3(file_of(path, size)).hexdigest()}" for path, size in ((first, 1), (second, 2))
    ]
    assert main(["digest", "--json", str(first), str(second)]) == ExitCode.DONE
    document = json.loads(capsys.readouterr().out)
    assert document["files"] == [
        {"path": str(first), "digest": digests[0]},
        {"path": str(second), "digest": digests[1]},
    ]
    assert "digest" not in document
    assert main(["digest", "--json", str(first)]) == ExitCode.DONE
    assert json.loads(capsys.readouterr().out)["digest"] == digests[0]


def test_what_is_no_file_is_a_usage_error(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Missing, a directory, a pipe that nobody writes: exit code 2, one line, no waiting."""
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "missing", tmp_path, tmp_path / "pipe"):
        assert main(["digest", str(path)]) == ExitCode.USAGE
        lines = capsys.readouterr().err.splitlines()
        assert [line.partition(":")[0] for line in lines] == ["vram", "hint"]


def test_the_host_is_listed_and_says_that_it_is_not_vram(capsys: pytest.CaptureFixture[str]) -> None:
    """Allowed by configuration, with the reason."""
    assert main(["devices", "--json"]) == ExitCode.DONE
    host = json.loads(capsys.readouterr().out)["devices"][0]
    assert (host["device"], host["policy"]["verdict"]) == ("host", "allowed_by_configuration")
    assert host["policy"]["reasons"][0]["violation"] == "host_memory"
    assert host["total_bytes"] > 0


def test_a_strict_policy_refuses_the_host(capsys: pytest.CaptureFixture[str]) -> None:
    """The list is printed, and the exit code says that nothing in it is allowed."""
    assert main(["devices", "--policy", "strict"]) == ExitCode.POLICY
    captured = capsys.readouterr()
    assert "refused" in captured.out
    assert captured.err == ""


def test_names_are_written_as_utf_8_whatever_the_locale(tmp_path: Path) -> None:
    """`b3sum --check` must find the file again; an escape of ours would name another one."""
    path = tmp_path / "modèle.bin"
    path.write_bytes(b"x")
    done = subprocess.run(
        [sys.executable, "-m", "vram_residency", "digest", path],
        env={**os.environ, "PYTHONIOENCODING": "ascii"},
        capture_output=True,
        check=True,
    )
    assert done.stdout == f"{blake3.blake3(b'x').hexdigest()}  {path}\n".encode()
