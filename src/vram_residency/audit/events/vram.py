"""Events of memory and seals: the user's seven, then the manager's and worker's (events.md)."""

from __future__ import annotations

from typing import ClassVar

from vram_residency.audit.events.base import Event, Strings, Uint


class VramSealed(Event, frozen=True, kw_only=True):
    """A model was sealed: ``vram_bytes`` bytes with ``digest``."""

    shard_id: str
    gpu_device: Uint
    vram_bytes: Uint
    digest: str
    worker_id: str
    device_uuid: str | None = None
    seal_sha256: str | None = None
    residency_sha256: str | None = None
    model_ref: str | None = None


class SealVerified(Event, frozen=True, kw_only=True):
    """A shard is what was sealed. ``scope`` is full, fast or sample; ``duration_us`` in microseconds."""

    shard_id: str
    worker_id: str
    digest: str | None = None
    scope: str | None = None
    bytes_checked: Uint | None = None
    duration_us: Uint | None = None
    device_uuid: str | None = None
    seal_sha256: str | None = None


class SealVerificationFailed(Event, frozen=True, kw_only=True):
    """A shard is not what was sealed, or the handle is not one of ours.

    ``reason``: digest_mismatch, signature_invalid, not_sealed, not_resident, unknown_shard, read_error.
    Offsets in bytes, inclusive.
    """

    critical: ClassVar[bool] = True

    shard_id: str
    reason: str
    expected_digest: str
    actual_digest: str
    worker_id: str
    severity: str
    first_bad_offset: Uint | None = None
    last_bad_offset: Uint | None = None
    tensors: Strings | None = None
    action_taken: str | None = None


class VramAllocated(Event, frozen=True, kw_only=True):
    """Memory was allocated. ``available_bytes`` and ``used_bytes`` are the values after it."""

    requested_bytes: Uint
    allocated_bytes: Uint
    available_bytes: Uint
    used_bytes: Uint
    gpu_device: Uint
    worker_id: str


class VramAllocationFailed(Event, frozen=True, kw_only=True):
    """Memory was refused. ``reason``: insufficient_vram, fragmentation, driver_error, over_limit."""

    requested_bytes: Uint
    available_bytes: Uint
    reason: str
    gpu_device: Uint
    worker_id: str


class VramDeallocated(Event, frozen=True, kw_only=True):
    """A shard's memory was freed; ``remaining_used`` bytes are still in use."""

    shard_id: str
    freed_bytes: Uint
    remaining_used: Uint
    gpu_device: Uint
    worker_id: str
    wiped: bool | None = None


class PolicyViolation(Event, frozen=True, kw_only=True):
    """Memory or device are not what the policy asks for.

    ``policy``: vram_only, gpu_required. ``violation``: unified_memory_detected, integrated_device,
    host_memory, managed_allocation, not_locked, invalid_device_properties. ``action_taken``:
    worker_stopped, request_rejected, allowed_by_configuration.
    """

    critical: ClassVar[bool] = True

    policy: str
    violation: str
    details: str
    severity: str
    worker_id: str
    action_taken: str


class ModelResealed(Event, frozen=True, kw_only=True):
    """Adopted weights were changed lawfully."""

    shard_id: str
    old_digest: str
    new_digest: str
    reason: str
    worker_id: str


class ShardQuarantined(Event, frozen=True, kw_only=True):
    """A damaged shard will never be handed out again."""

    shard_id: str
    reason: str
    worker_id: str


class ShardShared(Event, frozen=True, kw_only=True):
    """Another process was given a shard."""

    shard_id: str
    peer_pid: Uint
    peer_uid: Uint
    access: str


class ShareRevoked(Event, frozen=True, kw_only=True):
    """All shares of a shard up to ``epoch`` ended."""

    shard_id: str
    epoch: Uint


class ShardsLost(Event, frozen=True, kw_only=True):
    """Shards of a worker that died, found at the next opening."""

    shard_ids: Strings
    reason: str


class WorkerStateChanged(Event, frozen=True, kw_only=True):
    """The worker moved from one state to another."""

    worker_id: str
    from_state: str
    to_state: str
    reason: str


EVENTS: tuple[type[Event], ...] = (
    VramSealed,
    SealVerified,
    SealVerificationFailed,
    VramAllocated,
    VramAllocationFailed,
    VramDeallocated,
    PolicyViolation,
    ModelResealed,
    ShardQuarantined,
    ShardShared,
    ShareRevoked,
    ShardsLost,
    WorkerStateChanged,
)
