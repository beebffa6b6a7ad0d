"""Reads server-sent events (WHATWG HTML, section 9.2) from chunks of bytes. Pure, and bounded."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from msgspec import Struct

#: A line that is longer is no answer of a worker.
LINE_BYTES_MAX: Final = 64 << 20


class ServerEvent(Struct, frozen=True):
    """One event: its name (``message`` where the server gave none) and its data, line breaks and all."""

    name: str
    data: bytes


class EventReader:
    """Feed it chunks as they come; it gives the events that they complete.

    Lines end in LF or CR LF; a lone CR ends none, unlike in browsers. Ids and retry times are passed over.
    """

    def __init__(self) -> None:
        self._rest = b""
        self._name = ""
        self._data: list[bytes] = []

    def feed(self, chunk: bytes) -> Iterator[ServerEvent]:
        """The events that ``chunk`` completes. Raises ValueError for a line without end."""
        *lines, self._rest = (self._rest + chunk).split(b"\n")
        if len(self._rest) > LINE_BYTES_MAX:
            raise ValueError(f"a line of over {LINE_BYTES_MAX} bytes")
        for line in lines:
            event = self._take(line.removesuffix(b"\r"))
            if event is not None:
                yield event

    def _take(self, line: bytes) -> ServerEvent | None:
        """One line; an empty one ends an event, unless there is none."""
        if line:
            field, _, value = line.partition(b":")
            value = value.removeprefix(b" ")
            if field == b"event":
                self._name = value.decode("utf-8", "replace")
            elif field == b"data":
                self._data.append(value)
            return None
        name, data, self._name, self._data = self._name or "message", self._data, "", []
        return ServerEvent(name, b"\n".join(data)) if data else None
