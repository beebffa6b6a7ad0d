"""Kernels of one card, loaded from machine code, and scratch memory for them: one stream, in order."""

from __future__ import annotations

import contextlib
import ctypes
import weakref
from typing import Any, Final

from vram_residency.core.errors import AllocationError, InvalidInputError
from vram_residency.device.cuda.calls import Calls
from vram_residency.device.cuda.driver import Driver, DriverError, KernelLaunch
from vram_residency.device.cuda.failures import driver_errors
from vram_residency.device.kernel import address_of

#: What scratch memory begins at a multiple of; the driver promises at least that.
_ALIGNMENT: Final = 256


class CudaRunner:
    """See ``device.cuda.driver.Runner``. ``owner`` is kept, and with it the context.

    Raises DriverError where the machine code cannot be loaded.
    """

    def __init__(self, calls: Calls, stream: Any, cubin: bytes, *, owner: Driver) -> None:
        self._calls = calls
        self._stream = stream
        self._owner = owner
        self._sizes: dict[int, int] = {}
        self._functions: dict[str, Any] = {}
        self._module = calls.in_context("cuModuleLoadData", cubin)
        weakref.finalize(self, _unload, calls, self._module).atexit = False

    def reserve(self, size_bytes: int, /) -> int:
        """See ``Runner``."""
        with driver_errors("allocate scratch memory", self._owner):
            address = int(self._calls.in_context("cuMemAlloc", max(size_bytes, 1)))
        self._sizes[address] = size_bytes
        if address % _ALIGNMENT:
            self.release(address)
            raise AllocationError("allocate scratch memory", f"it begins at no multiple of {_ALIGNMENT}")
        return address

    def release(self, address: int, /) -> None:
        """See ``Runner``: given back even where it cannot be wiped, as on a device that is lost."""
        size_bytes = self._sizes.pop(address)
        with driver_errors("give scratch memory back", self._owner):
            try:
                self._in_stream("cuMemsetD8Async", address, 0, size_bytes)
                self._wait()
            finally:
                self._calls.in_context("cuMemFree", address)

    def write(self, address: int, data: bytes | bytearray, /) -> None:
        """See ``Runner``."""
        with driver_errors("write scratch memory", self._owner), memoryview(data) as view:
            self._in_stream("cuMemcpyHtoDAsync", address, address_of(view), view.nbytes)
            self._wait()

    def read(self, address: int, size_bytes: int, /) -> bytearray:
        """See ``Runner``."""
        data = bytearray(size_bytes)
        with driver_errors("read scratch memory", self._owner), memoryview(data) as view:
            self._in_stream("cuMemcpyDtoHAsync", address_of(view), address, size_bytes)
            self._wait()
        return data

    def launch(self, launch: KernelLaunch, /) -> None:
        """See ``Runner``."""
        if launch.blocks < 1:
            raise InvalidInputError("launch", "has no thread blocks")
        values = (ctypes.c_uint64 * len(launch.arguments))(*launch.arguments)
        places = [ctypes.addressof(values) + 8 * index for index in range(len(values))]
        pointers = (ctypes.c_void_p * len(places))(*places)
        grid, block = (launch.blocks, 1, 1), (launch.threads, 1, 1)
        with driver_errors("run kernels", self._owner):
            function = self._function(launch.kernel)
            arguments = (*grid, *block, 0, self._stream, ctypes.addressof(pointers), 0)
            self._calls.in_context("cuLaunchKernel", function, *arguments)

    def _function(self, kernel: str) -> Any:
        if kernel not in self._functions:
            found = self._calls.in_context("cuModuleGetFunction", self._module, kernel.encode())
            self._functions[kernel] = found
        return self._functions[kernel]

    def _in_stream(self, name: str, *arguments: Any) -> None:
        self._calls.in_context(name, *arguments, self._stream)

    def _wait(self) -> None:
        # What a kernel did wrong shows here.
        self._calls.in_context("cuStreamSynchronize", self._stream)


def _unload(calls: Calls, module: Any) -> None:
    # Runs in a finaliser, from which nothing may be raised.
    with contextlib.suppress(DriverError):
        calls.in_context("cuModuleUnload", module)
