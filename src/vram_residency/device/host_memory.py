"""One shard in the machine's memory: a memfd that is filled, sealed by the kernel, and mapped read-only.

residency.md section 1. The mapping is made from a descriptor that cannot write, so the kernel never grants
it the right to (no VM_MAYWRITE): mprotect and /proc/self/mem are refused as well. It exists from the start,
empty, so that what arrives can be read through it while the rest is still being copied; a writable mapping
never exists.
"""

from __future__ import annotations

import contextlib
import mmap
import os
from collections.abc import Callable
from typing import ClassVar, TypeVar

from vram_residency.core.errors import AllocationError, InvalidInputError
from vram_residency.device import memfd
from vram_residency.device.base import Facts, Observer, OnFreed, Progress, ResidencyFault, Source
from vram_residency.device.descriptors import Occupant, ReadOnlyFile
from vram_residency.device.filling import pour
from vram_residency.device.region import Region

_Result = TypeVar("_Result")

#: What it means that a fact is no longer what it was at sealing.
_FINDINGS = {
    "mapping": "something else lies where the sealed memory was handed out",
    "permissions": "the protection of the mapping was changed",
    "locked": "the lock state of the pages is not the one at sealing",
    "excluded_from_core_dumps": "the memory would appear in core dumps",
    "descriptor": "the descriptor was closed or can write",
    "inode": "the descriptor now names another file",
    "device_number": "the descriptor now names another file",
    "size_bytes": "the file behind the memory has another size",
    "seals": "the kernel's seals are not the ones that were put on",
}


class HostSealedMemory:
    """A sealed memfd, mapped. See ``device.base.SealedMemory``.

    ``constants`` are facts that never change. ``_sealed_facts`` is what the kernel said right after sealing.
    """

    def __init__(self, file: ReadOnlyFile, region: Region, constants: Facts) -> None:
        self._file = file
        self._region = region
        self._constants = constants
        self._identity = file.facts()
        self._sealed_facts = self.facts()
        self.size_bytes = region.size_bytes

    @property
    def path(self) -> str | None:
        """``/proc/<pid>/fd/<n>``; once asked for, the number stays occupied after the memory is freed."""
        return self._file.path()

    def descriptor(self) -> int:
        """See ``device.base.SealedMemory``."""
        return _try("reopen a memfd read-only", memfd.reopen_read_only, self._file.fd)

    def view(self) -> memoryview:
        """Read-only bytes of the whole mapping. Raises NotSealedError once freed."""
        return self._region.view()

    def facts(self) -> Facts:
        """Read from the kernel now: what the descriptor names, and what lies at the mapped addresses."""
        device_number, inode = self._identity["device_number"], self._identity["inode"]
        place = self._region.place(str(device_number), int(inode or 0))
        return {**self._constants, **self._file.facts(), **place._asdict()}

    def check(self) -> ResidencyFault | None:
        """Compare every fact with the one at sealing; the finding is that of the first that differs."""
        now = self.facts()
        for name, finding in _FINDINGS.items():
            if now[name] != self._sealed_facts[name]:
                return ResidencyFault("not_resident", finding)
        return None

    def free(self) -> bool:
        """Unmap and close. False: a sealed memfd cannot be wiped; the kernel clears pages before reuse.

        Raises DeviceBusyError while views live.
        """
        self._region.free()
        return False

    def free_when_unused(self, on_freed: OnFreed) -> None:
        """See ``device.base.SealedMemory``."""
        self._region.free_when_unused(on_freed)

    def __repr__(self) -> str:
        return f"{type(self).__name__}(size_bytes={self.size_bytes})"


