"""The start of the program, counted in modules: unlike seconds, a count is the same on every machine."""

from __future__ import annotations

import subprocess
import sys

import pytest

#: What costs tens of milliseconds, or drags such things in (performance.md).
HEAVY = {
    "asyncio",
    "blake3",
    "cryptography",
    "importlib.metadata",
    "msgspec",
    "multiprocessing",
    "numpy",
    "rich",
    "ssl",
    "structlog",
    "urllib.request",
}
MODULES_MAX = 160


def modules_after(*arguments: str) -> set[str]:
    """The names of all modules that are loaded when ``vram`` has run with the arguments."""
    code = (
        "import sys; from vram_residency.cli.main import main; code = main(sys.argv[1:]);"
        "sys.stderr.write('\\n'.join(sys.modules)); sys.exit(code)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=True
    )
    return set(done.stderr.split())


@pytest.mark.parametrize("arguments", [["--help"], ["--version"], ["digest", "--help"], []])
def test_help_and_version_load_nothing_heavy(arguments: list[str]) -> None:
    """What only prints text needs no cryptography, no tables and no event loop."""
    assert modules_after(*arguments).isdisjoint(HEAVY)


def test_help_loads_few_modules_in_all() -> None:
    """A new import at the top of some module shows here."""
    assert len(modules_after("--help")) <= MODULES_MAX


def test_help_imports_no_command() -> None:
    """The list of commands is a table; the commands themselves stay on disk."""
    own = {name for name in modules_after("--help") if name.startswith("vram_residency.")}
    assert own == {
        "vram_residency.cli",
        "vram_residency.cli.errors",
        "vram_residency.cli.lazy",
        "vram_residency.cli.main",
        "vram_residency.cli.output",
        "vram_residency.core",
        "vram_residency.core.errors",
        "vram_residency.core.lazy_names",
        "vram_residency.core.version",
    }
