"""Where bytes are held: the protocol, the host device, and one that can be damaged on purpose."""

from __future__ import annotations

from vram_residency.device.base import (
    ByteSource,
    Device,
    DeviceInfo,
    Facts,
    OpenMemory,
    ResidencyFault,
    SealedMemory,
)
from vram_residency.device.opening import card_numbers, has_nvidia_device, open_device

__all__ = [
    "ByteSource",
    "Device",
    "DeviceInfo",
    "Facts",
    "OpenMemory",
    "ResidencyFault",
    "SealedMemory",
    "card_numbers",
    "has_nvidia_device",
    "open_device",
]
