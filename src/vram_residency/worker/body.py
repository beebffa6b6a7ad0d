"""The bytes of a request's body as a source of a model: read once, in order, never kept whole.

What a parser reads of the header is kept until the bytes are brought into memory, for they are needed
twice; everything else goes straight from the connection into the shard. There is no temporary file.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from vram_residency.core.errors import InvalidInputError, MalformedModelError

#: The largest header that is taken (residency.md section 2) and what a parser reads ahead of it.
KEPT_BYTES_MAX: Final = 101_000_000


class BodySource:
    """A ByteSource: ``read`` looks ahead and keeps, ``read_into`` takes the bytes in order.

    ``pull`` gives the next bytes of the body, however many, and none at its end. It is called from the
    thread that reads.
    """

    def __init__(self, pull: Callable[[], bytes], *, size_bytes: int, name: str) -> None:
        self.size_bytes = size_bytes
        self._pull = pull
        self._name = name
        self._ahead = bytearray()  # what was received and not yet taken
        self._taken = 0
        self._received = 0

    def read(self, offset: int, length: int) -> bytes:
        """Exactly ``length`` bytes from ``offset`` on, before anything is taken."""
        end = offset + length
        if self._taken or offset < 0 or length < 0 or end > self.size_bytes:
            raise ValueError("a body can be looked into before it is taken, and inside its bounds")
        if end > KEPT_BYTES_MAX:
            raise MalformedModelError(self._name, offset, f"a header of more than {KEPT_BYTES_MAX} bytes")
        while len(self._ahead) < end:
            self._ahead += self._next()
        return bytes(self._ahead[offset:end])

    def read_into(self, offset: int, view: memoryview) -> None:
        """Fill ``view`` with the bytes that come next; ``offset`` must be where they lie."""
        if offset != self._taken or offset + len(view) > self.size_bytes:
            raise ValueError("a body is taken once, from its start to its end")
        done = 0
        while done < len(view):
            if not self._ahead:
                self._ahead += self._next()
            count = min(len(self._ahead), len(view) - done)
            view[done : done + count] = self._ahead[:count]
            del self._ahead[:count]
            done += count
        self._taken += done

    def _next(self) -> bytes:
        data = self._pull()
        if not data:
            raise InvalidInputError("body", f"ended after {self._received} of {self.size_bytes} bytes")
        self._received += len(data)
        return data
