"""Deliberate damage, for tests and the demo only: a host device whose sealed memory has a writable twin.

The record shows it: ``fault_injection`` is true in the facts of the device and of its memory, and the
kernel's write seal is missing.
"""

from __future__ import annotations

import errno
import mmap
import os
import weakref
from typing import ClassVar, Literal

from vram_residency.core.errors import (
    AllocationError,
    DeviceLostError,
    InvalidInputError,
    UnknownShardError,
)
from vram_residency.device import memfd
from vram_residency.device.base import (
    Facts,
    Observer,
    OnFreed,
    OpenMemory,
    Progress,
    ResidencyFault,
    Source,
)
from vram_residency.device.descriptors import Occupant, ReadOnlyFile
from vram_residency.device.host import HostDevice
from vram_residency.device.host_memory import HostOpenMemory, HostSealedMemory
from vram_residency.device.region import Region

Operation = Literal["allocate", "fill", "seal", "view", "facts", "check", "free"]


class Faults:
    """What is to fail next: at most one error for each operation."""

    def __init__(self) -> None:
        self._next: dict[str, BaseException | ResidencyFault] = {}

    def plan(self, operation: Operation, error: BaseException | ResidencyFault) -> None:
        """Let the next ``operation`` fail with ``error``."""
        self._next[operation] = error

    def take(self, operation: Operation) -> ResidencyFault | None:
        """Raise or return what was planned for ``operation``, once."""
        error = self._next.pop(operation, None)
        if isinstance(error, BaseException):
            raise error
        return error


class FaultDevice(HostDevice):
    """A host device that can be damaged. Its memory lies in a memfd, so it needs one."""

    def __init__(self, *, capacity_bytes: int | None = None, lock: bool = True) -> None:
        super().__init__(capacity_bytes=capacity_bytes, lock=lock, backing="memfd")
        self.faults = Faults()
        self._is_out_of_memory = False
        self._twins: weakref.WeakValueDictionary[str, _FaultSealedMemory] = weakref.WeakValueDictionary()

    def facts(self) -> Facts:
        """Those of a host device, and that this is none to rely on."""
        return {**super().facts(), "fault_injection": True}

    def flip_bit(self, label: str, offset: int, bit: int = 0) -> None:
        """Flip one bit of sealed memory; ``bit`` 0 is the least.

        Raises UnknownShardError, InvalidInputError.
        """
        if bit not in range(8):
            raise InvalidInputError("bit", f"must be in 0 to 7, not {bit}")
        twin = self._twin(label, offset, 1)
        twin[offset] ^= 1 << bit

    def write(self, label: str, offset: int, data: bytes) -> None:
        """Overwrite sealed memory. Raises UnknownShardError, InvalidInputError."""
        self._twin(label, offset, len(data))[offset : offset + len(data)] = data

    def fail_next(self, operation: Operation, error: BaseException | ResidencyFault) -> None:
        """Let the next ``operation`` on any memory of this device raise ``error``.

        A ResidencyFault is what the next ``check`` returns.
        """
        self.faults.plan(operation, error)

    def run_out_of_memory(self) -> None:
        """From here on every allocation fails, until ``recover()``."""
        self._is_out_of_memory = True

    def recover(self) -> None:
        """Allocations succeed again."""
        self._is_out_of_memory = False

    def remember(self, label: str, memory: _FaultSealedMemory) -> None:
        """Know sealed memory by its label, for as long as somebody holds it."""
        self._twins[label] = memory

    def _open_memory(self, size_bytes: int, label: str) -> OpenMemory:
        self.faults.take("allocate")
        if self._is_out_of_memory:
            raise AllocationError("create a memfd", os.strerror(errno.ENOMEM))
        if self._occupant is None:
            raise DeviceLostError("host", "it has no memfd")
        return _FaultOpenMemory(
            size_bytes,
            label,
            occupant=self._occupant,
            lock=self.lock,
            constants=self._constants,
            device=self,
        )

    def _twin(self, label: str, offset: int, length: int) -> mmap.mmap:
        memory = self._twins.get(label)
        if memory is None:
            raise UnknownShardError(label)
        if offset < 0 or offset + length > memory.size_bytes:
            raise InvalidInputError("offset", f"must lie inside the {memory.size_bytes} bytes of '{label}'")
        return memory.twin


class _FaultSealedMemory(HostSealedMemory):
    """Sealed memory with a writable twin: the same pages, mapped twice."""

    def __init__(
        self, file: ReadOnlyFile, region: Region, constants: Facts, *, twin: mmap.mmap, faults: Faults
    ) -> None:
        self.twin = twin
        self._faults = faults
        super().__init__(file, region, constants)

    def view(self) -> memoryview:
        self._faults.take("view")
        return super().view()

    def facts(self) -> Facts:
        self._faults.take("facts")
        return super().facts()

    def check(self) -> ResidencyFault | None:
        return self._faults.take("check") or super().check()

    def free(self) -> bool:
        self._faults.take("free")
        is_wiped = super().free()
        self.twin.close()
        return is_wiped

    def free_when_unused(self, on_freed: OnFreed) -> None:
        self.twin.close()
        super().free_when_unused(on_freed)


class _FaultOpenMemory(HostOpenMemory):
    """A memfd that keeps a writable mapping and is therefore never sealed against writing."""

    seals: ClassVar[tuple[str, ...]] = memfd.SIZE_SEALS

    def __init__(
        self,
        size_bytes: int,
        label: str,
        *,
        occupant: Occupant,
        lock: bool,
        constants: Facts,
        device: FaultDevice,
    ) -> None:
        constants = {**constants, "fault_injection": True}
        super().__init__(size_bytes, label, occupant=occupant, lock=lock, constants=constants)
        self._device = device
        self._faults = device.faults
        self._twin = mmap.mmap(self._writable_fd, size_bytes)

    def fill(
        self, source: Source, *, on_progress: Progress | None = None, observer: Observer | None = None
    ) -> None:
        try:
            self._faults.take("fill")
        except BaseException:
            self.discard()
            raise
        super().fill(source, on_progress=on_progress, observer=observer)

    def discard(self) -> None:
        super().discard()
        if not self._is_sealed:
            self._twin.close()

    def _as_sealed(self, file: ReadOnlyFile, region: Region) -> HostSealedMemory:
        self._faults.take("seal")
        sealed = _FaultSealedMemory(file, region, self._constants, twin=self._twin, faults=self._faults)
        self._device.remember(self.label, sealed)
        return sealed
