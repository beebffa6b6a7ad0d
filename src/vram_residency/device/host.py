"""The host device: the machine's own memory, behind the protocol of a card (residency.md section 1)."""

from __future__ import annotations

import contextlib
import resource
from typing import Literal

from vram_residency.core.errors import (
    AllocationError,
    ConfigurationError,
    DeviceLostError,
    InsufficientMemoryError,
    InvalidInputError,
)
from vram_residency.device import capacity, host_memory, identity, memfd
from vram_residency.device.anonymous import AnonymousOpenMemory
from vram_residency.device.base import DeviceInfo, Facts, OpenMemory, SealedMemory
from vram_residency.device.descriptors import Occupant
from vram_residency.device.host_memory import HostOpenMemory

Backing = Literal["memfd", "anonymous"]


class HostDevice:
    """Memory of the machine with a capacity of its own. See ``device.base.Device``.

    capacity_bytes: what it offers; None is half of what the machine or its cgroup has available now.
    lock: keep shards out of swap where RLIMIT_MEMLOCK or CAP_IPC_LOCK allows it.
    backing: None is ``memfd`` where the system has it, else the weaker ``anonymous``.

    Raises ConfigurationError, AllocationError.
    """

    headroom_bytes = 0

    def __init__(
        self, *, capacity_bytes: int | None = None, lock: bool = True, backing: Backing | None = None
    ) -> None:
        if capacity_bytes is not None and capacity_bytes < 1:
            raise ConfigurationError("capacity_bytes", f"must be at least 1, not {capacity_bytes}")
        if backing == "memfd" and not memfd.is_supported():
            raise ConfigurationError("backing", "this system has no memfd with seals")
        self._is_capacity_given = capacity_bytes is not None
        self.total_bytes = capacity_bytes or capacity.available_bytes() // 2
        boot_id = identity.current_boot_id()
        uuid = identity.host_uuid(boot_id=boot_id)
        self.info = DeviceInfo(kind="host", index=0, name="host memory", uuid=uuid, boot_id=boot_id)
        self.lock = lock
        self.backing: Backing = backing or ("memfd" if memfd.is_supported() else "anonymous")
        self._occupant = self._new_occupant()
        self._is_closed = False

    def facts(self) -> Facts:
        """What is fixed about the device; lock_limit_bytes is None where there is no limit."""
        return {
            "kind": "host",
            "name": self.info.name,
            "device_uuid": self.info.uuid,
            "boot_id": self.info.boot_id,
            "total_bytes": self.total_bytes,
            "capacity": "configured" if self._is_capacity_given else "half_of_available",
            "backing": self.backing,
            "weaker": self.backing != "memfd",
            "locking": self.lock,
            "lock_limit_bytes": _lock_limit_bytes(),
        }

    def footprint_bytes(self, size_bytes: int) -> int:
        """See ``device.base.Device``: pages are not counted here."""
        return size_bytes

    def allocate(self, size_bytes: int, *, label: str) -> OpenMemory:
        """Memory for one shard. See ``device.base.Device``.

        Raises InsufficientMemoryError for more than the device has in all.
        """
        if self._is_closed:
            raise DeviceLostError("host", "it was closed", hint="Open the device again.")
        if size_bytes < 1:
            raise InvalidInputError("size_bytes", "must be at least 1: there is nothing to seal")
        if size_bytes > self.total_bytes:
            raise InsufficientMemoryError(size_bytes, self.total_bytes)
        return self._open_memory(size_bytes, label)

    def borrow(self, descriptor: int, *, size_bytes: int, label: str) -> SealedMemory:
        """See ``device.base.Device``."""
        if self._is_closed:
            raise DeviceLostError("host", "it was closed", hint="Open the device again.")
        if self._occupant is None:
            raise InvalidInputError("device", "has no memfd: nothing can be shared with it")
        return host_memory.borrow(
            descriptor,
            size_bytes,
            label,
            occupant=self._occupant,
            lock=self.lock,
            constants=self._constants,
        )

    def close(self) -> None:
        """Numbers of freed descriptors are given back. May be called again."""
        self._is_closed = True
        if self._occupant is not None:
            self._occupant.close()

    def __repr__(self) -> str:
        return f"{type(self).__name__}(total_bytes={self.total_bytes})"

    @property
    def _constants(self) -> Facts:
        return {"device_uuid": self.info.uuid, "boot_id": self.info.boot_id}

    def _open_memory(self, size_bytes: int, label: str) -> OpenMemory:
        if self._occupant is None:
            return AnonymousOpenMemory(size_bytes, label, lock=self.lock, constants=self._constants)
        return HostOpenMemory(
            size_bytes, label, occupant=self._occupant, lock=self.lock, constants=self._constants
        )

    def _new_occupant(self) -> Occupant | None:
        if self.backing != "memfd":
            return None
        try:
            return Occupant()
        except OSError as error:
            raise AllocationError("create a memfd", error.strerror or "refused") from error


def _lock_limit_bytes() -> int | None:
    with contextlib.suppress(OSError, ValueError):
        limit = resource.getrlimit(resource.RLIMIT_MEMLOCK)[0]
        return None if limit == resource.RLIM_INFINITY else limit
    return 0
