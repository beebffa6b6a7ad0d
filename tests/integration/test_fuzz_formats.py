"""A short run of the fuzz targets of the formats, so that they stay alive; long runs are made by hand."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

FUZZ = Path(__file__).parents[2] / "fuzz"


@pytest.mark.parametrize("target", ["fuzz_safetensors.py", "fuzz_gguf.py"])
def test_a_fuzz_target_runs_and_finds_nothing(target: str) -> None:
    """Some files are accepted, so that the comparison with the library takes place."""
    command = [sys.executable, str(FUZZ / target), "--runs", "3000", "--seed", "7"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    found = re.fullmatch(r"3000 files: (\d+) accepted, (\d+) refused\n", done.stdout)
    assert found, done.stdout + done.stderr
    assert int(found[1]) > 0
    assert int(found[2]) > 2000
