"""The body of a request on its way from the event loop to the thread that reads it."""

from __future__ import annotations

import asyncio
from typing import Any, Final

from litestar import Request
from litestar.datastructures import State

from vram_residency.core.errors import InvalidInputError
from vram_residency.worker import deadline
from vram_residency.worker.problem import Kind, Refused
from vram_residency.worker.threads import CallerGoneError

AnyRequest = Request[Any, Any, State]

#: How long a sender may pause.
IDLE_S: Final = 30.0

LENGTH_REQUIRED: Final = Kind("INVALID_PARAMS", 411, "The length of the body must be said first")
TOO_LARGE: Final = Kind("INVALID_PARAMS", 413, "The body is larger than the worker takes")
TOO_SLOW: Final = Kind("INVALID_PARAMS", 408, "The body did not come")


class Upload:
    """One body. ``pull`` is for a thread; nothing is received before it asks, so that nothing piles up."""

    def __init__(self, request: AnyRequest, *, body_bytes_max: int, idle_s: float = IDLE_S) -> None:
        """Raises Refused where the length is not said or too large."""
        self.size_bytes = _length_of(request.headers.get("content-length"), body_bytes_max)
        self._request = request
        self._idle_s = idle_s
        self._has_more = True
        self._loop = asyncio.get_running_loop()

    def pull(self) -> bytes:
        """The next bytes, none at the end. Raises CallerGoneError, Refused."""
        return asyncio.run_coroutine_threadsafe(self.receive(), self._loop).result()

    async def receive(self) -> bytes:
        """The next bytes, none at the end. Raises CallerGoneError, Refused."""
        while self._has_more:
            message = await self._next_message()
            if message["type"] == "http.disconnect":
                raise CallerGoneError
            self._has_more = message.get("more_body", False)
            if message["body"]:
                return bytes(message["body"])
        return b""

    async def _next_message(self) -> dict[str, Any]:
        try:
            async with asyncio.timeout(self._idle_s):
                return dict(await deadline.within(self._request.receive()))
        except TimeoutError:
            raise Refused(TOO_SLOW, f"nothing of the body came for {self._idle_s:g} s") from None


def _length_of(header: str | None, body_bytes_max: int) -> int:
    if header is None:
        raise Refused(LENGTH_REQUIRED, "a body needs the header Content-Length; chunks alone do not say it")
    if not (header.isascii() and header.isdigit()):
        raise InvalidInputError("Content-Length", "must be a whole number")
    size_bytes = int(header)
    if size_bytes > body_bytes_max:
        raise Refused(TOO_LARGE, f"{size_bytes} bytes are more than the {body_bytes_max} that are taken")
    return size_bytes
