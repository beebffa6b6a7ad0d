"""A driver without a card: the same calls over ordinary memory, with the rules that a real driver keeps.

For tests alone, and visible as such: its facts say ``simulated``. It refuses what the driver refuses, faults
on what a card faults on, counts what is held, and fails on demand at any call. Its addresses are addresses of
this process with the protection that was asked for, so that kernels built for the CPU read the very memory.
"""

from __future__ import annotations

import itertools
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Literal

from vram_residency.device.base import Facts
from vram_residency.device.cuda.addresses import Reservation
from vram_residency.device.cuda.driver import Access, CubinFor, DriverError, Runner
from vram_residency.device.memfd import create as create_memfd


class _Physical:
    def __init__(self, size_bytes: int, *, is_exportable: bool) -> None:
        self.descriptor = create_memfd("simulated", size_bytes)
        self.size_bytes = size_bytes
        self.is_exportable = is_exportable
        self.holders = 0

    def hold(self) -> None:
        self.holders += 1

    def let_go(self) -> bool:
        """Whether that was the last handle or mapping."""
        self.holders -= 1
        if self.holders == 0:
            os.close(self.descriptor)
        return self.holders == 0


class _Range:
    def __init__(self, reservation: Reservation) -> None:
        self.reservation = reservation
        self.size_bytes = reservation.size_bytes
        self.physical: _Physical | None = None
        self.access: Access = "none"


