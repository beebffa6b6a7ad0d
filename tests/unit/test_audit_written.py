"""Hooks of AuditLogger.on_written: every durable entry, once, in order, and no harm to the log."""

from __future__ import annotations

import json
import threading
from collections.abc import Sequence
from pathlib import Path

import pytest

from vram_residency import AuditLogger
from vram_residency.audit.events import ShardQuarantined
from vram_residency.audit.reading.query import query
from vram_residency.audit.writing.options import LogOptions
from vram_residency.testing import MemoryLog


def event(number: int) -> ShardQuarantined:
    return ShardQuarantined(shard_id=f"{number:06}", reason="r", worker_id="w")


@pytest.fixture
def log(tmp_path: Path) -> AuditLogger:
    with pytest.warns(match="key"):
        return AuditLogger.open(
            tmp_path / "log", service_id="s", create=True, options=LogOptions(background=False)
        )


def test_every_line_is_told_once_and_in_order(log: AuditLogger, tmp_path: Path):
    """Those of the log itself too: a key's change, the end of the epoch and of the log."""
    told: list[bytes] = []
    before = list(query(tmp_path / "log"))
    log.on_written(lambda lines, _duration_s: told.extend(lines))
    log.emit(event(1))
    assert told == []
    log.emit(event(2), durable=True)
    assert len(told) == 2
    log.rotate_key()
    log.close()
    assert [*before, *told] == list(query(tmp_path / "log"))


def test_order_holds_when_many_threads_write(log: AuditLogger):
    told: list[int] = []
    log.on_written(lambda lines, _duration_s: told.extend(json.loads(line)["index"] for line in lines))
    threads = [
        threading.Thread(target=lambda: [log.emit(event(number), durable=True) for number in range(20)])
        for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    log.close()
    assert told == list(range(told[0], told[0] + len(told)))
    assert len(told) == 80 + 2


def test_a_hook_may_emit_and_flush_and_may_fail(log: AuditLogger):
    """Neither a deadlock nor a loss follows."""
    told: list[int] = []

    def hook(lines: Sequence[bytes], duration_s: float) -> None:
        assert duration_s >= 0
        told.extend(json.loads(line)["index"] for line in lines)
        if len(told) < 3:
            log.emit(event(len(told)))
            log.flush()
        raise RuntimeError("a hook's own fault")

    log.on_written(hook)
    log.emit(event(0), durable=True)
    assert len(told) == 3
    log.close()


def test_the_double_tells_too_and_the_disabled_log_tells_nobody():
    told: list[bytes] = []
    log = MemoryLog()
    log.on_written(lambda lines, _duration_s: told.extend(lines))
    log.emit(event(7))
    assert json.loads(told[0])["shard_id"] == "000007"
    AuditLogger.disabled().on_written(lambda lines, _duration_s: told.extend(lines))
    AuditLogger.disabled().emit(event(8))
    assert len(told) == 1
