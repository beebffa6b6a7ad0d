"""The worker's sockets and its end: from an application to a process that answers and drains."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

import msgspec
import uvicorn

from vram_residency import narration
from vram_residency.core.errors import ConfigurationError
from vram_residency.core.private_socket import listen
from vram_residency.worker.doorkeeper import Doorkeeper
from vram_residency.worker.limits import Limits
from vram_residency.worker.protocol import protocol_class
from vram_residency.worker.reporter import Reporter
from vram_residency.worker.watchman import Watchman

_BACKLOG: Final = 512
_TICK_S: Final = 0.05
#: What connections are given to end by themselves once nothing runs any more.
_LAST_WORDS_S: Final = 1
_SIGNALS: Final = (signal.SIGTERM, signal.SIGINT)


class TcpPlace(msgspec.Struct, frozen=True, kw_only=True):
    """A TCP port. The TLS files come together; ``client_ca`` lets those in whose certificates it signed."""

    host: str
    port: int
    certificate: Path | None = None
    key: Path | None = None
    client_ca: Path | None = None
    is_certificate_needed: bool = False


class Serving:
    """Serves an application on its sockets until a signal comes, and drains.

    on_signal is called when a signal has come: what holds endless answers open lets go then.
    """

    def __init__(
        self,
        app: Any,
        *,
        watchman: Watchman,
        doorkeeper: Doorkeeper,
        reporter: Reporter,
        limits: Limits,
        deadline_s: float,
        on_signal: Callable[[], object] = lambda: None,
    ) -> None:
        self._app = app
        self._watchman = watchman
        self._doorkeeper = doorkeeper
        self._reporter = reporter
        self._limits = limits
        self._deadline_s = deadline_s
        self._on_signal = on_signal
        self._servers: list[uvicorn.Server] = []
        self._signalled = asyncio.Event()
        self._signalled_again = asyncio.Event()

    async def run(
        self, unix: socket.socket, tcp: tuple[socket.socket, TcpPlace] | None, begin: Callable[[], object]
    ) -> bool:
        """Serve; True when everything that ran could finish. ``begin`` runs in a thread once all listen.

        What ``begin`` raises is raised here, after the sockets are closed.
        """
        self._servers = [self._server(is_first=True)]
        if tcp is not None:
            self._servers.append(self._server(is_first=False, place=tcp[1]))
        sockets = [unix] if tcp is None else [unix, tcp[0]]
        with self._handling_signals():
            pairs = zip(self._servers, sockets, strict=True)
            serving = [asyncio.create_task(server.serve(sockets=[each])) for server, each in pairs]
            ticking = asyncio.create_task(self._tick())
            try:
                return await self._until_drained(serving, begin)
            finally:
                ticking.cancel()
                for server in self._servers:
                    server.should_exit = True
                await asyncio.gather(*serving, return_exceptions=True)

    async def _until_drained(self, serving: list[asyncio.Task[None]], begin: Callable[[], object]) -> bool:
        while not all(server.started for server in self._servers):
            for ended in (task for task in serving if task.done()):
                ended.result()  # raises
            await asyncio.sleep(_TICK_S)
        loading = _in_thread(begin)
        waiting = asyncio.create_task(_wait(self._signalled))
        either: list[asyncio.Future[None]] = [waiting, *serving]
        await asyncio.wait([loading, *either], return_when=asyncio.FIRST_COMPLETED)
        if loading.done():
            loading.result()
            notify_supervisor("READY=1")
            await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
        waiting.cancel()
        return await self._drained(loading)

    async def _drained(self, loading: asyncio.Future[None]) -> bool:
        """1. Not ready; 2. what runs ends, or its time does. True where it ended."""
        # 1
        self._watchman.note("the worker was told to end", is_draining=True)
        notify_supervisor("STOPPING=1")
        self._on_signal()
        # 2
        end_s = asyncio.get_running_loop().time() + self._deadline_s
        while not self._is_over(loading, end_s):  # noqa: ASYNC110 - a counter and a clock have no event
            await asyncio.sleep(_TICK_S)
        is_done = self._is_idle(loading)
        if not is_done:
            narration.narrate(
                action="drain_cut",
                target="worker",
                human=f"{self._doorkeeper.running} requests were cut off at the end of the worker",
                level="warn",
            )
        return is_done

    def _server(self, *, is_first: bool, place: TcpPlace | None = None) -> uvicorn.Server:
        tls = None if place is None else tls_of(place)
        config = uvicorn.Config(
            self._app,
            http=protocol_class(self._limits),
            ws="none",
            loop="asyncio",
            lifespan="on" if is_first else "off",
            log_config=None,
            access_log=False,
            server_header=False,
            proxy_headers=False,
            backlog=_BACKLOG,
            timeout_keep_alive=max(1, round(self._limits.keep_alive_s)),
            timeout_graceful_shutdown=_LAST_WORDS_S,
            h11_max_incomplete_event_size=self._limits.header_bytes_max,
            ssl_context_factory=None if tls is None else (lambda _config, _default: tls),
        )
        return _Server(config)

    def _is_over(self, loading: asyncio.Future[None], end_s: float) -> bool:
        is_late = asyncio.get_running_loop().time() >= end_s
        return is_late or self._signalled_again.is_set() or self._is_idle(loading)

    def _is_idle(self, loading: asyncio.Future[None]) -> bool:
        return loading.done() and not self._doorkeeper.running

    @contextlib.contextmanager
    def _handling_signals(self) -> Iterator[None]:
        loop = asyncio.get_running_loop()
        for each in _SIGNALS:
            loop.add_signal_handler(each, self._signal)
        try:
            yield
        finally:
            for each in _SIGNALS:
                loop.remove_signal_handler(each)

    def _signal(self) -> None:
        (self._signalled_again if self._signalled.is_set() else self._signalled).set()

    async def _tick(self) -> None:
        while True:
            await asyncio.sleep(1)
            self._reporter.tick()


class _Server(uvicorn.Server):
    """uvicorn's, with the signals left to Serving."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


