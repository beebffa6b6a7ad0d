"""A worker that answers on a Unix socket, in a thread of the test: for those who talk to it from outside."""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import uvicorn
from tests.workers import worker

from vram_residency.worker.service import WorkerService


@dataclass
class RunningWorker:
    """A worker, where it listens, and all that can be done to it from behind."""

    service: WorkerService
    device: Any
    log: Any
    socket: Path
    models: Path


@contextmanager
def running_worker(directory: Path, **choices: Any) -> Iterator[RunningWorker]:
    """A worker over a device that can be damaged; models lie in ``directory/models``."""
    models, path = directory / "models", directory / "worker.sock"
    models.mkdir(exist_ok=True)
    with worker(models, **choices) as made, serving(made.app, path):
        yield RunningWorker(made.service, made.device, made.log, path, models)


@contextmanager
def serving(app: Any, path: Path) -> Iterator[None]:
    """An ASGI application on a Unix socket, while the block lasts."""
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(path))
    listener.listen(64)
    server = uvicorn.Server(uvicorn.Config(app, log_config=None, lifespan="off", timeout_graceful_shutdown=5))

    def run() -> None:
        with asyncio.Runner() as runner:
            runner.run(server.serve([listener]))

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield
    finally:
        server.should_exit = True
        thread.join()
        listener.close()
        path.unlink(missing_ok=True)
