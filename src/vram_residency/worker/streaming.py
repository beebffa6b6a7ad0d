"""Server-sent events from a flow of pairs; whoever stops reading stops the work (worker.md)."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any, Final, Protocol

import msgspec
from litestar.response import Stream
from litestar.types import ASGIApp, Receive, Scope, Send

from vram_residency.core import context
from vram_residency.worker import deadline
from vram_residency.worker.problem import problem_of
from vram_residency.worker.threads import Pair

MEDIA_TYPE: Final = "text/event-stream"


class Pairs(Protocol):
    """What is streamed: an event's name and its data, until None."""

    async def take(self) -> Pair | None:
        """The next one."""

    def close(self) -> None:
        """Nobody takes any more."""


class Closing(Protocol):
    """What an answer comes from."""

    def close(self) -> None:
        """Nobody takes any more."""


class FlowStream(Stream):
    """An answer that is made while it is read; the flow is closed however the answering ends."""

    def __init__(
        self, content: AsyncIterator[bytes], flow: Closing, *, media_type: str, status_code: int = 200
    ) -> None:
        super().__init__(
            content, media_type=media_type, status_code=status_code, headers={"Cache-Control": "no-store"}
        )
        self._flow = flow

    def to_asgi_response(self, *args: Any, **kwargs: Any) -> ASGIApp:  # type: ignore[override]
        """Litestar's own response, which ends when the client goes, and then the flow."""
        respond = super().to_asgi_response(*args, **kwargs)

        async def respond_and_close(scope: Scope, receive: Receive, send: Send) -> None:
            try:
                await respond(scope, receive, send)
            finally:
                self._flow.close()

        return respond_and_close


async def begin_events(flow: Pairs, *, status_code: int = 200) -> FlowStream:
    """A stream of server-sent events, once the first is there: what is refused before it is a problem."""
    first = await _first(flow) or ("end", {})
    return FlowStream(events(first, flow), flow, media_type=MEDIA_TYPE, status_code=status_code)


async def begin_bytes(flow: Pairs, *, media_type: str) -> FlowStream:
    """The data of all pairs, one after the other; an error on the way cuts the answer off."""
    first = await _first(flow)
    return FlowStream(_data(first, flow), flow, media_type=media_type)


async def _first(flow: Pairs) -> Pair | None:
    try:
        return await flow.take()
    except BaseException:
        flow.close()
        raise


async def _data(first: Pair | None, rest: Pairs) -> AsyncIterator[bytes]:
    deadline.lift()
    pair = first
    while pair is not None:
        yield pair[1]
        pair = await rest.take()


async def events(first: Pair, rest: Pairs) -> AsyncIterator[bytes]:
    """Server-sent events, the first of them known already. An error on the way is the last event."""
    yield event_bytes(*first)
    try:
        while (pair := await rest.take()) is not None:
            yield event_bytes(*pair)
    except Exception as error:  # noqa: BLE001 - headers are sent: the error goes where the output went
        yield event_bytes("error", problem_of(error, correlation_id=context.correlation_id.get()))


def event_bytes(name: str, data: Any) -> bytes:
    """One event; JSON holds no line break, so that nothing in ``data`` can end it."""
    return b"event: " + name.encode() + b"\ndata: " + msgspec.json.encode(data) + b"\n\n"
