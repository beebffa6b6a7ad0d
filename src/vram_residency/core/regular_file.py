"""Opening what must be a plain file: nothing hangs, nothing else has effects, every no says why."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path

from vram_residency.core.errors import InvalidInputError

_KINDS = {
    stat.S_IFDIR: "a directory",
    stat.S_IFIFO: "a named pipe",
    stat.S_IFCHR: "a character device",
    stat.S_IFBLK: "a block device",
    stat.S_IFSOCK: "a socket",
}
# O_NONBLOCK: the path may become a pipe between the look and the opening, and must not hang us then.
_OPEN_FLAGS = os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY


def open_regular(path: str | os.PathLike[str]) -> int:
    """A descriptor of a readable regular file. Raises InvalidInputError (field "path") for anything else."""
    text = printable_path(path)
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


def printable_path(path: str | os.PathLike[str]) -> str:
    """Text of a path that can be printed and logged: bytes that are no UTF-8 appear as hex escapes."""
    return os.fsdecode(path).encode("utf-8", "backslashreplace").decode()


def unreadable(text: str, error: OSError | ValueError) -> InvalidInputError:
    """Make the error for a path that the system will not let us read."""
    code = error.errno if isinstance(error, OSError) else None
    if code == errno.ENOENT:
        hint = "Check the spelling, and the directory that you are in."
        return InvalidInputError("path", f"{text} does not exist", hint=hint)
    reason = os.strerror(code) if code is not None else "it holds a character that no path may hold"
    return InvalidInputError("path", f"{text} cannot be read: {reason}")


def _require_regular(status: os.stat_result, text: str) -> None:
    if not stat.S_ISREG(status.st_mode):
        kind = _KINDS.get(stat.S_IFMT(status.st_mode), "something else")
        raise InvalidInputError("path", f"{text} is {kind}, not a regular file", hint="Name a regular file.")
