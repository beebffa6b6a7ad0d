"""The outermost wrapper of the application: correlation, deadline, and errors of all wrappers inside it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from litestar.enums import ScopeType
from litestar.types import ASGIApp, Message, Receive, Scope, Send

from vram_residency import narration
from vram_residency.core import context
from vram_residency.worker import answer, deadline

Wrapper = Callable[[ASGIApp], ASGIApp]
_HEADERS: Final = (b"x-correlation-id", b"traceparent")


class Correlation:
    """Names every request, and tells the name in the answer's headers (narration.md, W3C Trace Context)."""

    def __init__(self, app: ASGIApp, *, worker_id: str) -> None:
        self._app = app
        self._worker_id = worker_id

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request; what an inner wrapper raises before its answer becomes problem details."""
        if scope["type"] != ScopeType.HTTP:
            await self._app(scope, receive, send)
            return
        headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}
        narration.read_headers(headers)
        context.worker_id.set(self._worker_id)
        echo = [(name.lower().encode(), value.encode()) for name, value in narration.write_headers().items()]
        has_started = False

        async def send_named(message: Message) -> None:
            nonlocal has_started
            if message["type"] == "http.response.start":
                has_started = True
                own = [pair for pair in message["headers"] if pair[0].lower() not in _HEADERS]
                message["headers"] = [*own, *echo]
            await send(message)

        try:
            deadline.start(_deadline_of(headers))
            await self._app(scope, receive, send_named)
        except Exception as error:
            if has_started:
                raise
            await answer.send_problem(error, send_named)


def wrapped(app: ASGIApp, wrappers: tuple[Wrapper, ...]) -> ASGIApp:
    """``app`` inside all of them; the first is outermost."""
    for wrapper in reversed(wrappers):
        app = wrapper(app)
    return app


def _deadline_of(headers: dict[str, Any]) -> str | None:
    return headers.get(deadline.HEADER.lower())
