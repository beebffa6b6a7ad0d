"""Processes that die: what was found is on disk at once, and what ends in order is audited."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from tests.audit_logs import make_log, open_log, read_entries, reference_check

from vram_residency.audit import verify

PRELUDE = """
import os, sys, warnings
from pathlib import Path
from tests.shards import TOKEN, raw_bytes
from vram_residency import AuditLogger, SealVerificationError, VramManager
from vram_residency.testing import FaultDevice

folder = Path(sys.argv[1])
logger = AuditLogger.open(folder / "log", service_id="worker-gpu-0", keys=folder / "keys")
device = FaultDevice(capacity_bytes=1 << 24)
manager = VramManager.new_with_token(TOKEN, 0, logger, device=device)
shard = manager.seal_model(raw_bytes(1000), shard_id="m")
"""


def start(folder: Path, body: str) -> subprocess.Popen[str]:
    make_log(folder)
    return subprocess.Popen(
        [sys.executable, "-W", "error", "-c", PRELUDE + body, str(folder)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=Path(__file__).parents[2],
    )


def run(folder: Path, body: str) -> tuple[int, str]:
    with start(folder, body) as process:
        _, stderr = process.communicate(timeout=60)
    return process.returncode, stderr


def event_types(folder: Path) -> list[str]:
    return [entry["event_type"] for entry in read_entries(folder)]


def only(folder: Path, event_type: str) -> dict[str, Any]:
    (entry,) = [entry for entry in read_entries(folder) if entry["event_type"] == event_type]
    return entry


@pytest.mark.parametrize("scope", ["full", "sample"])
def test_damage_survives_a_kill_right_after_it_was_found(tmp_path: Path, scope: str):
    body = f"""
device.flip_bit("m", 5)
try:
    manager.verify_sealed(shard, scope={scope!r})
except SealVerificationError:
    print("caught", flush=True)
    sys.stdin.read()
    import signal
    signal.pause()
"""
    with start(tmp_path, body) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "caught\n"
        process.send_signal(signal.SIGKILL)
        process.communicate(timeout=60)
    assert process.returncode == -signal.SIGKILL
    assert event_types(tmp_path)[-2:] == ["seal_verification_failed", "shard_quarantined"]
    assert only(tmp_path, "seal_verification_failed")["shard_id"] == "m"
    # The next writer takes the log over as it was left, and it verifies.
    with open_log(tmp_path):
        pass
    reference_check(tmp_path)
    assert verify(tmp_path / "log", keys=tmp_path / "keys").verdict == "intact"


def test_an_interpreter_that_just_ends_frees_and_audits_before_the_log_closes(tmp_path: Path):
    code, _ = run(tmp_path, "")
    assert code == 0
    assert event_types(tmp_path)[-3:] == ["vram_deallocated", "log_closed", "epoch_closed"]
    assert only(tmp_path, "vram_deallocated")["remaining_used"] == 0
    reference_check(tmp_path)


@pytest.mark.parametrize("end", ["raise SystemExit(3)", "raise ValueError('a bug of the caller')"])
def test_an_end_by_an_exception_is_audited_as_well(tmp_path: Path, end: str):
    code, _ = run(tmp_path, end)
    assert code != 0
    assert event_types(tmp_path)[-3:] == ["vram_deallocated", "log_closed", "epoch_closed"]


@pytest.mark.parametrize("hold", ["views.whole", "views['t']"], ids=["view", "adopted"])
def test_views_that_live_to_the_end_do_not_keep_the_free_from_being_audited(tmp_path: Path, hold: str):
    body = f"""
shard = manager.seal_tensors({{"t": bytearray(10)}}) if "t" in {hold!r}[5:] else shard
with manager.execution(shard) as views:
    kept = memoryview({hold})
"""
    code, stderr = run(tmp_path, body)
    assert (code, "Traceback" in stderr) == (0, False), stderr
    freed = [entry for entry in read_entries(tmp_path) if entry["event_type"] == "vram_deallocated"]
    assert sum(entry["freed_bytes"] for entry in freed) == 1000
    assert event_types(tmp_path)[-2:] == ["log_closed", "epoch_closed"]


def test_views_that_live_beyond_close_are_audited_at_the_end(tmp_path: Path):
    body = """
with manager.execution(shard) as views:
    kept = views.whole
manager.close()
"""
    code, stderr = run(tmp_path, body)
    assert (code, "Traceback" in stderr) == (0, False), stderr
    assert only(tmp_path, "vram_deallocated")["shard_id"] == "m"


def test_a_block_that_never_ends_is_audited_at_the_end(tmp_path: Path):
    body = """
block = manager.execution(shard)
views = block.__enter__()
"""
    code, stderr = run(tmp_path, body)
    assert (code, "Traceback" in stderr) == (0, False), stderr
    assert only(tmp_path, "vram_deallocated")["shard_id"] == "m"


def test_a_scrubber_does_not_keep_the_interpreter_alive(tmp_path: Path):
    code, _ = run(tmp_path, "manager.scrub(interval_s=0.001, share=1.0)\n")
    assert code == 0
    assert event_types(tmp_path)[-3:] == ["vram_deallocated", "log_closed", "epoch_closed"]


def test_a_forked_child_neither_frees_nor_audits_what_is_its_parents(tmp_path: Path):
    body = """
child = os.fork()
if child == 0:
    manager.close()
    sys.exit(0)
_, status = os.waitpid(child, 0)
assert status == 0, status
manager.verify_sealed(shard)
"""
    # From 3.12 on Python warns of forking beside threads, which is what is tried here.
    code, stderr = run(tmp_path, "warnings.simplefilter('ignore', DeprecationWarning)\n" + body)
    assert code == 0, stderr
    assert event_types(tmp_path).count("vram_deallocated") == 1
    assert event_types(tmp_path)[-4:] == ["seal_verified", "vram_deallocated", "log_closed", "epoch_closed"]
