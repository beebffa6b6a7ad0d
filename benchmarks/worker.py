"""What does verification cost an execution? The same engine on ordinary memory, and in a worker by scope.

In process and over the worker's Unix socket, by size of the shard; all in one run, in turns.
"""

from __future__ import annotations

import asyncio
import json
import secrets
import socket
import statistics
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import uvicorn
from benchmarks import harness

from vram_residency import AuditLogger, VramManager, narration
from vram_residency.audit.writing.creation import create_log
from vram_residency.device import open_device
from vram_residency.residency import FULL, ManagerOptions, Scope, sample
from vram_residency.residency.options import Enforcement
from vram_residency.worker import wire
from vram_residency.worker.address import Address
from vram_residency.worker.app import create_app
from vram_residency.worker.client import WorkerClient
from vram_residency.worker.options import WorkerOptions
from vram_residency.worker.service import WorkerService

SIZES_MIB = (1, 64, 512)
#: Name → gate mode and scope. The first is the same engine in the same worker, with nothing verified.
WAYS: dict[str, tuple[Enforcement, Scope | None]] = {
    "gate off": ("off", None),
    "sample": ("enforce", sample()),
    "full": ("enforce", FULL),
}
ROUNDS = 15
SECONDS = 2.0
CLIENTS = 4

Execute = Callable[[], object]


class Reader:
    """An engine that does a little: it sums the first MiB of what it was given."""

    def load(self, views: Any, metadata: Mapping[str, Any]) -> None:
        del metadata
        self.take(views.whole)

    def take(self, memory: Any) -> None:
        self._memory = memoryview(memory)[: 1 << 20]

    def execute(self, request: Mapping[str, Any]) -> Iterator[Any]:
        del request
        yield sum(self._memory[::64])

    def close(self) -> None:
        self._memory.release()


@contextmanager
def service(folder: Path, way: str) -> Iterator[WorkerService]:
    """A worker with a real audit log."""
    enforcement, scope = WAYS[way]
    create_log(folder / "log", service_id="bench", keys=folder / "keys")
    device = open_device("host")
    with (
        AuditLogger.open(folder / "log", service_id="bench", keys=folder / "keys") as logger,
        VramManager.new_with_token(
            secrets.token_hex(32), 0, logger, device=device, options=ManagerOptions(enforcement=enforcement)
        ) as manager,
    ):
        made = WorkerService(
            manager,
            logger,
            device=device.info,
            worker_id="bench",
            make_engine=Reader,
            options=WorkerOptions(model_roots=(folder.parent,), execution_scope=scope),
        )
        made.begin()
        yield made
        made.close()
    device.close()


@contextmanager
def listening(made: WorkerService, path: Path) -> Iterator[None]:
    """The worker's application on a Unix socket."""
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(path))
    listener.listen()
    server = uvicorn.Server(uvicorn.Config(create_app(made), log_config=None, lifespan="off"))
    thread = threading.Thread(target=lambda: asyncio.run(server.serve([listener])))
    thread.start()
    try:
        yield
    finally:
        server.should_exit = True
        thread.join()
        listener.close()


def p50_us(execute: Execute) -> float:
    """Median time of a call, after one that does not count."""
    execute()
    times = []
    for _ in range(ROUNDS):
        started = time.perf_counter_ns()
        execute()
        times.append(time.perf_counter_ns() - started)
    return statistics.median(times) / 1e3


def rate(path: Path) -> float:
    """Executions a second that several clients get together."""
    end_s = time.monotonic() + SECONDS
    counts = [0] * CLIENTS

    def work(number: int) -> None:
        with WorkerClient(Address(socket=path)) as client:
            while time.monotonic() < end_s:
                list(client.execute("m"))
                counts[number] += 1

    threads = [threading.Thread(target=work, args=(number,)) for number in range(CLIENTS)]
    started = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return sum(counts) / (time.perf_counter() - started)


def in_worker(model: Path, way: str) -> dict[str, float]:
    """The figures of one way with one model."""
    with tempfile.TemporaryDirectory(dir=model.parent) as name, ExitStack() as stack:
        folder = Path(name)
        made = stack.enter_context(service(folder, way))
        made.commit_path(wire.CommitRequest(path=model.name, shard_id="m"))
        request = wire.ExecuteRequest(handle_id="m")
        here = p50_us(lambda: list(made.execute(request)))
        stack.enter_context(listening(made, folder / "s"))
        client = stack.enter_context(WorkerClient(Address(socket=folder / "s")))
        there = p50_us(lambda: list(client.execute("m")))
        return {"in_process_us": here, "socket_us": there, "per_s": rate(folder / "s")}


def unsealed_us(model: Path) -> float:
    """The engine alone, on ordinary memory."""
    engine = Reader()
    engine.take(model.read_bytes())
    return p50_us(lambda: list(engine.execute({})))


def figures(size_mib: int, folder: Path) -> dict[str, Any]:
    """All ways at one size."""
    model = folder / f"{size_mib}.bin"
    with model.open("wb") as file:
        for _ in range(size_mib):
            file.write(secrets.token_bytes(1 << 20))
    ways = {way: in_worker(model, way) for way in WAYS}
    return {"size_mib": size_mib, "unsealed_us": unsealed_us(model), "ways": ways}


def main() -> None:
    """Print one table, or with ``--json`` one document."""
    options = harness.options(__doc__)
    narration.configure(level="mute")
    with tempfile.TemporaryDirectory() as name:
        rows = [figures(size, Path(name)) for size in SIZES_MIB]
    if options.as_json:
        print(json.dumps({"machine": harness.machine(), "rows": rows}))
        return
    print("| shard | way | in process, p50 | over the socket, p50 | executions/s, 4 clients |")
    print("|---|---|---|---|---|")
    for row in rows:
        print(f"| {row['size_mib']} MiB | no worker, no seal | {row['unsealed_us']:.0f} µs | | |")
        for way, found in row["ways"].items():
            times = f"{found['in_process_us']:.0f} µs | {found['socket_us']:.0f} µs | {found['per_s']:.0f}"
            print(f"| | {way} | {times} |")


if __name__ == "__main__":
    main()
