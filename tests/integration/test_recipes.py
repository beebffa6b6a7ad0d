"""The recipes of the format pages, run as they stand there: an auditor has nothing else."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from tests.audit_logs import ManualClock
from tests.day_logs import Lab

from vram_residency.audit.exporting.export import Export
from vram_residency.audit.publishing.signed_log import SignedLog
from vram_residency.audit.reading.query import query
from vram_residency.cli.main import main

PAGES = Path(__file__).parents[2] / "docs" / "format"
TOOLS = ("sha256sum", "jq", "xxd", "openssl", "unzip")
needs_tools = pytest.mark.skipif(
    any(shutil.which(tool) is None for tool in TOOLS), reason=f"needs {', '.join(TOOLS)}"
)


def _blocks(page: str, heading: str) -> list[str]:
    text = (PAGES / page).read_text("utf-8").partition(f"\n## {heading}\n")[2]
    return re.findall(r"^```\w+\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)


def _run(*words: str, cwd: Path) -> str:
    ran = subprocess.run(words, check=False, cwd=cwd, capture_output=True, text=True, timeout=60)
    assert (ran.returncode, ran.stderr) == (0, ""), ran.stderr
    return ran.stdout


def _refuses(words: list[str], folder: Path) -> bool:
    ran = subprocess.run(words, check=False, cwd=folder, capture_output=True, timeout=60)
    return ran.returncode == 1 and b"AssertionError: " in ran.stderr


@pytest.fixture
def example(tmp_path: Path) -> tuple[Path, list[str]]:
    """The log that the page shows, and the page's blocks from its first to its last."""
    blocks = _blocks("audit-log.md", "A log, checked by hand")
    (tmp_path / "audit" / "entries").mkdir(parents=True)
    for name, text in zip(
        ("log.json", "entries/00000000000000000000.jsonl", "checkpoint"), blocks[1:4], strict=True
    ):
        (tmp_path / "audit" / name).write_text(text, "utf-8")
    (tmp_path / "check_log.py").write_text(blocks[6], "utf-8")
    return tmp_path, blocks


@needs_tools
@pytest.mark.parametrize("shell", ["sh", "bash"])
def test_the_shell_gives_what_the_page_shows(example: tuple[Path, list[str]], shell: str) -> None:
    folder, blocks = example
    assert _run(shell, "-c", blocks[4], cwd=folder) == blocks[5]


def test_the_script_gives_what_the_page_shows(example: tuple[Path, list[str]]) -> None:
    folder, blocks = example
    command, shown = blocks[7].splitlines()
    assert _run(sys.executable, *command.split()[2:], cwd=folder) == shown + "\n"


@pytest.mark.skipif(shutil.which("zstd") is None, reason="needs zstd")
def test_the_script_checks_archived_and_pruned_logs(
    example: tuple[Path, list[str]], capsys: pytest.CaptureFixture[str]
) -> None:
    folder, _ = example
    lab = Lab(folder / "days", ManualClock())
    words = [sys.executable, "check_log.py", str(lab.directory), lab.k0.hex()]
    whole = _run(*words, cwd=folder)
    assert main(["audit", "archive", str(lab.directory), "--older-than-days", "2"]) == 0
    assert list((lab.directory / "entries").glob("*.zst"))
    assert _run(*words, cwd=folder) == whole
    lab.prune()
    pruned = _run(*words, cwd=folder)
    assert int(pruned.split()[0]) > int(whole.split()[0])
    # A leaf hash that was changed, a record that is gone: the script says no.
    leaves = min((lab.directory / "tree").glob("*.leaves"))
    kept = leaves.read_bytes()
    leaves.write_bytes(bytes([kept[0] ^ 1]) + kept[1:])
    assert _refuses(words, folder)
    leaves.write_bytes(kept)
    min((lab.directory / "entries").iterdir()).unlink()
    assert _refuses(words, folder)
    capsys.readouterr()


@needs_tools
def test_an_exported_line_gives_its_leaf_hash(tmp_path: Path) -> None:
    lab = Lab(tmp_path, ManualClock())
    origin = SignedLog.open(lab.directory).origin
    lines = Export(origin, query(lab.directory)).encoded("jsonl")
    (tmp_path / "exported.jsonl").write_bytes(b"".join(lines))
    recipe = [line for line in _blocks("exports.md", "jsonl")[1].splitlines() if "vram" not in line]
    ours, theirs = _run("bash", "-c", "\n".join(recipe), cwd=tmp_path).split("  -\n")
    assert ours == theirs.strip()


@needs_tools
def test_a_bundle_is_read_with_stock_tools(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lab = Lab(tmp_path, ManualClock())
    assert main(["proof", "export", "2", str(tmp_path / "bundle.zip"), "--audit", str(lab.directory)]) == 0
    capsys.readouterr()
    # Nothing is attached to this one.
    recipe = [
        line for line in _blocks("proof-bundle.md", "4. By hand")[0].splitlines() if "residency" not in line
    ]
    said = _run("bash", "-c", "\n".join(recipe), cwd=tmp_path)
    bundle = json.loads((tmp_path / "b" / "bundle.json").read_bytes())
    assert bundle["entries"][0]["leaf_hash"] in said.split()
