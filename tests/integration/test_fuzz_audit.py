"""A short run of the fuzz target of audit logs, so that it stays alive; long runs are made by hand."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

FUZZ = Path(__file__).parents[2] / "fuzz"


def test_malformed_logs_always_get_a_verdict() -> None:
    command = [sys.executable, str(FUZZ / "fuzz_audit_verify.py"), "--runs", "400", "--seed", "7"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    for word in ("intact", "tampered", "truncated", "unverifiable"):
        assert word in done.stdout


def test_malformed_logs_and_keys_never_give_the_user_a_traceback() -> None:
    command = [sys.executable, str(FUZZ / "fuzz_audit_cli.py"), "--runs", "400", "--seed", "1"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    for word in ("intact", "tampered", "truncated", "unverifiable", "invalid_input"):
        assert word in done.stdout
