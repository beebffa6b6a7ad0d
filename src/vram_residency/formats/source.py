"""Where the bytes of a model come from: a file, or memory that already holds it."""

from __future__ import annotations

import os
from contextlib import suppress
from typing import TYPE_CHECKING, Protocol

from vram_residency.core.errors import InvalidInputError, MalformedModelError
from vram_residency.core.regular_file import open_regular, printable_path, unreadable

if TYPE_CHECKING:
    from types import TracebackType
    from typing import Self


class ByteSource(Protocol):
    """Bytes of a known number that can be read from anywhere, in any order, by several threads."""

    @property
    def size_bytes(self) -> int:
        """How many there are."""

    def read(self, offset: int, length: int) -> bytes:
        """Exactly ``length`` bytes from ``offset`` on; both must lie inside."""

    def read_into(self, offset: int, view: memoryview) -> None:
        """Fill a writable view with the bytes from ``offset`` on, without a copy in between."""


class FileSource:
    """A regular file, held open. Owns one descriptor until ``close()``.

    Raises InvalidInputError (field "path") where the path is no readable regular file, and
    MalformedModelError ("changed while it was read") where the file changes under us.
    """

    def __init__(self, path: str | os.PathLike[str], *, name: str | None = None) -> None:
        """Open ``path``; errors call it ``name`` where that is given."""
        self._fd = -1
        self.path = printable_path(path) if name is None else name
        self._fd = open_regular(path)
        self._identity = _identity(os.fstat(self._fd))
        self.size_bytes = self._identity[0]

    def read(self, offset: int, length: int) -> bytes:
        """Exactly ``length`` bytes from ``offset`` on."""
        self._require_inside(offset, length)
        try:
            data = os.pread(self._fd, length, offset)
        except OSError as error:
            raise unreadable(self.path, error) from error
        if len(data) == length:
            return data
        rest = bytearray(length - len(data))
        self.read_into(offset + len(data), memoryview(rest))
        return data + rest

    def read_into(self, offset: int, view: memoryview) -> None:
        """Fill ``view`` from ``offset`` on; safe from several threads."""
        self._require_inside(offset, len(view))
        done = 0
        while done < len(view):
            count = self._read_some(offset + done, view[done:])
            if count == 0:
                raise self._changed(offset + done)
            done += count

    def require_unchanged(self) -> None:
        """Raise MalformedModelError if size, times or identity differ from those at opening."""
        try:
            now = _identity(os.fstat(self._fd))
        except OSError as error:
            raise unreadable(self.path, error) from error
        if now != self._identity:
            raise self._changed(min(now[0], self.size_bytes))

    def fileno(self) -> int:
        """The descriptor; stays ours."""
        return self._fd

    def close(self) -> None:
        """Give the descriptor back. May be called again."""
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __del__(self) -> None:
        with suppress(OSError):
            self.close()

    def _require_inside(self, offset: int, length: int) -> None:
        if offset < 0 or length < 0 or offset + length > self.size_bytes:
            raise ValueError("a read outside of the file")

    def _read_some(self, offset: int, view: memoryview) -> int:
        try:
            return os.preadv(self._fd, [view], offset)
        except OSError as error:
            raise unreadable(self.path, error) from error

    def _changed(self, offset: int) -> MalformedModelError:
        return MalformedModelError(
            self.path, offset, "changed while it was read", hint="Let the writer finish, then load it again."
        )


class MemorySource:
    """A contiguous buffer that holds a whole file, such as sealed memory; exported until ``close()``."""

    def __init__(self, buffer: bytes | bytearray | memoryview) -> None:
        view = memoryview(buffer)
        if not view.c_contiguous:
            raise InvalidInputError("buffer", "must be contiguous")
        self._view = view.cast("B")
        self.size_bytes = len(self._view)

    def read(self, offset: int, length: int) -> bytes:
        """Exactly ``length`` bytes from ``offset`` on."""
        return bytes(self._part(offset, length))

    def read_into(self, offset: int, view: memoryview) -> None:
        """Fill ``view`` from ``offset`` on."""
        view[:] = self._part(offset, len(view))

    def close(self) -> None:
        """Let go of the buffer."""
        self._view.release()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _part(self, offset: int, length: int) -> memoryview:
        if offset < 0 or length < 0 or offset + length > self.size_bytes:
            raise ValueError("a read outside of the buffer")
        return self._view[offset : offset + length]


def _identity(status: os.stat_result) -> tuple[int, ...]:
    # The change time cannot be set back, unlike the modification time.
    return status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino, status.st_dev
