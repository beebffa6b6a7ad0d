"""What this device asks of the CUDA driver, in its own nouns: a dozen calls, so that a double can stand in.

``bindings.py`` is the real one (`cuda.bindings.driver`), ``simulated.py`` the double that is shipped beside
it. Addresses and handles are numbers here and go no further than this package and the kernels.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, Protocol

from vram_residency.device.base import Facts

Access = Literal["none", "read", "read_write"]
#: Machine code of the kernels for a compute capability (major, minor).
CubinFor = Callable[[int, int], bytes]


class DriverError(Exception):
    """A call of the driver failed. ``call`` and ``code`` are the driver's own names for both.

    ``is_lost``: the context is gone for good, as after a fault of a kernel.
    """

    def __init__(self, call: str, code: str, *, is_lost: bool = False) -> None:
        super().__init__(call, code)
        self.call = call
        self.code = code
        self.is_lost = is_lost

    def __str__(self) -> str:
        return f"{self.call}: {self.code}"


class KernelLaunch(Protocol):
    """One launch, as who planned it describes it: a grid of one dimension, and arguments of 8 bytes each."""

    @property
    def kernel(self) -> str:
        """The kernel's name in the machine code."""

    @property
    def blocks(self) -> int:
        """How many thread blocks."""

    @property
    def threads(self) -> int:
        """Threads of each."""

    @property
    def arguments(self) -> tuple[int, ...]:
        """Numbers and addresses; private."""


class Runner(Protocol):
    """Scratch memory and launches of one device, as ``digest.runner`` asks for. Used by one thread at a time.

    Raises AllocationError, DeviceLostError.
    """

    def reserve(self, size_bytes: int, /) -> int:
        """The address of scratch memory, a multiple of 256."""

    def release(self, address: int, /) -> None:
        """Wipe scratch memory and give it back."""

    def write(self, address: int, data: bytes | bytearray, /) -> None:
        """Copy ``data`` there; it may be changed once this returns."""

    def read(self, address: int, size_bytes: int, /) -> bytearray:
        """Bytes from there, after all that was launched before."""

    def launch(self, launch: KernelLaunch, /) -> None:
        """Run one kernel, after all that was asked for before."""


class Driver(Protocol):
    """One device's memory calls. Safe to use from several threads: each call makes the context current.

    The context is held until nobody has this object any more: memory and kernels keep it.
    Every call may raise DriverError. Sizes and addresses of mappings are multiples of ``granularity_bytes``.
    """

    @property
    def ordinal(self) -> int:
        """The device's number, as this process counts."""

    @property
    def granularity_bytes(self) -> int:
        """The unit of physical memory."""

    def device_facts(self) -> Facts:
        """What the driver says of the device; no address in it."""

    def free_and_total_bytes(self) -> tuple[int, int]:
        """CuMemGetInfo."""

    def create(self, size_bytes: int, *, is_exportable: bool) -> int:
        """A handle of new physical memory: pinned, on this device (cuMemCreate)."""

    def release(self, handle: int) -> None:
        """Let go of a handle; the memory goes with its last handle and mapping (cuMemRelease)."""

    def reserve(self, size_bytes: int) -> int:
        """Addresses without memory (cuMemAddressReserve)."""

    def free_addresses(self, address: int, size_bytes: int) -> None:
        """Give addresses back (cuMemAddressFree)."""

    def map(self, address: int, size_bytes: int, handle: int) -> None:
        """Put memory behind addresses; not accessible yet (cuMemMap)."""

    def unmap(self, address: int, size_bytes: int) -> None:
        """Take it away again (cuMemUnmap)."""

    def allow(self, address: int, size_bytes: int, access: Literal["read", "read_write"]) -> None:
        """Say what this device may do there (cuMemSetAccess)."""

    def access(self, address: int) -> Access:
        """What it may do there, read back (cuMemGetAccess)."""

    def memory_facts(self, address: int) -> Facts:
        """What the driver says of the allocation behind an address: pointer attributes and properties."""

    def retain(self, address: int) -> int:
        """A new handle of the memory behind an address (cuMemRetainAllocationHandle)."""

    def write(self, address: int, data: memoryview) -> None:
        """Copy host bytes there, and wait for it."""

    def read(self, address: int, view: memoryview) -> None:
        """Copy bytes from there into a writable view, and wait for it."""

    def clear(self, address: int, size_bytes: int) -> None:
        """Overwrite with zeros, and wait for it."""

    def export(self, handle: int) -> int:
        """A POSIX descriptor of the memory (cuMemExportToShareableHandle)."""

    def borrow(self, descriptor: int) -> int:
        """A handle of memory that another process exported (cuMemImportFromShareableHandle)."""

    def runner(self, cubin_for: CubinFor, /) -> Runner:
        """The kernels, loaded, and scratch memory for them. Raises what ``cubin_for`` raises."""
