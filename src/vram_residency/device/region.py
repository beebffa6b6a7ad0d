"""One mapping of memory that is handed out as views, watched, and freed after its last view died."""

from __future__ import annotations

import contextlib
import mmap
import threading
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from vram_residency.core.errors import DeviceBusyError, NotSealedError
from vram_residency.device import kernel
from vram_residency.device.base import OnFreed
from vram_residency.device.procmaps import Range, ranges_from

_MAPS = Path("/proc/self/maps")


class Place(NamedTuple):
    """What the kernel says lies at the addresses that were handed out.

    ``mapping``: "whole", "replaced" (something else lies in it, or a gap), "freed", or "unreadable".
    """

    mapping: str
    permissions: str | None
    locked: bool | None
    excluded_from_core_dumps: bool


class Region:
    """Owns a mapping. Nobody else holds the mmap object itself, so only views can keep it alive.

    A forked child inherits the mapping but not its locks (mlock(2)): there ``place()`` truly says unlocked.
    """

    def __init__(self, mapping: mmap.mmap, label: str, *, release: Callable[[], None]) -> None:
        self._mapping: mmap.mmap | None = mapping
        self._address = kernel.address_of(mapping)
        self._label = label
        self._release = release
        self._lock = threading.Lock()  # guards _mapping against two frees at a time
        self._lock_granted = False
        self.size_bytes = len(mapping)
        _exclude_from_core_dumps(mapping)

    def view(self) -> memoryview:
        """Read-only bytes of the whole mapping. Raises NotSealedError once freed."""
        try:
            return memoryview(self._mapped()).toreadonly()
        except ValueError:
            raise NotSealedError(self._label, "freed") from None

    def lock_on_fault(self) -> None:
        """Have pages locked as they are touched, which makes a later ``lock()`` cheap."""
        kernel.lock_on_fault(self._mapped())

    def lock(self) -> bool:
        """Keep the pages in memory where limits and privileges allow it; whether they did."""
        try:
            kernel.lock(self._mapped())
        except OSError:
            return False
        self._lock_granted = True
        return True

    def ranges(self) -> list[Range] | None:
        """The kernel's lines for our addresses; None where there is no /proc."""
        try:
            maps = _MAPS.read_bytes()
        except OSError:
            return None
        return ranges_from(maps, self._address, self.size_bytes)

    def place(self, device: str, inode: int) -> Place:
        """What lies at our addresses, which should be the file ``inode`` of ``device`` from its start on."""
        try:
            return self._place(self._mapped(), (device, inode))
        except (NotSealedError, ValueError):
            return Place("freed", None, None, excluded_from_core_dumps=False)
        except OSError:
            # Unmapped between two looks.
            return Place("replaced", None, None, excluded_from_core_dumps=False)

    def _place(self, mapping: mmap.mmap, file: tuple[str, int]) -> Place:
        ranges = self.ranges()
        if ranges is None:
            return Place("unreadable", None, self._lock_granted, _exclude_from_core_dumps(mapping))
        if not ranges or any(self._is_foreign(part, file) for part in ranges):
            return Place("replaced", None, None, excluded_from_core_dumps=False)
        permissions = ",".join(sorted({part.permissions for part in ranges}))
        locked = self._is_locked(mapping, ranges)
        return Place("whole", permissions, locked, _exclude_from_core_dumps(mapping))

    def free(self) -> None:
        """Unmap now, then release what lies behind; once. Raises DeviceBusyError while views live."""
        if self._unmap():
            self._release()

    def free_when_unused(self, on_freed: OnFreed) -> None:
        """Unmap now or when the last view dies, release, and call ``on_freed``; once. Never raises."""
        try:
            is_unmapped = self._unmap()
        except DeviceBusyError:
            self._free_with_last_view(on_freed)
        else:
            if is_unmapped:
                _finish(self._release, on_freed)

    def _unmap(self) -> bool:
        """Whether there still was something to unmap."""
        with self._lock:
            if self._mapping is None:
                return False
            try:
                self._mapping.close()
            except BufferError:
                raise DeviceBusyError(self._label, "views of its memory are alive") from None
            self._mapping = None
            return True

    def _free_with_last_view(self, on_freed: OnFreed) -> None:
        # The views alone now keep the mmap object alive. CPython unmaps it before weak references learn of
        # its end, so the bytes are gone when the callback runs.
        with self._lock:
            mapping, self._mapping = self._mapping, None
        if mapping is not None:
            last = weakref.finalize(mapping, _finish, self._release, on_freed)
            # At exit the views still live: the kernel frees the memory with the process.
            last.atexit = False

    def _mapped(self) -> mmap.mmap:
        mapping = self._mapping
        if mapping is None:
            raise NotSealedError(self._label, "freed")
        return mapping

    def _is_foreign(self, part: Range, file: tuple[str, int]) -> bool:
        return (part.device, part.inode) != file or part.offset != part.start - self._address

    def _is_locked(self, mapping: mmap.mmap, ranges: list[Range]) -> bool:
        if not kernel.can_tell_locks():
            return self._lock_granted
        return all(kernel.is_locked(mapping, part.start - self._address) for part in ranges)


def _finish(release: Callable[[], None], on_freed: OnFreed) -> None:
    # Runs in a finaliser, from which nothing may be raised (residency.md section 8).
    with contextlib.suppress(Exception):
        release()
    with contextlib.suppress(Exception):
        on_freed(False)  # noqa: FBT003 - one argument, named by its type


def _exclude_from_core_dumps(mapping: mmap.mmap) -> bool:
    # Said again at every look: the kernel has no cheap way to ask whether it still holds (smaps walks
    # every page), and saying it twice costs a microsecond.
    if not hasattr(mmap, "MADV_DONTDUMP"):
        return False
    try:
        mapping.madvise(mmap.MADV_DONTDUMP)
    except OSError:
        return False
    return True
