"""Devices by name: ``host``, ``cuda:N``, ``auto`` (residency.md section 1)."""

from __future__ import annotations

import re
from pathlib import Path

from vram_residency.core.errors import ConfigurationError, DeviceLostError
from vram_residency.device.base import Device
from vram_residency.device.host import HostDevice

_CUDA = re.compile(r"cuda:(0|[1-9][0-9]{0,3})\Z")
_NODES = ("nvidia*", "nvhost-*")
# The GPU of a WSL machine has no node of NVIDIA's own; this library is there where its driver is.
_WSL_NODE, _WSL_DRIVER = "dxg", Path("/usr/lib/wsl/lib/libcuda.so.1")


def open_device(
    name: str,
    *,
    capacity_bytes: int | None = None,
    lock: bool = True,
    is_shareable: bool = False,
    nodes: Path = Path("/dev"),
) -> Device:
    """Open a device by its name.

    ``auto`` is the host only where ``nodes`` shows no NVIDIA device: a machine with a broken driver is never
    silently served from host memory. Whether the host is allowed is the policy's decision.

    ``is_shareable``: whether shards on a card can be lent to other processes; on the host they always can.

    Raises ConfigurationError for a name that means nothing, DeviceLostError where a card cannot be used.
    """
    if name == "host" or (name == "auto" and not has_nvidia_device(nodes)):
        return HostDevice(capacity_bytes=capacity_bytes, lock=lock)
    if name == "auto":
        return _open_card(0, name, is_shareable=is_shareable)
    if found := _CUDA.match(name):
        return _open_card(int(found[1]), name, is_shareable=is_shareable)
    raise ConfigurationError("device", f"must be host, auto or cuda:N, not {name!r}")


def card_numbers(nodes: Path = Path("/dev")) -> range:
    """The cards that the driver shows; none where the kernel shows no NVIDIA device."""
    if not has_nvidia_device(nodes):
        return range(0)
    from vram_residency.device.cuda.bindings import device_count

    return range(device_count())


def _open_card(number: int, name: str, *, is_shareable: bool) -> Device:
    from vram_residency.device.cuda.bindings import open_driver
    from vram_residency.device.cuda.device import CudaDevice
    from vram_residency.device.cuda.nvml import NvmlMonitor

    try:
        return CudaDevice(open_driver(number), monitor_of=NvmlMonitor, is_shareable=is_shareable)
    except DeviceLostError as error:
        raise DeviceLostError(name, error.details, hint=error.hint) from error


def has_nvidia_device(nodes: Path = Path("/dev")) -> bool:
    """Whether the kernel shows a device of NVIDIA's, usable or not."""
    if any(True for pattern in _NODES for _ in nodes.glob(pattern)):
        return True
    return (nodes / _WSL_NODE).exists() and _WSL_DRIVER.exists()
