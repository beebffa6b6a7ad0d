"""Device memory with an address: created, mapped, made read-only, wiped, given back, each step undoable.

The order is the promise (gpu.md, "Parts"): every size is checked before the first call; the creation handle
is kept until the read-only mapping exists, since releasing it before would free the memory.
"""

from __future__ import annotations

from contextlib import ExitStack
from typing import Literal

from vram_residency.device.cuda.driver import Driver, DriverError


class Mapping:
    """Physical memory of one device behind addresses of one process. Not thread-safe: its owner is.

    ``size_bytes`` is what was asked for, ``mapped_bytes`` that in whole units of the device. The address is
    private to this package and the kernels.
    """

    _address: int
    _is_mapped: bool
    _is_closed: bool

    def __init__(self, driver: Driver, size_bytes: int, *, is_exportable: bool = False) -> None:
        """Create memory and map it for writing. Raises DriverError, ValueError; nothing stays then."""
        if size_bytes < 1:
            raise ValueError("a mapping needs at least one byte")
        unit = driver.granularity_bytes
        self.size_bytes = size_bytes
        self.mapped_bytes = -(-size_bytes // unit) * unit
        self._driver = driver
        with ExitStack() as undo:
            handle = driver.create(self.mapped_bytes, is_exportable=is_exportable)
            undo.callback(driver.release, handle)
            self._map(handle, "read_write", undo)
            self._handle: int | None = handle
            undo.pop_all()

    @classmethod
    def of_borrowed(cls, driver: Driver, descriptor: int, size_bytes: int) -> Mapping:
        """Map memory that another process exported, to read only. Raises DriverError; nothing stays then."""
        self = cls.__new__(cls)
        unit = driver.granularity_bytes
        self.size_bytes = size_bytes
        self.mapped_bytes = -(-size_bytes // unit) * unit
        self._driver = driver
        with ExitStack() as undo:
            handle = driver.borrow(descriptor)
            undo.callback(driver.release, handle)
            self._map(handle, "read", undo)
            # The mapping keeps the memory.
            undo.pop_all()
        self._handle = None
        driver.release(handle)
        return self

    @property
    def address(self) -> int:
        """Where it begins: a multiple of the device's unit."""
        return self._address

    def make_read_only(self) -> None:
        """Map the same memory anew, to read only, at the same address; then let go of the handle.

        1. The writable mapping goes: no store through it from here on.
        2. The same memory is mapped at the same address, allowing reads alone.
        3. What the driver says of it is read back by the owner (``access``).
        4. The creation handle is released: the mapping alone keeps the memory.
        Raises DriverError: the owner discards the mapping then.
        """
        if self._handle is None:
            raise ValueError("the mapping is read-only already")
        # 1
        self._driver.unmap(self._address, self.mapped_bytes)
        self._is_mapped = False
        # 2
        self._driver.map(self._address, self.mapped_bytes, self._handle)
        self._is_mapped = True
        self._driver.allow(self._address, self.mapped_bytes, "read")
        # 4
        handle, self._handle = self._handle, None
        self._driver.release(handle)

    def wipe(self) -> None:
        """Overwrite the memory, which is mapped for writing once more. Raises DriverError."""
        self._driver.allow(self._address, self.mapped_bytes, "read_write")
        self._driver.clear(self._address, self.mapped_bytes)

    def close(self) -> None:
        """Unmap, and give memory and addresses back. May be called again. Raises the first DriverError."""
        if self._is_closed:
            return
        self._is_closed = True
        with ExitStack() as steps:
            # Run from the last to the first, each of them whatever the others raise.
            steps.callback(self._driver.free_addresses, self._address, self.mapped_bytes)
            if self._handle is not None:
                steps.callback(self._driver.release, self._handle)
            if self._is_mapped:
                steps.callback(self._driver.unmap, self._address, self.mapped_bytes)

    def descriptor(self) -> int:
        """A descriptor of the memory for another process. Raises DriverError."""
        handle = self._driver.retain(self._address)
        try:
            return self._driver.export(handle)
        finally:
            self._driver.release(handle)

    def _map(self, handle: int, access: Literal["read", "read_write"], undo: ExitStack) -> None:
        address = self._driver.reserve(self.mapped_bytes)
        undo.callback(self._driver.free_addresses, address, self.mapped_bytes)
        self._driver.map(address, self.mapped_bytes, handle)
        undo.callback(self._driver.unmap, address, self.mapped_bytes)
        self._driver.allow(address, self.mapped_bytes, access)
        self._address = address
        self._is_mapped = True
        self._is_closed = False


def wiped_and_closed(mapping: Mapping) -> bool:
    """Wipe, then close; whether it was wiped. A device that is lost wipes nothing and keeps nothing."""
    try:
        mapping.wipe()
        is_wiped = True
    except DriverError:
        is_wiped = False
    try:
        mapping.close()
    except DriverError:
        return False
    return is_wiped
