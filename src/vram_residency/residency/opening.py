"""From a name to a device and a policy for it; a device that is wanted and not there is a violation."""

from __future__ import annotations

import re

from vram_residency.audit.log import AuditLogger
from vram_residency.core import context
from vram_residency.core.errors import DeviceLostError, InvalidInputError
from vram_residency.device import open_device
from vram_residency.device.base import Device, DeviceInfo
from vram_residency.policy import Finding, Mode, Policy
from vram_residency.policy.verdict import GPU_REQUIRED
from vram_residency.residency.identity import Identity
from vram_residency.residency.options import ManagerOptions
from vram_residency.residency.recorder import Recorder

_CARD = re.compile(r"cuda:([0-9]{1,4})\Z")


def device_of(
    device: str | Device,
    audit_logger: AuditLogger,
    *,
    worker_id: str,
    gpu_device: int,
    options: ManagerOptions,
) -> Device:
    """An open device as it is, or one opened by its name; ``cuda`` alone is ``cuda:<gpu_device>``.

    Raises ConfigurationError, InvalidInputError for what is neither, and DeviceLostError once it is
    recorded that a GPU is required and not there.
    """
    if not isinstance(device, str):
        if not hasattr(device, "allocate"):
            raise InvalidInputError("device", "must be the name of a device or an open Device")
        return device
    name = f"cuda:{gpu_device}" if device == "cuda" else device
    try:
        return open_device(name, capacity_bytes=options.capacity_bytes, is_shareable=options.is_shareable)
    except DeviceLostError as error:
        missing = DeviceInfo(kind="cuda", index=gpu_device, name=name, uuid="", boot_id="")
        recorder = Recorder(audit_logger, Identity(worker_id, gpu_device, missing), audit_required=False)
        finding = Finding("invalid_device_properties", error.details)
        with context.operation(worker_id):
            recorder.policy_violation(finding, action_taken="worker_stopped", policy=GPU_REQUIRED)
        raise


def number_of(device: str | Device, gpu_device: int) -> int:
    """The number that seals and events carry: a card's own, whatever the default says.

    Raises InvalidInputError where a number and another card were named.
    """
    named = _CARD.match(device) if isinstance(device, str) else None
    if named is not None:
        number = int(named[1])
    elif not isinstance(device, str) and hasattr(device, "info") and device.info.kind == "cuda":
        number = device.info.index
    else:
        return gpu_device
    if gpu_device not in {0, number}:
        raise InvalidInputError("gpu_device", f"is {gpu_device}, and the device is number {number}")
    return number


def policy_for(device: Device, policy: Mode | Policy | None, options: ManagerOptions) -> Policy:
    """The policy as given, or in the mode that is safe for the device. Raises InvalidInputError."""
    if isinstance(policy, Policy):
        return policy
    default: Mode = "development" if device.info.kind == "host" else "strict"
    if policy not in {None, "strict", "development"}:
        raise InvalidInputError("policy", f"must be strict or development, not {policy!r}")
    return Policy(mode=policy or default, limits=options.limits)
