"""Who seals, and where: the same for every part of one manager."""

from __future__ import annotations

from msgspec import Struct

from vram_residency.device.base import DeviceInfo


class Identity(Struct, frozen=True):
    """The worker's id, the GPU's ordinal as the caller counts, and the device behind it."""

    worker_id: str
    gpu_device: int
    device: DeviceInfo
