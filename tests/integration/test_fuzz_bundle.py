"""A short run of the fuzz target of proof bundles, so that it stays alive; long runs are made by hand."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

FUZZ = Path(__file__).parents[2] / "fuzz"


def test_malformed_bundles_are_refused_in_their_own_words() -> None:
    command = [sys.executable, str(FUZZ / "fuzz_bundle.py"), "--runs", "3000", "--seed", "7"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "3000 files" in done.stdout
