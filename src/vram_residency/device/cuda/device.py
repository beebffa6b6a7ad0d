"""A card behind the protocol of a device (residency.md section 1, gpu.md)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from vram_residency.core.errors import DeviceLostError, InsufficientMemoryError, InvalidInputError
from vram_residency.device import identity
from vram_residency.device.base import DeviceInfo, Facts, OpenMemory, SealedMemory
from vram_residency.device.cuda.driver import CubinFor, Driver, Runner
from vram_residency.device.cuda.failures import device_required
from vram_residency.device.cuda.memory import CudaOpenMemory, borrow

#: What stays free: a tenth, and at least this.
HEADROOM_BYTES_MIN = 2 << 30


class Monitor(Protocol):
    """What watches the card from outside the driver: NVML."""

    def facts(self) -> Facts:
        """Versions, counters and modes; what cannot be read is None. Never raises."""


class NoMonitor:
    """Nobody watches: what only NVML knows stays unknown, and unknown passes no rule of the policy."""

    def facts(self) -> Facts:
        """That there is none."""
        return {"nvml": "absent", "virtual_gpu": None}


class CudaDevice:
    """One card's memory through the driver's virtual memory calls. See ``device.base.Device``.

    monitor_of: gives what watches the card of a UUID. is_shareable: whether shards can be lent to other
    processes; only then are they made exportable.

    Raises DeviceLostError.
    """

    def __init__(
        self,
        driver: Driver,
        *,
        monitor_of: Callable[[str], Monitor] = lambda _uuid: NoMonitor(),
        is_shareable: bool = False,
    ) -> None:
        self._driver = driver
        self._is_shareable = is_shareable
        self._is_closed = False
        self._boot_id = identity.current_boot_id()
        with device_required(driver):
            facts = driver.device_facts()
        self._monitor = monitor_of(str(facts["device_uuid"]))
        self.total_bytes = int(facts["total_bytes"] or 0)
        self.headroom_bytes = min(max(self.total_bytes // 10, HEADROOM_BYTES_MIN), self.total_bytes)
        self.info = DeviceInfo(
            kind="cuda",
            index=driver.ordinal,
            name=str(facts["name"]),
            uuid=str(facts["device_uuid"]),
            boot_id=self._boot_id,
        )

    def facts(self) -> Facts:
        """What the driver and NVML say of the device now. Raises DeviceLostError."""
        with device_required(self._driver):
            facts = self._driver.device_facts()
        # What the driver itself says wins; None is a question it left open.
        told = {name: value for name, value in facts.items() if value is not None}
        return {**facts, **self._monitor.facts(), **told, "boot_id": self._boot_id}

    def footprint_bytes(self, size_bytes: int) -> int:
        """See ``device.base.Device``: whole units of physical memory."""
        unit = self._driver.granularity_bytes
        return -(-size_bytes // unit) * unit

    def allocate(self, size_bytes: int, *, label: str) -> OpenMemory:
        """Memory for one shard. See ``device.base.Device``.

        Raises InsufficientMemoryError for more than the device has in all, or has free.
        """
        self._require_open()
        if size_bytes < 1:
            raise InvalidInputError("size_bytes", "must be at least 1: there is nothing to seal")
        if size_bytes > self.total_bytes:
            raise InsufficientMemoryError(size_bytes, self.total_bytes)
        return CudaOpenMemory(
            self._driver,
            size_bytes,
            label,
            constants=self._constants,
            is_exportable=self._is_shareable,
        )

    def borrow(self, descriptor: int, *, size_bytes: int, label: str) -> SealedMemory:
        """See ``device.base.Device``."""
        self._require_open()
        if size_bytes < 1:
            raise InvalidInputError("size_bytes", "must be at least 1")
        return borrow(self._driver, descriptor, size_bytes, label, constants=self._constants)

    def runner(self, cubin_for: CubinFor) -> Runner:
        """Load the kernels. Raises DeviceLostError, and what ``cubin_for`` does."""
        self._require_open()
        with device_required(self._driver):
            return self._driver.runner(cubin_for)

    def close(self) -> None:
        """Nothing more is allocated; the driver's context goes with the last memory. May be called again."""
        self._is_closed = True

    def __repr__(self) -> str:
        return f"{type(self).__name__}(index={self.info.index}, name={self.info.name!r})"

    @property
    def _constants(self) -> Facts:
        return {"boot_id": self._boot_id}

    def _require_open(self) -> None:
        if self._is_closed:
            raise DeviceLostError(f"cuda:{self.info.index}", "it was closed", hint="Open the device again.")
