"""One shard in a card's memory: filled through a writable mapping, mapped to read only, in the end wiped.

gpu.md, "Parts". Nothing here has a host address: bytes are read by copies, handed out as ``DeviceBytes``, and
digested by kernels.
"""

from __future__ import annotations

import contextlib
import threading
import weakref
from collections.abc import Callable
from typing import NoReturn

from vram_residency.core.errors import (
    AllocationError,
    ConfigurationError,
    DeviceBusyError,
    InvalidInputError,
    NotSealedError,
)
from vram_residency.device.base import Facts, Observer, OnFreed, Progress, ResidencyFault, Source
from vram_residency.device.cuda.driver import Driver, DriverError
from vram_residency.device.cuda.failures import driver_errors
from vram_residency.device.cuda.mapping import Mapping, wiped_and_closed
from vram_residency.device.filling import runs

#: What it means that a fact is no longer what it was at sealing.
_FINDINGS = {
    "device_uuid": "the memory lies on another device now",
    "device_ordinal": "the memory lies on another device now",
    "memory_type": "the memory is no device memory any more",
    "managed": "the memory is managed now",
    "access": "the access rights of the mapping were changed",
    "mapped": "nothing is mapped where the sealed memory was handed out",
    "mapped_bytes": "something else is mapped where the sealed memory was handed out",
    "buffer_id": "something else is mapped where the sealed memory was handed out",
}
# What must be read back before memory is called sealed. Where it lies is the policy's to judge.
_WANTED: Facts = {"mapped": True, "access": "read"}


class _Keeper:
    """Whoever has it keeps freed-for-later memory mapped."""


class DeviceBytes:
    """A run of sealed device memory, in use for as long as this object lives.

    ``address`` is for kernels and consumers on the device. It is never shown, and never leaves the process.
    """

    keeper: _Keeper | None = None

    def __init__(self, address: int, size_bytes: int, ordinal: int) -> None:
        self.address = address
        self.size_bytes = size_bytes
        self.ordinal = ordinal

    def __repr__(self) -> str:
        return f"DeviceBytes(size_bytes={self.size_bytes})"

    def __reduce__(self) -> NoReturn:
        raise TypeError("device memory stays in its process")


class CudaSealedMemory:
    """Device memory mapped to read only. See ``device.base.SealedMemory``; ``view()`` has nothing to show.

    ``constants`` are facts that never change. Borrowed memory is the lender's: it is not wiped here.
    """

    def __init__(
        self, driver: Driver, mapping: Mapping, label: str, *, constants: Facts, is_borrowed: bool = False
    ) -> None:
        self.size_bytes = mapping.size_bytes
        self._driver = driver
        self._mapping: Mapping | None = mapping
        self._label = label
        self._constants = constants
        self._is_borrowed = is_borrowed
        self._exports: weakref.WeakSet[DeviceBytes] = weakref.WeakSet()
        self._lock = threading.Lock()  # guards _mapping, and that no export begins while it ends
        self._sealed_facts = self.facts()

    def __repr__(self) -> str:
        return f"{type(self).__name__}(size_bytes={self.size_bytes})"

    def __reduce__(self) -> NoReturn:
        raise TypeError("device memory stays in its process")

    @property
    def path(self) -> None:
        """No path leads to a card's memory."""

    def descriptor(self) -> int:
        """See ``device.base.SealedMemory``. Raises AllocationError where it was not made to be shared."""
        with self._lock, driver_errors("share device memory", self._driver):
            return self._mapped().descriptor()

    def view(self) -> memoryview:
        """Refused: the machine cannot read there. Raises ConfigurationError."""
        raise ConfigurationError(
            "view", "the bytes lie on the GPU", hint="Take a tensor's .torch(), .cupy() or __dlpack__."
        )

    def open(self, start: int = 0, end: int | None = None) -> DeviceBytes:
        """Bytes for kernels and consumers on the device: an export. Raises NotSealedError once freed."""
        with self._lock:
            address = self._mapped().address
            size_bytes = (self.size_bytes if end is None else end) - start
            export = DeviceBytes(address + start, size_bytes, self._driver.ordinal)
            self._exports.add(export)
            return export

    def read_into(self, offset: int, view: memoryview) -> None:
        """Copy bytes from the memory into host memory. Raises NotSealedError, DeviceLostError."""
        export = self.open(offset, offset + view.nbytes)
        with driver_errors("read device memory", self._driver):
            self._driver.read(export.address, view)

    def facts(self) -> Facts:
        """Read from the driver now: what lies at the mapped addresses, and who may do what there."""
        mapping = self._mapping
        if mapping is None:
            return {**self._constants, "kind": "cuda", "mapped": False}
        try:
            return {**self._constants, "mapped": True, **self._driver.memory_facts(mapping.address)}
        except DriverError as error:
            return {**self._constants, "kind": "cuda", "mapped": False, "driver": error.code}

    def check(self) -> ResidencyFault | None:
        """Compare every fact with the one at sealing; the finding is that of the first that differs."""
        now, then = self.facts(), self._sealed_facts
        if "driver" in now:
            return ResidencyFault("read_error", f"the driver no longer answers: {now['driver']}")
        for name, finding in _FINDINGS.items():
            if now.get(name) != then.get(name):
                return ResidencyFault("not_resident", finding)
        changed = sorted(name for name in now.keys() | then.keys() if now.get(name) != then.get(name))
        if changed:
            return ResidencyFault("not_resident", f"facts changed since sealing: {', '.join(changed)}")
        return None

    def require_sealed(self) -> None:
        """Refuse memory of which the driver does not say all that is wanted. Raises AllocationError."""
        wrong = [name for name, value in _WANTED.items() if self._sealed_facts.get(name) != value]
        if wrong:
            raise AllocationError("seal device memory", f"the driver says otherwise of {', '.join(wrong)}")

    def free(self) -> bool:
        """See ``device.base.SealedMemory``: remapped for writing, wiped, given back."""
        with self._lock:
            if self._exports:
                raise DeviceBusyError(self._label, "views of its memory are alive")
            mapping, self._mapping = self._mapping, None
        return mapping is not None and self._given_back(mapping)

    def free_when_unused(self, on_freed: OnFreed) -> None:
        """See ``device.base.SealedMemory``."""
        with self._lock:
            mapping, self._mapping = self._mapping, None
            exports = list(self._exports)
        if mapping is None:
            return
        give_back = _give_back_borrowed if self._is_borrowed else wiped_and_closed
        if not exports:
            _finish(give_back, mapping, on_freed)
            return
        keeper = _Keeper()
        for export in exports:
            export.keeper = keeper
        # At exit the driver frees the memory with the process.
        weakref.finalize(keeper, _finish, give_back, mapping, on_freed).atexit = False

    def _given_back(self, mapping: Mapping) -> bool:
        return _give_back_borrowed(mapping) if self._is_borrowed else wiped_and_closed(mapping)

    def _mapped(self) -> Mapping:
        if self._mapping is None:
            raise NotSealedError(self._label, "freed")
        return self._mapping


