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
    name: str, *, capacity_bytes: int | None = None, lock: bool = True, nodes: Path = Path("/dev")
) -> Device:
    """Open a device by its name.

    ``auto`` is the host only where ``nodes`` shows no NVIDIA device: a machine with a broken driver is never
    silently served from host memory. Whether the host is allowed is the policy's decision.

    Raises ConfigurationError for a name that means nothing, DeviceLostError where CUDA is wanted.
    """
    if name == "host" or (name == "auto" and not has_nvidia_device(nodes)):
        return HostDevice(capacity_bytes=capacity_bytes, lock=lock)
    if name == "auto":
        raise DeviceLostError("auto", "an NVIDIA device is present, and this version cannot use CUDA yet")
    if _CUDA.match(name):
        raise DeviceLostError(name, "this version cannot use CUDA yet")
    raise ConfigurationError("device", f"must be host, auto or cuda:N, not {name!r}")


def has_nvidia_device(nodes: Path = Path("/dev")) -> bool:
    """Whether the kernel shows a device of NVIDIA's, usable or not."""
    if any(True for pattern in _NODES for _ in nodes.glob(pattern)):
        return True
    return (nodes / _WSL_NODE).exists() and _WSL_DRIVER.exists()
