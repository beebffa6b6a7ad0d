"""What the tests of the worker share: a whole worker in this process, of which everything can be seen."""

from __future__ import annotations

import asyncio
import json
import threading
import warnings
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
from litestar import Litestar
from litestar.testing import TestClient
from tests.shards import CAPACITY, TOKEN

from vram_residency import AuditLogger, VramManager
from vram_residency.audit.writing.creation import create_log
from vram_residency.audit.writing.placement import KeyPlacementWarning
from vram_residency.core import context
from vram_residency.residency import ManagerOptions
from vram_residency.testing import FaultDevice, MemoryLog, Story, capture_narration
from vram_residency.worker.app import create_app
from vram_residency.worker.echo_stats import EchoStats
from vram_residency.worker.options import WorkerOptions
from vram_residency.worker.service import WorkerService
from vram_residency.worker.threads import Threads

WORKER_ID = "worker-gpu-0"
PROBLEM = "application/problem+json"


@dataclass
class Worker:
    """A running worker, a client of it, and what it did."""

    service: WorkerService
    client: Any
    device: FaultDevice
    log: Any
    story: Story
    app: Litestar

    @property
    def events(self) -> list[str]:
        """The types of all audit events, in order."""
        return [each.event_type for each in self.log.recorded]

    def commit(self, path: Path, **fields: Any) -> dict[str, Any]:
        """Commit a file that must be taken; its handle."""
        answer = self.client.post("/v1/commit", json={"path": path.name, **fields})
        assert answer.status_code == 201, answer.text
        (handle,) = answer.json()
        return handle

    def execute(self, handle_id: str, **fields: Any) -> httpx.Response:
        """Execute on a shard."""
        return self.client.post("/v1/execute", json={"handle_id": handle_id, **fields})

    def run(self, function: Callable[[], Any]) -> Any:
        """Run a coroutine function in the worker's own event loop, for at most 30 seconds."""

        async def bounded() -> Any:
            return await asyncio.wait_for(function(), 30)

        return self.client.blocking_portal.call(bounded)

    def speak(self, spoken: Conversation) -> Conversation:
        """Have one conversation."""
        return self.run(spoken.run)

    def require_untouched(self) -> None:
        """Nothing is held and nothing is in use."""
        assert self.service.manager.shards() == []
        assert self.service.manager.capacity().used_bytes == 0


@contextmanager
def worker(
    root: Path,
    *,
    log: AuditLogger | None = None,
    make_engine: Callable[[], Any] = EchoStats,
    manager_options: Mapping[str, Any] | None = None,
    places: int = 16,
    wait_s: float = 2.0,
    app: Mapping[str, Any] | None = None,
    **options: Any,
) -> Iterator[Worker]:
    """A worker with one model root, on a device that can be damaged."""
    device = FaultDevice(capacity_bytes=CAPACITY)
    log = MemoryLog() if log is None else log
    with capture_narration() as story:
        manager = VramManager.new_with_token(
            TOKEN, 0, log, WORKER_ID, device=device, options=ManagerOptions(**(manager_options or {}))
        )
        service = WorkerService(
            manager,
            log,
            device=device.info,
            worker_id=WORKER_ID,
            make_engine=make_engine,
            options=WorkerOptions(model_roots=(root,), **options),
        )
        service.begin()
        made = create_app(service, threads=Threads(places, wait_s=wait_s), **(app or {}))
        try:
            with TestClient(made) as client:
                yield Worker(service, client, device, log, story, made)
        finally:
            service.close()


def open_log(directory: Path) -> AuditLogger:
    """A log on the disk, made if there is none."""
    if not (directory / "log.json").exists():
        create_log(directory, service_id="w")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", KeyPlacementWarning)
        return AuditLogger.open(directory, service_id="w")


def acting_as(header: str = "x-actor") -> Callable[[Any], Any]:
    """A wrapper that believes what a header says about who asks: stands for the server's authentication."""

    def wrap(app: Any) -> Any:
        async def respond(scope: Any, receive: Any, send: Any) -> None:
            name = dict(scope["headers"]).get(header.encode())
            if name is not None:
                context.actor.set(
                    {"user_id": name.decode(), "auth_method": "bearer_token", "ip": "192.0.2.7"}
                )
            await app(scope, receive, send)

        return respond

    return wrap


def events_of(answer: httpx.Response) -> list[tuple[str, Any]]:
    """The server-sent events of an answer."""
    return parse_events(answer.content)


def parse_events(body: bytes) -> list[tuple[str, Any]]:
    """Server-sent events: (name, data)."""
    found = []
    for block in body.split(b"\n\n")[:-1]:
        name, data = block.split(b"\n")
        found.append((name.removeprefix(b"event: ").decode(), json.loads(data.removeprefix(b"data: "))))
    return found


def require_problem(answer: httpx.Response, status: int, code: str) -> dict[str, Any]:
    """That an answer is problem details of this kind; the details."""
    assert (answer.status_code, answer.headers["content-type"]) == (status, PROBLEM), answer.text
    found: dict[str, Any] = answer.json()
    assert (found["status"], found["code"]) == (status, code), found
    assert found["type"] == "urn:vram-residency:problem:" + code.lower().replace("_", "-")
    assert found["correlation_id"] == answer.headers["x-correlation-id"]
    assert found["title"]
    assert isinstance(found["retriable"], bool)
    assert found["retriable"] == ("retry_after_ms" in found)
    return found


@dataclass
class Conversation:
    """One request spoken by hand, for what an HTTP client cannot do: pause, stop in the middle, go away.

    ``body`` is sent in the given pieces; None among them lets the client disconnect there.
    ``leaves_after`` is text after which, once it was received, the client disconnects.
    """

    app: Any
    path: str
    body: list[bytes | None]
    method: str = "POST"
    headers: dict[str, str] = field(default_factory=dict)
    leaves_after: bytes | None = None
    received: bytearray = field(default_factory=bytearray)
    status: int | None = None

    async def run(self) -> Conversation:
        """Speak it."""
        self._gone = asyncio.Event()
        self._pieces = self._messages()
        path, _, query = self.path.partition("?")
        scope = {
            "type": "http",
            "asgi": {"version": "3.0"},
            "http_version": "1.1",
            "method": self.method,
            "scheme": "http",
            "path": path,
            "raw_path": path.encode(),
            "query_string": query.encode(),
            "root_path": "",
            "headers": [(name.lower().encode(), value.encode()) for name, value in self.headers.items()],
            "client": ("192.0.2.1", 1),
            "server": ("worker", 80),
            "state": {},
        }
        await self.app(scope, self._receive, self._send)
        return self

    async def _receive(self) -> dict[str, Any]:
        return await anext(self._pieces)

    async def _messages(self) -> AsyncIterator[dict[str, Any]]:
        for number, piece in enumerate(self.body):
            if piece is None:
                break
            is_last = number == len(self.body) - 1
            yield {"type": "http.request", "body": piece, "more_body": not is_last}
        else:
            await self._gone.wait()
        while True:
            yield {"type": "http.disconnect"}

    async def _send(self, message: dict[str, Any]) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
        else:
            self.received += message.get("body", b"")
            if not message.get("more_body", False):
                self._gone.set()  # as a server does: after the answer there is nothing more to receive
        if self.leaves_after is not None and self.leaves_after in self.received:
            self._gone.set()
            await asyncio.sleep(0)


def wait_until(holds: Any) -> None:
    """Wait for what another thread does; the test's own timeout ends it."""
    pause = threading.Event()
    while not holds():
        pause.wait(0.005)