class CudaOpenMemory:
    """Device memory that is being filled. See ``device.base.OpenMemory``: observers see what is copied."""

    def __init__(
        self, driver: Driver, size_bytes: int, label: str, *, constants: Facts, is_exportable: bool
    ) -> None:
        self.size_bytes = size_bytes
        self.label = label
        self._driver = driver
        self._constants = constants
        self._is_filled = False
        with driver_errors("allocate device memory", driver, size_bytes=size_bytes):
            self._mapping: Mapping | None = Mapping(driver, size_bytes, is_exportable=is_exportable)

    def __repr__(self) -> str:
        return f"{type(self).__name__}(size_bytes={self.size_bytes})"

    def fill(
        self, source: Source, *, on_progress: Progress | None = None, observer: Observer | None = None
    ) -> None:
        """See ``device.base.OpenMemory``. What counts is measured later, in the memory itself."""
        if self._mapping is None:
            raise InvalidInputError("memory", "was sealed or discarded")
        done = 0
        try:
            for run in runs(source, self.size_bytes):
                with driver_errors("write device memory", self._driver):
                    self._driver.write(self._mapping.address + done, run)
                if observer is not None:
                    observer(run.toreadonly())
                done += run.nbytes
                if on_progress is not None:
                    on_progress(done, self.size_bytes)
        except BaseException:
            self.discard()
            raise
        self._is_filled = True

    def seal(self) -> CudaSealedMemory:
        """Map it to read only, for good. See ``device.base.OpenMemory``.

        1. The same memory is mapped anew, to read only, and its handle released.
        2. Everything is read back from the driver: what is not as it should be is refused.
        """
        mapping = self._mapping
        if mapping is None or not self._is_filled:
            raise InvalidInputError("memory", "must be filled before it is sealed")
        try:
            # 1
            with driver_errors("seal device memory", self._driver):
                mapping.make_read_only()
            # 2
            sealed = CudaSealedMemory(self._driver, mapping, self.label, constants=self._constants)
            sealed.require_sealed()
        except BaseException:
            self.discard()
            raise
        self._mapping = None
        return sealed

    def discard(self) -> None:
        """See ``device.base.OpenMemory``: wiped, where the device still can."""
        mapping, self._mapping = self._mapping, None
        if mapping is not None:
            wiped_and_closed(mapping)


def borrow(
    driver: Driver, descriptor: int, size_bytes: int, label: str, *, constants: Facts
) -> CudaSealedMemory:
    """Map memory that another process exported, to read only, and read its facts back.

    The lender chooses its own access: that nobody writes is not enforced, which is why it is verified.
    Raises InvalidInputError, AllocationError.
    """
    try:
        mapping = Mapping.of_borrowed(driver, descriptor, size_bytes)
    except DriverError as error:
        raise InvalidInputError(
            "descriptor", f"names no memory of that size on this device: {error}"
        ) from error
    facts: Facts = {**constants, "shared": True}
    sealed = CudaSealedMemory(driver, mapping, label, constants=facts, is_borrowed=True)
    try:
        sealed.require_sealed()
    except BaseException:
        sealed.free()
        raise
    return sealed


def _give_back_borrowed(mapping: Mapping) -> bool:
    with contextlib.suppress(DriverError):
        mapping.close()
    return False


def _finish(give_back: Callable[[Mapping], bool], mapping: Mapping, on_freed: OnFreed) -> None:
    # Runs in a finaliser, from which nothing may be raised (residency.md section 8).
    is_wiped = False
    with contextlib.suppress(Exception):
        is_wiped = give_back(mapping)
    with contextlib.suppress(Exception):
        on_freed(is_wiped)
