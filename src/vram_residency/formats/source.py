"""Where the bytes of a model come from: a file, or memory that already holds it."""

from __future__ import annotations

import errno
import os
import stat
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from vram_residency.core.errors import InvalidInputError, MalformedModelError

if TYPE_CHECKING:
    from types import TracebackType
    from typing import Self

_KINDS = {
    stat.S_IFDIR: "a directory",
    stat.S_IFIFO: "a named pipe",
    stat.S_IFCHR: "a character device",
    stat.S_IFBLK: "a block device",
    stat.S_IFSOCK: "a socket",
}
# O_NONBLOCK: the path may become a pipe between the look and the opening, and must not hang us then.
_OPEN_FLAGS = os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY


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

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self._fd = -1
        self.path = printable_path(path)
        self._fd = _open_regular(path, self.path)
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
        """Raise MalformedModelError if size, modification time or identity differ from those at opening."""
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


def printable_path(path: str | os.PathLike[str]) -> str:
    """Text of a path that can be printed and logged: bytes that are no UTF-8 appear as hex escapes."""
    return os.fsdecode(path).encode("utf-8", "backslashreplace").decode()


def _identity(status: os.stat_result) -> tuple[int, int, int, int]:
    return status.st_size, status.st_mtime_ns, status.st_ino, status.st_dev


def _open_regular(path: str | os.PathLike[str], text: str) -> int:
    # Looked at before it is opened: opening a device can have effects of its own.
    try:
        _require_regular(Path(path).stat(), text)
        fd = os.open(path, _OPEN_FLAGS)
    except (OSError, ValueError) as error:
        raise unreadable(text, error) from error
    try:
        _require_regular(os.fstat(fd), text)
    except BaseException:
        os.close(fd)
        raise
    return fd


def _require_regular(status: os.stat_result, text: str) -> None:
    if not stat.S_ISREG(status.st_mode):
        kind = _KINDS.get(stat.S_IFMT(status.st_mode), "something else")
        raise InvalidInputError("path", f"{text} is {kind}, not a regular file")


def unreadable(text: str, error: OSError | ValueError) -> InvalidInputError:
    """Make the error for a path that the system will not let us read."""
    code = error.errno if isinstance(error, OSError) else None
    if code == errno.ENOENT:
        return InvalidInputError("path", f"{text} does not exist")
    reason = os.strerror(code) if code is not None else "it holds a character that no path may hold"
    return InvalidInputError("path", f"{text} cannot be read: {reason}")