async def _wait(event: asyncio.Event) -> None:
    await event.wait()


def _in_thread(function: Callable[[], object]) -> asyncio.Future[None]:
    """Run ``function`` in a thread that an end of the process does not wait for."""
    loop = asyncio.get_running_loop()
    future: asyncio.Future[None] = loop.create_future()

    def settle(error: BaseException | None) -> None:
        if future.done():
            return
        future.set_result(None) if error is None else future.set_exception(error)

    def run() -> None:
        failure: BaseException | None = None
        try:
            function()
        except Exception as error:  # noqa: BLE001 - it is raised again where the future is awaited
            failure = error
        with contextlib.suppress(RuntimeError):  # the loop has ended
            loop.call_soon_threadsafe(settle, failure)

    threading.Thread(target=run, name="vram-begin", daemon=True).start()
    return future


def listen_unix(path: Path) -> socket.socket:
    """The Unix socket: 0600, in a directory that only its owner can enter. Raises ConfigurationError."""
    listener = listen(path, setting="listen.socket", use="serves", backlog=_BACKLOG)
    listener.settimeout(0)
    return listener


def listen_tcp(place: TcpPlace) -> socket.socket:
    """The TCP socket. Raises ConfigurationError."""
    family = socket.AF_INET6 if ":" in place.host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((place.host, place.port))
        listener.listen(_BACKLOG)
    except OSError as error:
        listener.close()
        raise ConfigurationError(
            "tcp.port", f"cannot listen at {place.host} port {place.port}: {error.strerror}"
        ) from None
    listener.settimeout(0)
    return listener


def tls_of(place: TcpPlace) -> ssl.SSLContext | None:
    """TLS 1.3 or 1.2 with the place's files, None where it has none. Raises ConfigurationError."""
    if place.certificate is None:
        return None
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.minimum_version = ssl.TLSVersion.TLSv1_2
    try:
        tls.load_cert_chain(place.certificate, place.key)
        if place.client_ca is not None:
            tls.load_verify_locations(place.client_ca)
            tls.verify_mode = ssl.CERT_REQUIRED if place.is_certificate_needed else ssl.CERT_OPTIONAL
    except OSError as error:  # SSLError is one
        raise ConfigurationError("tcp.certificate", f"cannot be used: {error}") from None
    return tls


def notify_supervisor(state: str) -> None:
    """Tell systemd, where it asked to be told (sd_notify); nothing fails where nobody listens."""
    address = os.environ.get("NOTIFY_SOCKET")
    if not address:
        return
    with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as supervisor:
        supervisor.sendto(state.encode(), "\0" + address[1:] if address.startswith("@") else address)
