"""Other ways to log an event: the peers of `emit`. None authenticates it or keeps it through SIGKILL."""

from __future__ import annotations

import contextlib
import importlib.util
import json
import logging
import logging.handlers
import queue
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any, NamedTuple

#: The event: eight fields.
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
    """How to log one event, and how to wait until all are where they go.

    ``drain`` may return how many of them are; else it was all.
    """

    name: str
    emit: Callable[[], object]
    drain: Callable[[], object]


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


@contextmanager
def json_logger(folder: Path) -> Iterator[Way]:
    """python-json-logger on a file, synchronous."""
    from pythonjsonlogger.json import JsonFormatter

    target = logging.FileHandler(folder / "json.log")
    target.setFormatter(JsonFormatter("%(asctime)s %(message)s"))
    logger = logging.getLogger("benchmark.json")
    logger.propagate = False
    logger.setLevel(logging.INFO)
    logger.addHandler(target)
    try:
        yield Way("python-json-logger", lambda: logger.info("vram_sealed", extra=FIELDS), target.flush)
    finally:
        logger.removeHandler(target)
        target.close()


@contextmanager
def opentelemetry_logs(folder: Path) -> Iterator[Way]:
    """OpenTelemetry's logs SDK, in batches to a file; what its queue drops was not drained."""
    from opentelemetry._logs import LogRecord
    from opentelemetry.sdk._logs import LoggerProvider
    from opentelemetry.sdk._logs.export import BatchLogRecordProcessor, ConsoleLogRecordExporter

    logging.getLogger("opentelemetry").setLevel(logging.CRITICAL)  # it tells of every drop
    with (folder / "otel.log").open("w") as file:
        written = 0

        def as_line(record: Any) -> str:
            nonlocal written
            written += 1
            line: str = record.to_json(indent=None)
            return line + "\n"

        def drain() -> int:
            nonlocal written
            provider.force_flush()
            count, written = written, 0
            return count

        provider = LoggerProvider()
        provider.add_log_record_processor(
            BatchLogRecordProcessor(ConsoleLogRecordExporter(out=file, formatter=as_line))
        )
        logger = provider.get_logger("benchmark")
        try:
            yield Way(
                "OpenTelemetry logs",
                lambda: logger.emit(LogRecord(body="vram_sealed", attributes=FIELDS)),
                drain,
            )
        finally:
            with contextlib.redirect_stderr(None):
                provider.shutdown()


#: Module that a peer needs → the peer.
PEERS: dict[str, Callable[[Path], AbstractContextManager[Way]]] = {
    "logging": stdlib_queue,
    "structlog": structlog_json,
    "loguru": loguru_enqueue,
    "picologging": picologging_queue,
    "pythonjsonlogger": json_logger,
    "opentelemetry": opentelemetry_logs,
}


def available() -> list[Callable[[Path], AbstractContextManager[Way]]]:
    """The peers that are installed."""
    return [peer for module, peer in PEERS.items() if importlib.util.find_spec(module)]
