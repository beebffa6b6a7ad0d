"""SIGKILL at random moments under load: processes that emit from several threads die by the thousand.

``python -m tests.faults.kills --runs 1000 --seed 1`` from the repository's root. Every few kills the log is
opened, verified, and every event that a thread had counted as acknowledged is looked for.
"""

from __future__ import annotations

import argparse
import contextlib
import mmap
import os
import random
import signal
import struct
import sys
import threading
import time
from collections import Counter
from pathlib import Path
from typing import Any, NamedTuple

from tests.audit_logs import make_log, open_log, sealed
from tests.faults import oracle
from tests.faults.workplace import workplace

from vram_residency.core.errors import BufferFullError

#: Threads that emit, and the last one, whose events are durable when they count.
THREADS = 4
_COUNTERS = struct.Struct(f"<{THREADS}Q")
#: A small batch, buffer and segment: the kill comes in every phase, the ring goes around, segments end.
OPTIONS = {"max_events": 20, "capacity": 200, "rotate_bytes": 15_000}
KILLS_PER_LOG = 25


class Tally(NamedTuple):
    """What some runs came to; ``early`` were killed before their first event, in the middle of an opening."""

    kills: int
    early: int
    acknowledged: int
    recovered: int
    segments: int


def emit_until_killed(folder: Path, run: int, counters: memoryview) -> None:
    """In the child: each thread counts in shared memory what it was acknowledged."""
    logger = open_log(folder, background=True, **OPTIONS)

    def emit(thread: int) -> None:
        number = 0
        is_durable = thread == THREADS - 1
        while True:
            with contextlib.suppress(BufferFullError):
                logger.emit(sealed(shard_id=f"{run}-{thread}-{number}"), durable=is_durable)
                number += 1
                counters[thread] = number
            # Short enough for some events between two commits, long enough for a log that is soon checked.
            time.sleep(0.0001)

    for thread in range(THREADS):
        threading.Thread(target=emit, args=(thread,), daemon=True).start()
    signal.pause()


def kill_one(folder: Path, run: int, choice: random.Random) -> tuple[int, ...]:
    """How many events each thread of a child had been acknowledged when it was killed."""
    with mmap.mmap(-1, mmap.PAGESIZE) as shared:
        child = os.fork()
        if child == 0:  # pragma: no cover - coverage does not follow
            try:
                emit_until_killed(folder, run, memoryview(shared).cast("Q"))
            finally:
                os._exit(1)
        try:
            if choice.random() < 0.8:
                while not any(shared[: _COUNTERS.size]) and os.waitpid(child, os.WNOHANG) == (0, 0):
                    time.sleep(0.0005)
                time.sleep(choice.choice((0.002, 0.006, 0.04)) * choice.random())
            else:  # in the middle of an opening
                time.sleep(choice.uniform(0, 0.02))
        finally:
            os.kill(child, signal.SIGKILL)
        _, status = os.waitpid(child, 0)
        assert os.waitstatus_to_exitcode(status) == -signal.SIGKILL, "the writer ended by itself"
        return _COUNTERS.unpack_from(shared)


def kill_many(folder: Path, kills: int, seed: int) -> Tally:
    """Kill so many writers of one log in ``folder``, then check it. AssertionError where it does not hold."""
    choice = random.Random(seed)
    make_log(folder, epoch_interval_s=1)
    acknowledged: dict[tuple[int, int], int] = {}
    early = 0
    for run in range(kills):
        counts = kill_one(folder, run, choice)
        early += not any(counts)
        acknowledged |= {(run, thread): count for thread, count in enumerate(counts)}
    open_log(folder, **OPTIONS).close()
    entries = oracle.read_intact(folder)
    _check(entries, acknowledged)
    openings = [entry for entry in entries if entry["event_type"] == "log_opened"]
    return Tally(
        kills=kills,
        early=early,
        acknowledged=sum(acknowledged.values()),
        recovered=sum(entry["recovered_events"] for entry in openings),
        segments=len(list((folder / "log" / "entries").iterdir())),
    )


def _check(entries: list[dict[str, Any]], acknowledged: dict[tuple[int, int], int]) -> None:
    found: dict[tuple[int, int], list[int]] = {place: [] for place in acknowledged}
    for entry in entries:
        if "shard_id" in entry:
            run, thread, number = map(int, entry["shard_id"].split("-"))
            found[run, thread].append(number)
    for place, count in acknowledged.items():
        assert found[place] == list(range(len(found[place]))), f"lost, doubled or out of order: {place}"
        # One event may be on its way when the kill comes: in the log, but not yet counted.
        assert count <= len(found[place]) <= count + 1, f"run, thread {place}"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=1000, help="how many kills")
    parser.add_argument("--seed", type=int, default=random.randrange(1 << 32))
    arguments = parser.parse_args()
    total: Counter[str] = Counter()
    start = time.monotonic()
    for number in range(-(-arguments.runs // KILLS_PER_LOG)):
        with workplace() as folder:
            seed = arguments.seed + number
            try:
                total.update(kill_many(folder, KILLS_PER_LOG, seed)._asdict())
            except AssertionError as error:
                print(f"seed {seed}: {error}")
                return 1
    print(f"{dict(total)} in {time.monotonic() - start:.0f} s, seed {arguments.seed}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
