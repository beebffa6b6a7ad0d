"""The seven emit functions of the user's documents (spec: api.md). Each emits one event of the same name.

``shard`` is any object with shard_id, gpu_device, vram_bytes, digest and model_ref. All raise what
``AuditLogger.emit`` raises; whether that fails the caller's operation is the caller's decision.
"""

from __future__ import annotations

from typing import Protocol

from vram_residency.audit.events.base import Event
from vram_residency.audit.events.vram import (
    PolicyViolation,
    SealVerificationFailed,
    SealVerified,
    VramAllocated,
    VramAllocationFailed,
    VramDeallocated,
    VramSealed,
)


class Emitter(Protocol):
    """What takes events: an AuditLogger or a double of it."""

    def emit(self, event: Event, /, *, durable: bool = False) -> object:
        """Accept one event."""


class ShardLike(Protocol):
    """What the helpers read from a shard."""

    @property
    def shard_id(self) -> str: ...  # noqa: D102
    @property
    def gpu_device(self) -> int: ...  # noqa: D102
    @property
    def vram_bytes(self) -> int: ...  # noqa: D102
    @property
    def digest(self) -> str: ...  # noqa: D102
    @property
    def model_ref(self) -> str | None: ...  # noqa: D102


def emit_vram_sealed(audit_logger: Emitter, shard: ShardLike, worker_id: str) -> None:
    """A model was sealed."""
    audit_logger.emit(
        VramSealed(
            shard_id=shard.shard_id,
            gpu_device=shard.gpu_device,
            vram_bytes=shard.vram_bytes,
            digest=shard.digest,
            worker_id=worker_id,
            model_ref=shard.model_ref,
        )
    )


def emit_seal_verified(audit_logger: Emitter, shard: ShardLike, worker_id: str) -> None:
    """A shard was verified."""
    audit_logger.emit(SealVerified(shard_id=shard.shard_id, worker_id=worker_id, digest=shard.digest))


def emit_seal_verification_failed(  # noqa: PLR0917 - the user's signature (api.md)
    audit_logger: Emitter,
    shard: ShardLike,
    reason: str,
    expected_digest: str,
    actual_digest: str,
    worker_id: str,
) -> None:
    """A shard failed verification, severity CRITICAL."""
    audit_logger.emit(
        SealVerificationFailed(
            shard_id=shard.shard_id,
            reason=reason,
            expected_digest=expected_digest,
            actual_digest=actual_digest,
            worker_id=worker_id,
            severity="CRITICAL",
        )
    )


def emit_vram_allocated(  # noqa: PLR0917
    audit_logger: Emitter,
    requested_bytes: int,
    allocated_bytes: int,
    available_bytes: int,
    used_bytes: int,
    gpu_device: int,
    worker_id: str,
) -> None:
    """Memory was allocated; ``available_bytes`` and ``used_bytes`` are the values after it."""
    audit_logger.emit(
        VramAllocated(
            requested_bytes=requested_bytes,
            allocated_bytes=allocated_bytes,
            available_bytes=available_bytes,
            used_bytes=used_bytes,
            gpu_device=gpu_device,
            worker_id=worker_id,
        )
    )


def emit_vram_allocation_failed(  # noqa: PLR0917
    audit_logger: Emitter,
    requested_bytes: int,
    available_bytes: int,
    reason: str,
    gpu_device: int,
    worker_id: str,
) -> None:
    """Memory was refused."""
    audit_logger.emit(
        VramAllocationFailed(
            requested_bytes=requested_bytes,
            available_bytes=available_bytes,
            reason=reason,
            gpu_device=gpu_device,
            worker_id=worker_id,
        )
    )


def emit_vram_deallocated(  # noqa: PLR0917
    audit_logger: Emitter,
    shard_id: str,
    freed_bytes: int,
    remaining_used: int,
    gpu_device: int,
    worker_id: str,
) -> None:
    """Memory was freed; ``remaining_used`` bytes are still in use."""
    audit_logger.emit(
        VramDeallocated(
            shard_id=shard_id,
            freed_bytes=freed_bytes,
            remaining_used=remaining_used,
            gpu_device=gpu_device,
            worker_id=worker_id,
        )
    )


def emit_policy_violation(  # noqa: PLR0917
    audit_logger: Emitter,
    violation: str,
    details: str,
    severity: str,
    action_taken: str,
    worker_id: str,
) -> None:
    """The policy vram_only was violated."""
    audit_logger.emit(
        PolicyViolation(
            policy="vram_only",
            violation=violation,
            details=details,
            severity=severity,
            worker_id=worker_id,
            action_taken=action_taken,
        )
    )
