"""What an event of 8 fields costs its caller, and how many a second reach the disk.

Ours beside other ways to log an event, none of which authenticates it or keeps it through SIGKILL. Bars
(performance.md): emit p50 <= 1 us, p99 <= 5 us, 200,000 events a second drained with chain and fdatasync.
The library's own row of the first table is at a buffer of ``CAPACITY`` events, drained by flush() in the
calling thread, without a refusal.
"""

from __future__ import annotations

import importlib.util
import io
import json
import logging
import logging.handlers
import queue
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks import harness

from vram_residency.audit.events.vram import VramSealed
from vram_residency.audit.log import AuditLogger
from vram_residency.audit.writing.creation import create_log
from vram_residency.audit.writing.options import LogOptions

CAPACITY = 10_000
EVENTS = 10_000
FIELDS: dict[str, Any] = {
    "shard_id": "shard-abc123",
    "gpu_device": 0,
    "vram_bytes": 1_048_576,
    "digest": "blake3:" + "ab" * 32,
    "worker_id": "worker-gpu-0",
    "device_uuid": "GPU-5f1c9a02",
    "seal_sha256": "cd" * 32,
    "model_ref": "meta-llama/Llama-3",
}


class Way(NamedTuple):
    """How to log one event, and how to wait until all are where they go."""

    name: str
    emit: Callable[[], object]
    drain: Callable[[], object]


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
def disabled(_folder: Path) -> Iterator[Way]:
    """This library, switched off."""
    logger, event = AuditLogger.disabled(), VramSealed(**FIELDS)
    yield Way("ours, disabled", lambda: logger.emit(event), logger.flush)


@contextmanager
def stdlib_queue(folder: Path) -> Iterator[Way]:
    """Logging's QueueHandler and QueueListener, the event encoded by json."""
    waiting: queue.SimpleQueue[Any] = queue.SimpleQueue()
    target = logging.FileHandler(folder / "stdlib.log")
    listener = logging.handlers.QueueListener(waiting, target)
    logger = logging.getLogger("benchmark")
    logger.propagate = False
    logger.setLevel(logging.INFO)
    handler = logging.handlers.QueueHandler(waiting)
    logger.addHandler(handler)
    listener.start()

    def drain() -> None:
        listener.stop()
        listener.start()

    try:
        yield Way("stdlib QueueHandler", lambda: logger.info(json.dumps(FIELDS)), drain)
    finally:
        listener.stop()
        logger.removeHandler(handler)
        target.close()


@contextmanager
def structlog_json(folder: Path) -> Iterator[Way]:
    """structlog, synchronous, encoded by orjson where there is one."""
    import structlog

    serializer = importlib.import_module("orjson").dumps if importlib.util.find_spec("orjson") else None
    with (folder / "structlog.log").open("wb" if serializer else "w") as file:
        renderer = structlog.processors.JSONRenderer(*([serializer] if serializer else []))
        factory = structlog.BytesLoggerFactory(file) if serializer else structlog.WriteLoggerFactory(file)
        logger = structlog.wrap_logger(
            factory(), processors=[structlog.processors.TimeStamper(fmt="iso"), renderer]
        )
        name = "structlog + orjson" if serializer else "structlog + json"
        yield Way(name, lambda: logger.info("vram_sealed", **FIELDS), file.flush)


@contextmanager
def loguru_enqueue(folder: Path) -> Iterator[Way]:
    """Loguru with enqueue=True and serialize=True."""
    from loguru import logger

    logger.remove()
    sink = logger.add(folder / "loguru.log", enqueue=True, serialize=True)
    try:
        yield Way("loguru, enqueue", lambda: logger.bind(**FIELDS).info("vram_sealed"), logger.complete)
    finally:
        logger.remove(sink)


@contextmanager
def picologging_queue(folder: Path) -> Iterator[Way]:
    """Picologging's QueueHandler, emptied by the drain, as its listener would."""
    import picologging
    from picologging.handlers import QueueHandler

    waiting: queue.SimpleQueue[Any] = queue.SimpleQueue()
    logger = picologging.Logger("benchmark", picologging.INFO)
    logger.addHandler(QueueHandler(waiting))
    with (folder / "picologging.log").open("w") as file:

        def drain() -> None:
            while not waiting.empty():
                file.write(waiting.get().getMessage() + "\n")
            file.flush()

        yield Way("picologging QueueHandler", lambda: logger.info(json.dumps(FIELDS)), drain)


PEERS = {
    "structlog": structlog_json,
    "loguru": loguru_enqueue,
    "picologging": picologging_queue,
}


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
    way.drain()
    seconds = (clock() - started) / 1e9
    times.sort()
    return Figures(times[EVENTS // 2], times[EVENTS * 99 // 100], EVENTS / seconds)


def main() -> None:
    """Print the table, or JSON with ``--json``."""
    options = harness.options(__doc__)
    makers = [
        ours,
        disabled,
        stdlib_queue,
        *(PEERS[name] for name in PEERS if importlib.util.find_spec(name)),
    ]
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        ways = [stack.enter_context(make(folder)) for make in makers]
        rounds = [[measure(way) for way in ways] for _ in range(options.rounds + 1)][1:]
    rows = []
    for number, way in enumerate(ways):
        found = [each[number] for each in rounds]
        rows.append(
            {
                "name": way.name,
                "p50_us": round(min(each.p50_ns for each in found) / 1000, 2),
                "p99_us": round(min(each.p99_ns for each in found) / 1000, 2),
                "median_p50_us": round(statistics.median(each.p50_ns for each in found) / 1000, 2),
                "drained_per_s": round(max(each.per_second for each in found)),
            }
        )
    print(report(rows, as_json=options.as_json))


def report(rows: list[dict[str, Any]], *, as_json: bool) -> str:
    """The table as text: best rounds, and the ratio of each p50 to ours."""
    question = f"An event of {len(FIELDS)} fields: the caller's cost, and events a second drained"
    if as_json:
        return json.dumps({"question": question, "machine": harness.machine(), "results": rows})
    out = io.StringIO()
    print(question, file=out)
    print("  " + ", ".join(f"{key} {value}" for key, value in harness.machine().items()), file=out)
    print(f"  {'':26} p50 us  p99 us  drained/s  p50 / ours", file=out)
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
