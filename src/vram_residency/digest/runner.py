"""What runs kernels: the few things that the digest of device memory asks of a driver."""

from __future__ import annotations

from typing import Protocol

from vram_residency.digest.launches import Launch


class KernelRunner(Protocol):
    """A device's scratch memory and its launches, all in the order in which they are asked for (one stream).

    Used by one thread. Addresses are private to it and its caller. What fails raises, and the caller releases
    what it has reserved.
    """

    def reserve(self, size_bytes: int, /) -> int:
        """The address of scratch memory, a multiple of 256. Raises AllocationError."""

    def release(self, address: int, /) -> None:
        """Wipe scratch memory and give it back."""

    def write(self, address: int, data: bytes | bytearray, /) -> None:
        """Copy ``data`` there; it may be changed once this returns."""

    def read(self, address: int, size_bytes: int, /) -> bytearray:
        """Bytes from there, after all that was launched before."""

    def launch(self, launch: Launch, /) -> None:
        """Run one kernel of ``kernels.cu``; each argument is a u64."""
