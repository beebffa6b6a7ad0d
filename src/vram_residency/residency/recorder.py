"""Who records what (residency.md section 8): each operation's evidence and its sentence, side by side.

The audit entry comes first: it is evidence. Its failure never fails the operation, unless audit is
required, and then only an operation that succeeded otherwise; it is always narrated and counted.
"""

from __future__ import annotations

import threading

from vram_residency import narration
from vram_residency.audit import events
from vram_residency.audit.events.base import Event
from vram_residency.audit.events.registry import event_type_of
from vram_residency.audit.format.receipt import Receipt
from vram_residency.audit.log import AuditLogger
from vram_residency.core.errors import AuditError, AuditWriteError
from vram_residency.policy import Finding
from vram_residency.policy.verdict import VRAM_ONLY, PolicyName
from vram_residency.residency.budget import Capacity
from vram_residency.residency.damage import Damage
from vram_residency.residency.identity import Identity
from vram_residency.residency.observer import NOBODY, Observer, result_of
from vram_residency.residency.registry import Record
from vram_residency.residency.shard import Verification
from vram_residency.seal.statement import sha256_hex

FLUSH_TIMEOUT_S = 5.0


class Recorder:
    """The two traces of one manager. Counts audit failures in ``audit_failures``."""

    def __init__(
        self,
        audit_logger: AuditLogger,
        identity: Identity,
        *,
        audit_required: bool,
        observer: Observer = NOBODY,
    ) -> None:
        self.audit_failures = 0
        self._observer = observer
        self._logger = audit_logger
        self._device = identity.device
        self._gpu_device = identity.gpu_device
        self.worker_id = identity.worker_id
        self._required = audit_required
        self._lock = threading.Lock()
        self._place = "host" if identity.device.kind == "host" else None

    def started(self, capacity: Capacity) -> None:
        """The manager holds its device."""
        if self._device.kind == "cuda":
            narration.narrate_cuda_context_init(
                name=self._device.name,
                total_bytes=capacity.total_bytes,
                gpu_device=self._gpu_device,
                device=self._place,
            )
        narration.narrate_vram_manager_init(
            gpu_count=1, total_bytes=capacity.total_bytes, gpu_device=self._gpu_device, device=self._place
        )

    def capacity_asked(self, capacity: Capacity) -> None:
        """Somebody asked how full the device is."""
        narration.narrate_capacity_query(
            available_bytes=capacity.available_bytes,
            used_bytes=capacity.used_bytes,
            total_bytes=capacity.total_bytes,
            gpu_device=self._gpu_device,
            device=self._place,
        )

    def allocated(self, size_bytes: int, taken_bytes: int, capacity: Capacity, duration_ms: float) -> None:
        """Memory was allocated: ``taken_bytes`` for ``size_bytes``; ``capacity`` is the one after it."""
        self._audit(
            events.VramAllocated(
                requested_bytes=size_bytes,
                allocated_bytes=taken_bytes,
                available_bytes=capacity.available_bytes,
                used_bytes=capacity.used_bytes,
                gpu_device=self._gpu_device,
                worker_id=self.worker_id,
            )
        )
        narration.narrate_vram_allocated(
            requested_bytes=size_bytes,
            allocated_bytes=taken_bytes,
            available_bytes=capacity.available_bytes,
            used_bytes=capacity.used_bytes,
            duration_ms=duration_ms,
            gpu_device=self._gpu_device,
            device=self._place,
        )

    def allocation_failed(self, size_bytes: int, available_bytes: int, reason: str) -> None:
        """Memory was refused."""
        self._observer.allocation_failed(reason)
        self._audit_failure(
            events.VramAllocationFailed(
                requested_bytes=size_bytes,
                available_bytes=available_bytes,
                reason=reason,
                gpu_device=self._gpu_device,
                worker_id=self.worker_id,
            )
        )
        narration.narrate_vram_allocation_failed(
            requested_bytes=size_bytes,
            available_bytes=available_bytes,
            reason=reason,
            gpu_device=self._gpu_device,
            device=self._place,
        )

    def deallocated(self, shard_id: str, freed_bytes: int, capacity: Capacity, *, wiped: bool) -> None:
        """Memory was given back; ``capacity`` is the one after it."""
        self._audit_failure(
            events.VramDeallocated(
                shard_id=shard_id,
                freed_bytes=freed_bytes,
                remaining_used=capacity.used_bytes,
                gpu_device=self._gpu_device,
                worker_id=self.worker_id,
                wiped=wiped,
            )
        )
        narration.narrate_vram_deallocated(
            shard_id=shard_id,
            freed_bytes=freed_bytes,
            used_bytes=capacity.used_bytes,
            gpu_device=self._gpu_device,
            device=self._place,
        )

    def digest_computed(self, algorithm: str, size_bytes: int, duration_ms: float) -> None:
        """Device memory was measured."""
        narration.narrate_digest_computed(
            algorithm=algorithm,
            vram_bytes=size_bytes,
            duration_ms=duration_ms,
            gpu_device=self._gpu_device,
            device=self._place,
        )

    def signed(self, shard_id: str, duration_ms: float) -> None:
        """A statement was signed."""
        narration.narrate_signature_generated(
            shard_id=shard_id, duration_ms=duration_ms, gpu_device=self._gpu_device, device=self._place
        )

    def sealed(self, record: Record, duration_ms: float) -> None:
        """A shard is sealed and registered."""
        shard, statement = record.shard, record.statement
        self._audit(
            events.VramSealed(
                shard_id=shard.shard_id,
                gpu_device=shard.gpu_device,
                vram_bytes=shard.vram_bytes,
                digest=shard.digest,
                worker_id=shard.worker_id,
                device_uuid=statement.device_uuid,
                seal_sha256=sha256_hex(statement.canonical()),
                residency_sha256=statement.residency_sha256,
                model_ref=shard.model_ref,
            )
        )
        self._observer.sealed(duration_ms / 1e3)
        narration.narrate_model_sealed(
            shard_id=shard.shard_id,
            vram_bytes=shard.vram_bytes,
            duration_ms=duration_ms,
            model_ref=shard.model_ref,
            gpu_device=self._gpu_device,
            device=self._place,
        )

    def seal_failed(self, error: BaseException) -> None:
        """A seal came to nothing; why is recorded where it was found."""
        self._observer.seal_failed(result_of(error))

    def resealed(self, record: Record, old_digest: str, reason: str, duration_ms: float) -> None:
        """Adopted weights were changed lawfully and sealed again."""
        self._audit(
            events.ModelResealed(
                shard_id=record.shard.shard_id,
                old_digest=old_digest,
                new_digest=record.shard.digest,
                reason=reason,
                worker_id=self.worker_id,
            )
        )
        narration.narrate_model_sealed(
            shard_id=record.shard.shard_id,
            vram_bytes=record.shard.vram_bytes,
            duration_ms=duration_ms,
            model_ref=record.shard.model_ref,
            gpu_device=self._gpu_device,
            device=self._place,
        )

    def verified(
        self, record: Record, result: Verification, *, at_gate: bool, durable: bool = False
    ) -> Receipt | None:
        """A shard is what was sealed."""
        receipt = self._audit(
            events.SealVerified(
                shard_id=record.shard.shard_id,
                worker_id=self.worker_id,
                digest=result.digest,
                scope=result.scope,
                bytes_checked=result.bytes_checked,
                duration_us=round(result.duration_s * 1e6),
                device_uuid=record.statement.device_uuid,
                seal_sha256=sha256_hex(record.statement.canonical()),
            ),
            durable=durable,
        )
        self._observer.verified(result)
        narration.narrate_seal_verified(
            shard_id=record.shard.shard_id,
            duration_ms=result.duration_s * 1e3,
            at_gate=at_gate,
            gpu_device=self._gpu_device,
            device=self._place,
        )
        return receipt

    def verification_failed(
        self, damage: Damage, *, severity: str, action_taken: str, result: Verification | None = None
    ) -> None:
        """A shard is not what was sealed; or, without ``result``, a handle is not one of ours."""
        if result is None:
            self._observer.handle_refused()
        else:
            self._observer.damage_found(result)
        self._audit_failure(
            events.SealVerificationFailed(
                shard_id=damage.shard_id,
                reason=damage.reason,
                expected_digest=damage.expected_digest,
                actual_digest=damage.actual_digest,
                worker_id=self.worker_id,
                severity=severity,
                first_bad_offset=damage.first_bad_offset,
                last_bad_offset=damage.last_bad_offset,
                tensors=list(damage.tensors) or None,
                action_taken=action_taken,
            )
        )
        narration.narrate_seal_verification_failed(
            shard_id=damage.shard_id, reason=damage.reason, gpu_device=self._gpu_device, device=self._place
        )

    def quarantined(self, shard_id: str, reason: str) -> None:
        """A damaged shard will never be handed out again; the log is flushed at once."""
        self._audit_failure(
            events.ShardQuarantined(shard_id=shard_id, reason=reason, worker_id=self.worker_id)
        )
        try:
            self._logger.flush(timeout_s=FLUSH_TIMEOUT_S)
        except AuditError as error:
            self._audit_failed("flush", error)

    def shared(self, shard_id: str, *, peer_pid: int, peer_uid: int) -> None:
        """Another process is given a shard: recorded before it gets anything."""
        self._audit(
            events.ShardShared(shard_id=shard_id, peer_pid=peer_pid, peer_uid=peer_uid, access="read_only")
        )

    def share_revoked(self, shard_id: str, epoch: int) -> None:
        """All loans of a shard have ended."""
        self._audit_failure(events.ShareRevoked(shard_id=shard_id, epoch=epoch))

    def policy_violation(
        self, finding: Finding, *, action_taken: str, policy: PolicyName = VRAM_ONLY
    ) -> None:
        """The policy was broken, and this is what followed."""
        self._observer.policy_violated()
        self._audit_failure(
            events.PolicyViolation(
                policy=policy,
                violation=finding.violation,
                details=finding.details,
                severity="CRITICAL" if action_taken != "allowed_by_configuration" else "MEDIUM",
                worker_id=self.worker_id,
                action_taken=action_taken,
            )
        )
        narration.narrate_policy_violation(
            violation=finding.violation,
            action_taken=action_taken,
            gpu_device=self._gpu_device,
            device=self._place,
        )

    def model_rejected(self, model_ref: str, validation_error: str) -> None:
        """A model file broke a rule of its format."""
        self._audit_failure(
            events.MalformedModelRejected(
                model_ref=model_ref,
                validation_error=validation_error,
                severity="HIGH",
                action_taken="request_rejected",
                worker_id=self.worker_id,
            )
        )
        self.input_refused("model", validation_error)

    def digest_mismatched(self, resource_id: str, expected: str, actual: str) -> None:
        """The memory does not hold the approved bytes."""
        self._audit_failure(
            events.IntegrityViolation(
                resource_type="model",
                resource_id=resource_id,
                expected_hash=expected,
                actual_hash=actual,
                severity="CRITICAL",
                action_taken="request_rejected",
                worker_id=self.worker_id,
            )
        )
        self.input_refused("model digest", f"expected {expected}, memory holds {actual}")

    def input_refused(self, what: str, reason: str) -> None:
        """The caller's input broke a rule."""
        narration.narrate_validation_failed(what=what, reason=reason)

    def _audit(self, event: Event, *, durable: bool = False) -> Receipt | None:
        try:
            return self._logger.emit(event, durable=durable)
        except AuditError as error:
            self._audit_failed(event_type_of(event), error)
            if self._required:
                raise
            return None

    def _audit_failure(self, event: Event) -> None:
        """Record an event of a failure, or of an end: an audit error must not hide what is happening."""
        try:
            self._logger.emit(event)
        except AuditError as error:
            self._audit_failed(event_type_of(event), error)

    def audit_write_failed(self, error: AuditWriteError) -> None:
        """The log's own writer could not write: narrated at once, since nobody waits for that writer."""
        self._audit_failed(error.operation, error)

    def _audit_failed(self, what: str, error: AuditError) -> None:
        with self._lock:
            self.audit_failures += 1
        narration.narrate(
            action="audit_failed",
            target=what,
            human=f"Audit event '{what}' could not be recorded: {type(error).__name__}",
            level="error",
            error_kind=type(error).__name__,
        )
