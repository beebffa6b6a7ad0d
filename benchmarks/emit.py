"""What an event of 8 fields costs its caller, and how many a second reach the disk.

Ours beside other ways to log an event (peers.py), and beside two floors: what Python itself costs for a typed
struct that is encoded into a ring under a lock, and for a mac chain that is synced. Bars (performance.md):
emit p50 <= 1 us, p99 <= 5 us, 200,000 events a second drained with chain and fdatasync, 80,000 beside a
caller that computes, disabled <= 100 ns. Buffers hold ``CAPACITY`` events, and no event is refused.
"""

from __future__ import annotations

import hashlib
import io
import json
import mmap
import os
import statistics
import tempfile
import threading
import time
from collections import deque
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
from benchmarks import harness
from benchmarks.peers import FIELDS, Way, available

from vram_residency.audit.events.vram import VramSealed
from vram_residency.audit.log import AuditLogger
from vram_residency.audit.writing.creation import create_log
from vram_residency.audit.writing.options import LogOptions

CAPACITY = 10_000
EVENTS = 10_000


class Figures(NamedTuple):
    """One round: nanoseconds for the caller, events a second with the draining."""

    p50_ns: int
    p99_ns: int
    per_second: float


@contextmanager
def ours(folder: Path) -> Iterator[Way]:
    """This library: chained, in the journal at emit(), synced at flush()."""
    create_log(folder / "log", service_id="bench", keys=folder / "keys")
    options = LogOptions(capacity=CAPACITY, background=False)
    with AuditLogger.open(
        folder / "log", service_id="bench", keys=folder / "keys", options=options
    ) as logger:
        event = VramSealed(**FIELDS)
        yield Way("ours (survives SIGKILL)", lambda: logger.emit(event), logger.flush)


@contextmanager
def ours_behind(folder: Path) -> Iterator[Way]:
    """This library as it runs: its thread drains, while the caller computes and emits without a pause."""
    create_log(folder / "busy", service_id="bench", keys=folder / "busy.keys")
    options = LogOptions(capacity=CAPACITY)
    with AuditLogger.open(
        folder / "busy", service_id="bench", keys=folder / "busy.keys", options=options
    ) as logger:
        event = VramSealed(**FIELDS)
        yield Way("ours, a thread drains", lambda: logger.emit(event), logger.flush)


@contextmanager
def disabled(_folder: Path) -> Iterator[Way]:
    """This library, switched off."""
    logger, event = AuditLogger.disabled(), VramSealed(**FIELDS)
    yield Way("ours, disabled", lambda: logger.emit(event), logger.flush)


@contextmanager
def struct_in_ring(_folder: Path) -> Iterator[Way]:
    """The floor of emit(): a struct, encoded, copied into mapped memory under a lock; unchecked."""
    event, encode, lock = VramSealed(**FIELDS), msgspec.json.Encoder().encode, threading.Lock()
    ring, position, clock = mmap.mmap(-1, 1 << 24), 0, time.time_ns

    def emit() -> None:
        nonlocal position
        data = encode(event)
        with lock:
            start = position % (1 << 23)
            ring[start : start + len(data)] = data
            position += clock() and len(data)

    yield Way("floor: struct, ring, lock", emit, lambda: None)


@contextmanager
def struct_in_chain(folder: Path) -> Iterator[Way]:
    """The floor of draining: structs in a deque, then encoded, chained by HMAC and synced; no tree."""
    event, encode, waiting = VramSealed(**FIELDS), msgspec.json.Encoder().encode, deque[VramSealed]()
    inner, outer = hashlib.sha256(bytes(64)), hashlib.sha256(bytes([1]) * 64)
    mac = bytes(32)

    def drain() -> None:
        nonlocal mac
        lines = []
        for each in waiting:
            line = encode(each)
            hashed, last = inner.copy(), outer.copy()
            hashed.update(mac + line)
            last.update(hashed.digest())
            mac = last.digest()
            lines += (line, mac.hex().encode())
        waiting.clear()
        file.write(b"\n".join(lines))
        os.fdatasync(file.fileno())

    with (folder / "floor").open("wb", buffering=0) as file:
        yield Way("floor: deque, HMAC, sync", lambda: waiting.append(event), drain)


@contextmanager
def nothing(_folder: Path) -> Iterator[Way]:
    """What the measuring itself costs."""
    yield Way("(an empty call)", lambda: None, lambda: None)


def measure(way: Way) -> Figures:
    """One round of EVENTS events."""
    times = []
    clock = time.perf_counter_ns
    emit = way.emit
    started = clock()
    for _ in range(EVENTS):
        before = clock()
        emit()
        times.append(clock() - before)
    drained = way.drain()
    seconds = (clock() - started) / 1e9
    times.sort()
    count = drained if isinstance(drained, int) else EVENTS
    return Figures(times[EVENTS // 2], times[EVENTS * 99 // 100], count / seconds)


def main() -> None:
    """Print the table, or JSON with ``--json``."""
    options = harness.options(__doc__)
    makers = [ours, ours_behind, disabled, struct_in_ring, struct_in_chain, *available(), nothing]
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        ways = [stack.enter_context(make(folder)) for make in makers]
        rounds = [[measure(way) for way in ways] for _ in range(options.rounds + 1)][1:]
    rows = []
    empty_ns = min(each[-1].p50_ns for each in rounds)
    for number, way in enumerate(ways[:-1]):
        found = [each[number] for each in rounds]
        rows.append(
            {
                "name": way.name,
                "p50_us": round((min(each.p50_ns for each in found) - empty_ns) / 1000, 2),
                "p99_us": round((min(each.p99_ns for each in found) - empty_ns) / 1000, 2),
                "median_p50_us": round(
                    (statistics.median(each.p50_ns for each in found) - empty_ns) / 1000, 2
                ),
                "drained_per_s": round(max(each.per_second for each in found)),
            }
        )
    print(report(rows, empty_ns=empty_ns, as_json=options.as_json))


def report(rows: list[dict[str, Any]], *, empty_ns: int, as_json: bool) -> str:
    """The table as text: best rounds less an empty call, and the ratio of each p50 to ours."""
    question = f"An event of {len(FIELDS)} fields: the caller's cost, and events a second drained"
    if as_json:
        return json.dumps({"question": question, "machine": harness.machine(), "results": rows})
    out = io.StringIO()
    print(question, file=out)
    print("  " + ", ".join(f"{key} {value}" for key, value in harness.machine().items()), file=out)
    print(f"  {'':26} p50 us  p99 us  drained/s  p50 / ours   (less an empty call, {empty_ns} ns)", file=out)
    for row in rows:
        ratio = row["p50_us"] / rows[0]["p50_us"]
        print(
            f"  {row['name']:26} {row['p50_us']:6.2f}  {row['p99_us']:6.2f}  {row['drained_per_s']:9}"
            f"  {ratio:.2f}",
            file=out,
        )
    return out.getvalue().rstrip()


if __name__ == "__main__":
    main()
