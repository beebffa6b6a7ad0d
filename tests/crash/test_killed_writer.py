"""A real process writes and is killed with SIGKILL; a forked child does not disturb its parent's log."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from tests.audit_logs import event_types, make_log, open_log, reference_check, sealed

from vram_residency.core.errors import LogClosedError

WRITER = """
import sys
from vram_residency.audit.log import AuditLogger
from vram_residency.audit.events.vram import VramSealed

folder, mode = sys.argv[1:]
logger = AuditLogger.open(folder + "/log", service_id="worker-gpu-0", keys=folder + "/keys")
number = 0
while mode != "exit" or number < 5:
    event = VramSealed(shard_id=f"shard-{number}", gpu_device=0, vram_bytes=1, digest="d", worker_id="w")
    if mode == "durable":
        logger.emit(event, durable=True)
    else:
        logger.emit(event)
        if mode == "flush" and number % 7 == 0:
            logger.flush()
    if mode != "flush" or number % 7 == 0:
        print(number, flush=True)
    number += 1
"""


def _writer(folder: Path, mode: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", WRITER, str(folder), mode], stdout=subprocess.PIPE, text=True
    )


@pytest.mark.parametrize("mode", ["durable", "flush"])
@pytest.mark.parametrize("after", [1, 8, 40])
def test_what_was_acknowledged_before_a_kill_is_there(tmp_path: Path, mode: str, after: int) -> None:
    make_log(tmp_path)
    acknowledged = -1
    for _ in range(2):
        with _writer(tmp_path, mode) as process:
            assert process.stdout is not None
            for _ in range(after):
                acknowledged = int(process.stdout.readline())
            process.send_signal(signal.SIGKILL)
            process.wait()
            for line in process.stdout.read().split("\n")[:-1]:
                acknowledged = int(line)
        open_log(tmp_path).close()
        entries = reference_check(tmp_path)
        last_opening = [entry["index"] for entry in entries if entry["event_type"] == "log_opened"][-1]
        shards = [entry["shard_id"] for entry in entries[:last_opening] if "shard_id" in entry]
        own = shards[-(shards[::-1].index("shard-0") + 1) :]
        assert own == [f"shard-{number}" for number in range(len(own))]
        assert len(own) > acknowledged
        assert entries[last_opening]["clean"] is False


def test_a_log_that_nobody_closed_is_closed_at_exit(tmp_path: Path) -> None:
    make_log(tmp_path)
    with _writer(tmp_path, "exit") as process:
        assert process.wait() == 0
    reference_check(tmp_path)
    assert event_types(tmp_path) == ["log_opened", *["vram_sealed"] * 5, "log_closed", "epoch_closed"]


def test_a_forked_child_gets_a_closed_logger_and_the_parent_keeps_the_lock(tmp_path: Path) -> None:
    logger = open_log(tmp_path)
    logger.emit(sealed(1))
    child = os.fork()
    if child == 0:  # pragma: no cover - coverage does not follow
        findings = 1
        try:
            findings = _child_findings(tmp_path, logger)
        finally:
            os._exit(findings)  # nothing of the test run may go on in the child
    _, status = os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(status) == 0
    logger.emit(sealed(2), durable=True)
    logger.close()
    reference_check(tmp_path)
    assert event_types(tmp_path) == ["log_opened", "vram_sealed", "vram_sealed", "log_closed", "epoch_closed"]


def _child_findings(folder: Path, logger: object) -> int:
    """0 if the child's logger is closed and the log still locked by the parent."""
    from vram_residency.audit.log import AuditLogger
    from vram_residency.core.errors import LogLockedError

    assert isinstance(logger, AuditLogger)
    for call in (logger.flush, lambda: logger.emit(sealed())):
        try:
            call()
        except LogClosedError:
            continue
        return 1
    logger.close()
    if any(str(folder) in target for target in _open_files()):
        return 2
    try:
        open_log(folder)
    except LogLockedError:
        return 0
    return 3


def _open_files() -> list[str]:
    found = []
    for link in Path("/proc/self/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):  # the descriptor of this very listing
            found.append(str(link.readlink()))
    return found