class HostOpenMemory:
    """A memfd that is being filled. See ``device.base.OpenMemory``."""

    seals: ClassVar[tuple[str, ...]] = memfd.ALL_SEALS

    def __init__(
        self, size_bytes: int, label: str, *, occupant: Occupant, lock: bool, constants: Facts
    ) -> None:
        self.size_bytes = size_bytes
        self.label = label
        self._constants: Facts = {"kind": "memfd", "weaker": False, **constants}
        self._may_lock = lock
        self._is_filled = False
        self._is_sealed = False
        with contextlib.ExitStack() as undo:
            self._writable_fd = _try("create a memfd", memfd.create, label, size_bytes)
            undo.callback(self._close_writable)
            read_only_fd = _try("reopen a memfd read-only", memfd.reopen_read_only, self._writable_fd)
            self._file = ReadOnlyFile(read_only_fd, occupant)
            undo.callback(self._file.close)
            mapping = _try("map a memfd", _map_read_only, read_only_fd, size_bytes)
            self._region = Region(mapping, label, release=self._file.close)
            undo.pop_all()
        if lock:
            self._region.lock_on_fault()

    def fill(
        self, source: Source, *, on_progress: Progress | None = None, observer: Observer | None = None
    ) -> None:
        """See ``device.base.OpenMemory``."""
        try:
            view = self._region.view()
            pour(source, view, write=self._write, on_progress=on_progress, observer=observer)
        except BaseException:
            self.discard()
            raise
        self._is_filled = True

    def seal(self) -> HostSealedMemory:
        """Make the memory immutable (residency.md section 1). See ``device.base.OpenMemory``.

        1. The kernel's seals go on: no write by anybody from here on.
        2. The writable descriptor is closed.
        3. The pages are locked, where that is allowed.
        4. Everything is read back from the kernel: what is not as it should be is refused.
        """
        if not self._is_filled:
            raise InvalidInputError("memory", "must be filled before it is sealed")
        try:
            # 1
            _try("seal a memfd", memfd.add_seals, self._writable_fd, self.seals)
            # 2
            self._close_writable()
            # 3
            if self._may_lock:
                self._region.lock()
            # 4
            sealed = self._as_sealed(self._file, self._region)
            self._require_sealed(sealed.facts())
        except BaseException:
            self.discard()
            raise
        self._is_sealed = True
        return sealed

    def discard(self) -> None:
        """See ``device.base.OpenMemory``."""
        if not self._is_sealed:
            self._close_writable()
            self._region.free_when_unused(lambda _wiped: None)

    def __repr__(self) -> str:
        return f"{type(self).__name__}(size_bytes={self.size_bytes})"

    def _as_sealed(self, file: ReadOnlyFile, region: Region) -> HostSealedMemory:
        return HostSealedMemory(file, region, self._constants)

    def _require_sealed(self, facts: Facts) -> None:
        wanted = {
            "mapping": "whole",
            "permissions": "r--s",
            "descriptor": "read_only",
            "size_bytes": self.size_bytes,
        }
        wrong = [name for name, value in wanted.items() if facts[name] != value]
        wrong += set(self.seals) - set(str(facts["seals"]).split(","))
        if wrong:
            raise AllocationError("seal a memfd", f"the kernel says otherwise of {', '.join(wrong)}")

    def _write(self, offset: int, run: memoryview) -> None:
        end = offset + len(run)
        while offset < end:
            offset += _try("write to a memfd", os.pwrite, self._writable_fd, run[offset - end :], offset)

    def _close_writable(self) -> None:
        fd, self._writable_fd = self._writable_fd, -1
        if fd >= 0:
            os.close(fd)


def borrow(
    descriptor: int, size_bytes: int, label: str, *, occupant: Occupant, lock: bool, constants: Facts
) -> HostSealedMemory:
    """Map memory that another process sealed, once the kernel says that it is.

    1. It is a memfd of that size with every seal on: nobody can write it or change its size, ever again.
    2. It is opened anew, to read only, whatever the descriptor that came here allows.
    3. It is mapped, and the pages are locked where that is allowed.
    Raises InvalidInputError, AllocationError.
    """
    # 1
    try:
        size, seals = os.fstat(descriptor).st_size, memfd.seals(descriptor).split(",")
    except OSError:
        raise InvalidInputError("descriptor", "names no sealed memory") from None
    missing = set(memfd.ALL_SEALS) - set(seals)
    if missing:
        raise InvalidInputError("descriptor", f"lacks the seals {', '.join(sorted(missing))}")
    if size != size_bytes:
        raise InvalidInputError("descriptor", f"has {size} bytes, not the {size_bytes} that were sealed")
    # 2
    file = ReadOnlyFile(_try("reopen a memfd read-only", memfd.reopen_read_only, descriptor), occupant)
    # 3
    try:
        region = Region(_try("map a memfd", _map_read_only, file.fd, size_bytes), label, release=file.close)
    except BaseException:
        file.close()
        raise
    if lock:
        region.lock()
    return HostSealedMemory(file, region, {"kind": "memfd", "weaker": False, "shared": True, **constants})


def _map_read_only(fd: int, size_bytes: int) -> mmap.mmap:
    return mmap.mmap(fd, size_bytes, flags=mmap.MAP_SHARED, prot=mmap.PROT_READ)


def _try(operation: str, function: Callable[..., _Result], *arguments: object) -> _Result:
    try:
        return function(*arguments)
    except OSError as error:
        raise AllocationError(operation, error.strerror or "refused") from error
