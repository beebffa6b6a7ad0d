"""HTTP/1.1 on one connection: uvicorn's, with the peer told to the application and with clocks on the reader.

uvicorn knows neither who is at the other end of a Unix socket nor a limit of time for headers and bodies.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
from http import HTTPStatus
from typing import Any, Final

import h11
import msgspec
from uvicorn.config import Config
from uvicorn.protocols.http.h11_impl import H11Protocol, RequestResponseCycle
from uvicorn.server import ServerState

from vram_residency.core.private_socket import peer_of
from vram_residency.worker import problem
from vram_residency.worker.caller import Connection
from vram_residency.worker.doorkeeper import CONNECTION_KEY
from vram_residency.worker.limits import Limits

_ANSWER: Final = (
    b"HTTP/1.1 %d %s\r\ncontent-type: application/problem+json\r\n"
    b"content-length: %d\r\nconnection: close\r\n\r\n%s"
)


def protocol_class(limits: Limits) -> type[H11Protocol]:
    """The protocol within these limits."""
    return type("LimitedProtocol", (_Protocol,), {"limits": limits})


class _Protocol(H11Protocol):
    limits: Limits

    def __init__(
        self,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        super().__init__(config, server_state, app_state, _loop)
        self._timer: asyncio.TimerHandle | None = None
        self._phase: object = None
        self._received_bytes = 0

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        if len(self.connections) >= self.limits.connections_max:
            transport.abort()
            return
        super().connection_made(transport)
        self.app_state = {**self.app_state, CONNECTION_KEY: _connection_of(transport)}
        self._watch()

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_timer()
        if self.transport is not None:
            super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        self._received_bytes += len(data)
        super().data_received(data)
        self._watch()

    def send_400_response(self, msg: str) -> None:
        """Answer what is no HTTP, or too much of it."""
        is_long = len(self.conn.trailing_data[0]) > self.limits.header_bytes_max
        kind = problem.HEADERS_TOO_LARGE if is_long else problem.INVALID_PARAMS
        self._refuse(problem.Refused(kind, msg))

    def _watch(self) -> None:
        """Set the clock for what the other side has to do next. It runs from the beginning of each part."""
        phase = self.conn.their_state
        if phase is self._phase:
            return
        self._phase = phase
        self._stop_timer()
        if phase is h11.IDLE:
            self._timer = self.loop.call_later(self.limits.header_timeout_s, self._headers_are_late)
        elif phase is h11.SEND_BODY:
            self._timer = self.loop.call_later(
                self.limits.body_timeout_s, self._look_at_body, self._received_bytes
            )

    def on_response_complete(self) -> None:
        """Let the next request have its own clocks."""
        super().on_response_complete()
        self._phase = None

    def _headers_are_late(self) -> None:
        self._end("the headers took too long")

    def _look_at_body(self, before_bytes: int) -> None:
        """Whether the body went on. While we do not read it is not the other side that is slow."""
        if self.conn.their_state is not h11.SEND_BODY:
            return
        has_moved = self._received_bytes - before_bytes >= self.limits.body_bytes_min
        if not has_moved and not self.flow.read_paused:
            self._end("the body took too long")
            return
        self._timer = self.loop.call_later(
            self.limits.body_timeout_s, self._look_at_body, self._received_bytes
        )

    def _end(self, reason: str) -> None:
        if self.transport.is_closing():
            return
        if self.conn.our_state is h11.IDLE and self._received_bytes:
            self._refuse(problem.Refused(problem.TOO_SLOW, reason))
        else:
            self.transport.abort()

    def _refuse(self, refusal: problem.Refused) -> None:
        """Answer beside h11, which may be in a state of error, and close; never within another answer."""
        cycle: RequestResponseCycle | None = self.cycle
        if cycle is None or cycle.response_complete:
            body = msgspec.json.encode(problem.problem_of(refusal, correlation_id=None))
            status = HTTPStatus(refusal.kind.status)
            self.transport.write(_ANSWER % (status, status.phrase.encode(), len(body), body))
        self.transport.close()

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None


def _connection_of(transport: asyncio.Transport) -> Connection:
    """What the kernel and TLS say about the other side."""
    found = transport.get_extra_info("socket")
    if found.family == socket.AF_UNIX:
        _, uid = peer_of(found)
        return Connection(uid=uid)
    tls: ssl.SSLObject | None = transport.get_extra_info("ssl_object")
    certificate = None if tls is None else tls.getpeercert()
    return Connection(ip=transport.get_extra_info("peername")[0], subject=_subject_of(certificate))


def _subject_of(certificate: Any) -> str | None:
    """``CN=…,O=…`` of a certificate that TLS has verified."""
    if not certificate:
        return None
    parts = [f"{name}={value}" for group in certificate.get("subject", ()) for name, value in group]
    return ",".join(parts) or None
