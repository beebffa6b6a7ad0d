"""Sealed memory under attack from its own process: nothing writes to it, and a swapped view is noticed."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from tests.memory_attacks import SWAPS, WRITES

ROOT = Path(__file__).parents[2]

# Raises nothing: it changes a copy.
HARMLESS = {"map_the_path_privately"}
FATAL = {"store_to_the_address"}


def attacked(name: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "tests.memory_attacks", name]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)


def report_of(name: str) -> dict[str, Any]:
    result = attacked(name)
    assert result.returncode == 0, result.stderr
    report: dict[str, Any] = json.loads(result.stdout)
    return report


@pytest.mark.parametrize("name", sorted(WRITES.keys() - FATAL - HARMLESS))
def test_a_write_is_refused(name: str) -> None:
    """The kernel or Python says no, the bytes stay, and the memory still checks as sealed."""
    report = report_of(name)
    assert report["raised"] is not None
    assert report["unchanged"] is True
    assert report["finding"] is None


@pytest.mark.parametrize("name", sorted(HARMLESS))
def test_a_private_copy_changes_alone(name: str) -> None:
    """What a process maps privately is its own: the sealed bytes stay."""
    assert report_of(name) == {"raised": None, "unchanged": True, "finding": None}


def test_a_store_to_the_address_ends_the_process() -> None:
    """The hardware refuses it."""
    assert attacked("store_to_the_address").returncode == -signal.SIGSEGV


@pytest.mark.parametrize("name", sorted(SWAPS))
def test_a_swap_is_noticed(name: str) -> None:
    """Whatever lies at the addresses, behind the path, or is no longer locked: the check says so."""
    report = report_of(name)
    assert report["raised"] is None
    assert report["finding"] is not None
    assert "0x" not in report["finding"]
    if name.startswith("unlock"):
        assert "lock state" in report["finding"]
