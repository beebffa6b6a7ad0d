"""Model paths from outside: under a configured root or not at all (worker.md, POST /v1/commit).

A path is resolved once, by the kernel, to an open file (openat2 with RESOLVE_BENEATH and
RESOLVE_NO_MAGICLINKS): no ``..``, no absolute path and no link can lead out, and nothing can be swapped
between the check and the reading.
"""

from __future__ import annotations

import ctypes
import errno
import os
import stat
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from vram_residency.core.errors import ConfigurationError, InvalidInputError
from vram_residency.core.regular_file import printable_path, unreadable

_OPENAT2: Final = 437
_RESOLVE_NO_MAGICLINKS: Final = 0x02
_RESOLVE_BENEATH: Final = 0x08
#: What the kernel answers where a path would lead out: across the root, or through a magic link.
_ESCAPES: Final = frozenset({errno.EXDEV, errno.ELOOP})


class PathEscapeError(InvalidInputError):
    """A path that would have led out of the model roots; ``field`` and ``rule`` as in its parent."""


class _How(ctypes.Structure):
    _fields_ = (("flags", ctypes.c_uint64), ("mode", ctypes.c_uint64), ("resolve", ctypes.c_uint64))


class ModelRoots:
    """The directories that models may come from, held open. Raises ConfigurationError."""

    def __init__(self, roots: Sequence[Path]) -> None:
        self._roots: list[tuple[str, int]] = []
        for root in roots:
            try:
                descriptor = os.open(root, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
            except OSError as error:
                self.close()
                raise ConfigurationError("model_roots", f"{root}: {error.strerror}") from None
            self._roots.append((os.path.abspath(root), descriptor))  # noqa: PTH100 - resolve() follows links

    @contextmanager
    def open(self, path: str) -> Iterator[tuple[str, bool]]:
        """A path by which exactly the file or directory meant can be opened, and whether it is a directory.

        ``path`` is absolute, under one of the roots, or relative to the first in which it exists.
        Raises PathEscapeError, InvalidInputError.
        """
        descriptor = self._open(path)
        try:
            mode = os.fstat(descriptor).st_mode
            if not stat.S_ISREG(mode) and not stat.S_ISDIR(mode):
                raise InvalidInputError("path", f"{printable_path(path)} is no regular file and no directory")
            yield f"/proc/self/fd/{descriptor}", stat.S_ISDIR(mode)
        finally:
            os.close(descriptor)

    def close(self) -> None:
        """Let go of the roots. May be called again."""
        while self._roots:
            os.close(self._roots.pop()[1])

    def _open(self, path: str) -> int:
        if "\0" in path or not path:
            raise InvalidInputError("path", "must be a path without a zero character")
        if not self._roots:
            raise InvalidInputError(
                "path",
                "is not taken: no model root is configured",
                hint="Set model_roots in the worker's configuration.",
            )
        last: OSError | None = None
        for root, descriptor in self._roots:
            inside = _inside(root, path)
            if inside is None:
                continue
            try:
                return _open_beneath(descriptor, inside)
            except FileNotFoundError as error:
                last = error
            except OSError as error:
                raise self._refused(path, error) from None
        if last is not None:
            raise unreadable(printable_path(path), last)
        raise PathEscapeError("path", f"{printable_path(path)} lies under no model root")

    def _refused(self, path: str, error: OSError) -> InvalidInputError:
        if error.errno in _ESCAPES:
            return PathEscapeError("path", f"{printable_path(path)} leads out of the model roots")
        return unreadable(printable_path(path), error)


def _inside(root: str, path: str) -> str | None:
    """``path`` as seen from ``root``, or None where it lies elsewhere. Dots are left to the kernel."""
    if not path.startswith("/"):
        return path
    return path[len(root) + 1 :] or "." if path == root or path.startswith(f"{root}/") else None


def _open_beneath(directory: int, path: str) -> int:
    how = _How(
        os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY, 0, _RESOLVE_BENEATH | _RESOLVE_NO_MAGICLINKS
    )
    libc = ctypes.CDLL(None, use_errno=True)
    descriptor = libc.syscall(_OPENAT2, directory, os.fsencode(path), ctypes.byref(how), ctypes.sizeof(how))
    if descriptor < 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))
    return int(descriptor)
