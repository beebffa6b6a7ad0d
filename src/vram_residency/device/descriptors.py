"""The read-only descriptor of a shard, and what becomes of its number."""

from __future__ import annotations

import contextlib
import os
import resource
import sys
from collections import deque

from vram_residency.device import memfd
from vram_residency.device.base import Facts

_UNKNOWN: Facts = {
    "inode": None,
    "device_number": None,
    "size_bytes": None,
    "seals": None,
    "descriptor": "closed",
}


class Occupant:
    """An empty, sealed memfd that takes the place of freed descriptors (residency.md section 1).

    Who opens ``/proc/<pid>/fd/<n>`` of a freed shard finds no bytes, and never another file that happened to
    get the same number. Takes no lock: it works inside finalisers.

    Numbers are finite: beyond half of what the process may open, the oldest are given back, so that a worker
    which loads and frees models for months does not run out of them.
    """

    def __init__(self) -> None:
        writable = memfd.create("freed", 0)
        try:
            memfd.add_seals(writable, memfd.ALL_SEALS)
            self._fd = memfd.reopen_read_only(writable)
        finally:
            os.close(writable)
        self._retired: deque[int] = deque()
        self._retired_max = _descriptors_max() // 2
        self._is_closed = False

    def retire(self, fd: int) -> None:
        """Put the empty file in the place of ``fd``, in one step."""
        if self._is_closed:
            _close(fd)
            return
        try:
            os.dup2(self._fd, fd, inheritable=False)
        except OSError:
            _close(fd)
        else:
            self._keep(fd)

    def close(self) -> None:
        """Give all numbers back: the paths of a closed device mean nothing any more."""
        if not self._is_closed:
            self._is_closed = True
            _close(self._fd)
        self._give_back_all()

    def _keep(self, fd: int) -> None:
        self._retired.append(fd)
        if self._is_closed:  # since the caller looked: close() may have missed this number
            self._give_back_all()
        elif len(self._retired) > self._retired_max:
            with contextlib.suppress(IndexError):  # another thread was faster
                _close(self._retired.popleft())

    def _give_back_all(self) -> None:
        with contextlib.suppress(IndexError):  # the end, or another thread was faster
            while True:
                _close(self._retired.popleft())


class ReadOnlyFile:
    """Owns the descriptor that a shard is mapped from and that its path names."""

    def __init__(self, fd: int, occupant: Occupant) -> None:
        self.fd = fd
        self._occupant = occupant
        self._is_public = False

    def path(self) -> str:
        """``/proc/<pid>/fd/<n>``. Asking makes the number public: only such numbers stay occupied."""
        self._is_public = True
        return f"/proc/{os.getpid()}/fd/{self.fd}"

    def facts(self) -> Facts:
        """What the descriptor names now; None for all where it was closed or names no memfd."""
        try:
            status = os.fstat(self.fd)
            can_write, seals = memfd.can_write(self.fd), memfd.seals(self.fd)
        except OSError:
            return dict(_UNKNOWN)
        return {
            "inode": status.st_ino,
            "device_number": f"{os.major(status.st_dev):02x}:{os.minor(status.st_dev):02x}",
            "size_bytes": status.st_size,
            "seals": seals,
            "descriptor": "writable" if can_write else "read_only",
        }

    def close(self) -> None:
        """Let go of the memory; called once."""
        if self._is_public:
            self._occupant.retire(self.fd)
        else:
            _close(self.fd)


def _descriptors_max() -> int:
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    return sys.maxsize if limit == resource.RLIM_INFINITY else limit


def _close(fd: int) -> None:
    with contextlib.suppress(OSError):
        os.close(fd)
