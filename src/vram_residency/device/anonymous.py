"""Memory where memfd does not exist (macOS): an anonymous mapping made read-only by mprotect.

Weaker, and the facts say so: code of this process can make the mapping writable again, no seal of the kernel
forbids it, and no path leads to it. Verification is the control (residency.md section 1).
"""

from __future__ import annotations

import mmap

from vram_residency.core.errors import AllocationError, InvalidInputError
from vram_residency.device import kernel
from vram_residency.device.base import Facts, Observer, OnFreed, Progress, ResidencyFault, Source
from vram_residency.device.filling import pour
from vram_residency.device.region import Region


class AnonymousSealedMemory:
    """A read-only anonymous mapping. See ``device.base.SealedMemory``."""

    path: str | None = None

    def __init__(self, region: Region, constants: Facts) -> None:
        self._region = region
        self._constants = constants
        self.size_bytes = region.size_bytes
        # A shared anonymous mapping is a nameless file of the kernel's: its inode identifies it.
        ranges = region.ranges()
        self._file = (ranges[0].device, ranges[0].inode) if ranges else ("", 0)
        self._sealed_facts = self.facts()

    def descriptor(self) -> int:
        """None: an anonymous mapping belongs to this process alone."""
        raise InvalidInputError("shard", "lies in an anonymous mapping, which cannot be shared")

    def view(self) -> memoryview:
        """Read-only bytes of the whole mapping. Raises NotSealedError once freed."""
        return self._region.view()

    def facts(self) -> Facts:
        """What can be known of this memory: on macOS nothing about the mapping."""
        place = self._region.place(*self._file)
        return {**self._constants, "inode": self._file[1], "size_bytes": self.size_bytes, **place._asdict()}

    def check(self) -> ResidencyFault | None:
        """Compare what can be known with what was known at sealing."""
        if self.facts() == self._sealed_facts:
            return None
        return ResidencyFault("not_resident", "the mapping, its protection or its lock state has changed")

    def free(self) -> bool:
        """Unmap. Raises DeviceBusyError while views live."""
        self._region.free()
        return False

    def free_when_unused(self, on_freed: OnFreed) -> None:
        """See ``device.base.SealedMemory``."""
        self._region.free_when_unused(on_freed)

    def __repr__(self) -> str:
        return f"AnonymousSealedMemory(size_bytes={self.size_bytes})"


class AnonymousOpenMemory:
    """An anonymous mapping that is being filled. See ``device.base.OpenMemory``."""

    def __init__(self, size_bytes: int, label: str, *, lock: bool, constants: Facts) -> None:
        self.size_bytes = size_bytes
        self._constants: Facts = {"kind": "anonymous", "weaker": True, "seals": "", **constants}
        self._may_lock = lock
        self._is_filled = False
        self._is_sealed = False
        try:
            self._mapping: mmap.mmap | None = mmap.mmap(-1, size_bytes)
        except OSError as error:
            raise AllocationError("map memory", error.strerror or "refused") from error
        self._region = Region(self._mapping, label, release=lambda: None)

    def fill(
        self, source: Source, *, on_progress: Progress | None = None, observer: Observer | None = None
    ) -> None:
        """See ``device.base.OpenMemory``."""
        try:
            self._writable()
            view = self._region.view()
            pour(source, view, write=self._write, on_progress=on_progress, observer=observer)
        except BaseException:
            self.discard()
            raise
        self._is_filled = True

    def seal(self) -> AnonymousSealedMemory:
        """Take the right to write from the mapping. See ``device.base.OpenMemory``."""
        if not self._is_filled:
            raise InvalidInputError("memory", "must be filled before it is sealed")
        try:
            kernel.make_read_only(self._writable())
        except OSError as error:
            self.discard()
            raise AllocationError("protect memory", error.strerror or "refused") from error
        self._is_sealed = True
        self._mapping = None
        if self._may_lock:
            self._region.lock()
        return AnonymousSealedMemory(self._region, self._constants)

    def discard(self) -> None:
        """See ``device.base.OpenMemory``."""
        if not self._is_sealed:
            self._mapping = None
            self._region.free_when_unused(lambda _wiped: None)

    def __repr__(self) -> str:
        return f"AnonymousOpenMemory(size_bytes={self.size_bytes})"

    def _write(self, offset: int, run: memoryview) -> None:
        self._writable()[offset : offset + len(run)] = run

    def _writable(self) -> mmap.mmap:
        if self._mapping is None:
            raise InvalidInputError("memory", "was discarded or sealed")
        return self._mapping
