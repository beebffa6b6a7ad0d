"""Processes that emit from several threads are killed at random moments, hundreds of times."""

from __future__ import annotations

import contextlib
import mmap
import os
import random
import signal
import struct
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.audit_logs import make_log, open_log, reference_check, sealed

from vram_residency.core.errors import BufferFullError

THREADS = 3
KILLS = 25
_COUNTERS = struct.Struct(f"<{THREADS}Q")


def _emit_until_killed(folder: Path, run: int, accepted: memoryview) -> None:
    """In the child: each thread counts in shared memory what emit() has returned for."""
    # A small batch and a small buffer: the kill comes in every phase of a commit, and the ring goes around.
    logger = open_log(folder, background=True, max_events=20, capacity=200)

    def emit(thread: int) -> None:
        number = 0
        while True:
            with contextlib.suppress(BufferFullError):
                logger.emit(sealed(shard_id=f"{run}-{thread}-{number}"))
                number += 1
                accepted[thread] = number
            # Short enough for some events between two commits, long enough for a log that is soon checked.
            time.sleep(0.00005)

    for thread in range(THREADS):
        threading.Thread(target=emit, args=(thread,), daemon=True).start()
    signal.pause()


@contextlib.contextmanager
def _killed_after(folder: Path, run: int, seconds: float) -> Iterator[tuple[int, ...]]:
    """How many events each thread of a child had accepted when it was killed, so long after its first."""
    with mmap.mmap(-1, mmap.PAGESIZE) as shared:
        child = os.fork()
        if child == 0:  # pragma: no cover - coverage does not follow
            try:
                _emit_until_killed(folder, run, memoryview(shared).cast("Q"))
            finally:
                os._exit(1)
        try:
            while not any(shared[: _COUNTERS.size]) and os.waitpid(child, os.WNOHANG) == (0, 0):
                time.sleep(0.0005)
            time.sleep(seconds)
        finally:
            os.kill(child, signal.SIGKILL)
        _, status = os.waitpid(child, 0)
        assert os.waitstatus_to_exitcode(status) == -signal.SIGKILL
        yield _COUNTERS.unpack_from(shared)


@pytest.mark.parametrize("seed", range(8))
def test_every_event_whose_emit_returned_is_in_the_log_once_and_in_order(tmp_path: Path, seed: int) -> None:
    random_s = random.Random(seed)
    make_log(tmp_path)
    accepted: dict[tuple[int, int], int] = {}
    for run in range(KILLS):
        with _killed_after(tmp_path, run, random_s.uniform(0, 0.004)) as counts:
            accepted.update({(run, thread): count for thread, count in enumerate(counts)})
    open_log(tmp_path).close()
    found: dict[tuple[int, int], list[int]] = {place: [] for place in accepted}
    entries = reference_check(tmp_path)
    for entry in entries:
        if "shard_id" in entry:
            run, thread, number = map(int, entry["shard_id"].split("-"))
            found[run, thread].append(number)
    for place, count in accepted.items():
        assert found[place] == list(range(len(found[place]))), f"run, thread {place}"
        # One event may be on its way when the kill comes: in the log, but not yet counted.
        assert count <= len(found[place]) <= count + 1, f"run, thread {place}"
    openings = [entry for entry in entries if entry["event_type"] == "log_opened"]
    assert len(openings) == KILLS + 1
    assert [entry["clean"] for entry in openings[1:]] == [False] * KILLS
    assert sum(entry["recovered_events"] for entry in openings) > KILLS