class SimulatedDriver:
    """See ``device.cuda.driver.Driver``. ``calls`` is what was asked; ``fail_at(n)`` fails the n-th call.

    ``changes`` overrides facts of the device, ``memory_changes`` those of every allocation. ``kernels``
    runs kernels over its memory.
    """

    def __init__(
        self,
        *,
        total_bytes: int = 4 << 30,
        granularity_bytes: int = 2 << 20,
        ordinal: int = 0,
        kernels: Runner | None = None,
    ) -> None:
        self.kernels = kernels
        self.ordinal = ordinal
        self.granularity_bytes = granularity_bytes
        self.total_bytes = total_bytes
        self.calls: list[str] = []
        self.changes: dict[str, Any] = {}
        self.memory_changes: dict[str, Any] = {}
        self._failing_call: int | None = None
        self._failing_code = "CUDA_ERROR_OUT_OF_MEMORY"
        self._lock = threading.RLock()  # guards everything below; a real driver locks too
        self._numbers = itertools.count(1)
        self._handles: dict[int, _Physical] = {}
        self._ranges: dict[int, _Range] = {}
        self._used_bytes = 0

    @property
    def uuid(self) -> str:
        """The device's own name, here made of its number."""
        return f"GPU-00000000-0000-0000-0000-{self.ordinal:012}"

    # --- what tests ask and do ------------------------------------------------------------------------

    @property
    def held(self) -> tuple[int, int, int]:
        """Bytes of physical memory in use, handles, and address ranges: all zero when nothing leaked."""
        return self._used_bytes, len(self._handles), len(self._ranges)

    def fail_at(self, call: int, code: str = "CUDA_ERROR_OUT_OF_MEMORY") -> None:
        """Let the ``call``-th call from now on (0 is the next) fail once."""
        self._failing_call, self._failing_code = len(self.calls) + call, code

    def poke(self, address: int, data: bytes) -> None:
        """Change memory behind everybody's back, as a fault of the card would."""
        physical, offset = self._at(address, len(data), "poke")
        os.pwrite(physical.descriptor, data, offset)

    # --- the calls --------------------------------------------------------------------------------------

    def device_facts(self) -> Facts:
        with self._call("cuDeviceGetAttribute"):
            facts: Facts = {
                "kind": "cuda",
                "simulated": True,
                "name": "Simulated GPU",
                "device_uuid": self.uuid,
                "compute_capability": "9.0",
                "total_bytes": self.total_bytes,
                "integrated": False,
                "mps": False,
                "wsl": False,
                "virtual_gpu": False,
            }
            return {**facts, **self.changes}

    def free_and_total_bytes(self) -> tuple[int, int]:
        with self._call("cuMemGetInfo"):
            return self.total_bytes - self._used_bytes, self.total_bytes

    def create(self, size_bytes: int, *, is_exportable: bool) -> int:
        with self._call("cuMemCreate"):
            self._require_units("cuMemCreate", size_bytes)
            if self._used_bytes + size_bytes > self.total_bytes:
                raise DriverError("cuMemCreate", "CUDA_ERROR_OUT_OF_MEMORY")
            physical = _Physical(size_bytes, is_exportable=is_exportable)
            self._used_bytes += size_bytes
            return self._handle_of(physical)

    def release(self, handle: int) -> None:
        with self._call("cuMemRelease"):
            self._let_go(self._taken(self._handles, handle, "cuMemRelease"))

    def reserve(self, size_bytes: int) -> int:
        with self._call("cuMemAddressReserve"):
            self._require_units("cuMemAddressReserve", size_bytes)
            reservation = Reservation(size_bytes, self.granularity_bytes)
            self._ranges[reservation.address] = _Range(reservation)
            return reservation.address

    def free_addresses(self, address: int, size_bytes: int) -> None:
        with self._call("cuMemAddressFree"):
            found = self._range(address, size_bytes, "cuMemAddressFree")
            if found.physical is not None:
                raise DriverError("cuMemAddressFree", "CUDA_ERROR_INVALID_VALUE")
            self._ranges.pop(address).reservation.close()

    def map(self, address: int, size_bytes: int, handle: int) -> None:
        with self._call("cuMemMap"):
            found = self._range(address, size_bytes, "cuMemMap")
            physical = self._handles.get(handle)
            if physical is None or found.physical is not None or physical.size_bytes != size_bytes:
                raise DriverError("cuMemMap", "CUDA_ERROR_INVALID_VALUE")
            physical.hold()
            found.physical, found.access = physical, "none"
            found.reservation.map(physical.descriptor)

    def unmap(self, address: int, size_bytes: int) -> None:
        with self._call("cuMemUnmap"):
            found = self._range(address, size_bytes, "cuMemUnmap")
            if found.physical is None:
                raise DriverError("cuMemUnmap", "CUDA_ERROR_INVALID_VALUE")
            found.reservation.unmap()
            self._let_go(found.physical)
            found.physical, found.access = None, "none"

    def allow(self, address: int, size_bytes: int, access: Literal["read", "read_write"]) -> None:
        with self._call("cuMemSetAccess"):
            found = self._range(address, size_bytes, "cuMemSetAccess")
            if found.physical is None:
                raise DriverError("cuMemSetAccess", "CUDA_ERROR_INVALID_VALUE")
            found.access = access
            found.reservation.allow(access)

    def access(self, address: int) -> Access:
        with self._call("cuMemGetAccess"):
            return self._range(address, None, "cuMemGetAccess").access

    def memory_facts(self, address: int) -> Facts:
        with self._call("cuPointerGetAttributes"):
            physical, _ = self._at(address, 1, "cuPointerGetAttributes")
            found = self._containing(address)
            facts: Facts = {
                "kind": "cuda",
                "simulated": True,
                "memory_type": "device",
                "managed": False,
                "device_ordinal": self.ordinal,
                "device_uuid": self.uuid,
                "access": found[1].access,
                "mapped_bytes": physical.size_bytes,
                "exportable": physical.is_exportable,
            }
            return {**facts, **self.memory_changes}

    def retain(self, address: int) -> int:
        with self._call("cuMemRetainAllocationHandle"):
            physical, _ = self._at(address, 1, "cuMemRetainAllocationHandle")
            return self._handle_of(physical)

    def write(self, address: int, data: memoryview) -> None:
        with self._call("cuMemcpyHtoD"):
            physical, offset = self._at(address, data.nbytes, "cuMemcpyHtoD", {"read_write"})
            os.pwrite(physical.descriptor, data, offset)

    def read(self, address: int, view: memoryview) -> None:
        with self._call("cuMemcpyDtoH"):
            physical, offset = self._at(address, view.nbytes, "cuMemcpyDtoH", {"read", "read_write"})
            os.preadv(physical.descriptor, [view], offset)

    def clear(self, address: int, size_bytes: int) -> None:
        with self._call("cuMemsetD8"):
            physical, offset = self._at(address, size_bytes, "cuMemsetD8", {"read_write"})
            os.pwrite(physical.descriptor, bytes(size_bytes), offset)

    def export(self, handle: int) -> int:
        with self._call("cuMemExportToShareableHandle"):
            physical = self._handles.get(handle)
            if physical is None or not physical.is_exportable:
                raise DriverError("cuMemExportToShareableHandle", "CUDA_ERROR_NOT_PERMITTED")
            return os.dup(physical.descriptor)

    def runner(self, _cubin_for: CubinFor) -> Runner:
        with self._call("cuModuleLoadData"):
            if self.kernels is None:
                raise DriverError("cuModuleLoadData", "CUDA_ERROR_NOT_SUPPORTED")
            return self.kernels

    def borrow(self, descriptor: int) -> int:
        with self._call("cuMemImportFromShareableHandle"):
            physical = _Physical.__new__(_Physical)
            physical.descriptor = os.dup(descriptor)
            physical.size_bytes = os.fstat(descriptor).st_size
            physical.is_exportable, physical.holders = True, 0
            self._used_bytes += physical.size_bytes
            return self._handle_of(physical)

    # --- rules ------------------------------------------------------------------------------------------

    @contextmanager
    def _call(self, name: str) -> Iterator[None]:
        with self._lock:
            number = len(self.calls)
            self.calls.append(name)
            if number == self._failing_call:
                raise DriverError(name, self._failing_code)
            yield

    def _handle_of(self, physical: _Physical) -> int:
        handle = next(self._numbers)
        physical.hold()
        self._handles[handle] = physical
        return handle

    def _let_go(self, physical: _Physical) -> None:
        if physical.let_go():
            self._used_bytes -= physical.size_bytes

    def _require_units(self, call: str, size_bytes: int) -> None:
        if size_bytes < 1 or size_bytes % self.granularity_bytes:
            raise DriverError(call, "CUDA_ERROR_INVALID_VALUE")

    def _range(self, address: int, size_bytes: int | None, call: str) -> _Range:
        found = self._ranges.get(address)
        if found is None or size_bytes not in {None, found.size_bytes}:
            raise DriverError(call, "CUDA_ERROR_INVALID_VALUE")
        return found

    def _containing(self, address: int) -> tuple[int, _Range]:
        for start, found in self._ranges.items():
            if start <= address < start + found.size_bytes:
                return start, found
        raise DriverError("cuPointerGetAttributes", "CUDA_ERROR_INVALID_VALUE")

    def _at(
        self, address: int, size_bytes: int, call: str, allowed: set[Access] | None = None
    ) -> tuple[_Physical, int]:
        """The memory behind an address, and the offset in it; a forbidden access faults as on a card."""
        start, found = self._containing(address)
        if found.physical is None or address + size_bytes > start + found.size_bytes:
            raise DriverError(call, "CUDA_ERROR_ILLEGAL_ADDRESS", is_lost=True)
        if allowed is not None and found.access not in allowed:
            raise DriverError(call, "CUDA_ERROR_ILLEGAL_ADDRESS", is_lost=True)
        return found.physical, address - start

    @staticmethod
    def _taken(table: dict[int, _Physical], handle: int, call: str) -> _Physical:
        if handle not in table:
            raise DriverError(call, "CUDA_ERROR_INVALID_VALUE")
        return table.pop(handle)
