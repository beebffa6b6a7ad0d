"""The audit log: what happened, told so that nobody can change it unseen (spec: audit-log.md, events.md).

Names are loaded when they are first used: `vram --help` need not pay for fifty event classes.
"""

# ruff: noqa: F405 - the event classes come by a star import
from __future__ import annotations

from typing import TYPE_CHECKING

from vram_residency.core.lazy_names import lazy_names

if TYPE_CHECKING:
    from vram_residency.audit.events import *  # noqa: F403
    from vram_residency.audit.format.checkpoint import SignedCheckpoint
    from vram_residency.audit.format.receipt import Receipt
    from vram_residency.audit.helpers import (
        emit_policy_violation,
        emit_seal_verification_failed,
        emit_seal_verified,
        emit_vram_allocated,
        emit_vram_allocation_failed,
        emit_vram_deallocated,
        emit_vram_sealed,
    )
    from vram_residency.audit.log import AuditLogger
    from vram_residency.audit.pruning import Removed, Retention, prune
    from vram_residency.audit.publishing.proving import (
        Consistency,
        Inclusion,
        prove_consistency,
        prove_inclusion,
    )
    from vram_residency.audit.publishing.witness import WitnessAnchor
    from vram_residency.audit.reading.verdict import Verdict
    from vram_residency.audit.reading.verification import verify
    from vram_residency.audit.writing.creation import create_log
    from vram_residency.audit.writing.options import LogOptions
    from vram_residency.audit.writing.placement import KeyPlacementWarning
    from vram_residency.audit.writing.stats import LogStats

__all__ = [
    "Actor",
    "AuditLogAccessed",
    "AuditLogger",
    "AuthFailure",
    "AuthMethod",
    "AuthSuccess",
    "AuthorizationDenied",
    "AuthorizationGranted",
    "Change",
    "ClockSteppedBack",
    "Consistency",
    "DataDeleted",
    "EpochClosed",
    "Event",
    "EventsDropped",
    "Failure",
    "GdprDataAccessRequest",
    "GdprDataExport",
    "GdprRightToErasure",
    "Inclusion",
    "InferenceExecuted",
    "IntegrityViolation",
    "InvalidTokenUsed",
    "KeyPlacementWarning",
    "KeyRotated",
    "LogClosed",
    "LogOpened",
    "LogOptions",
    "LogStats",
    "MalformedModelRejected",
    "ModelAccessed",
    "ModelResealed",
    "NodeDeregistered",
    "NodeRegistered",
    "PartialSuccess",
    "PathTraversalAttempt",
    "PermissionChanged",
    "PolicyViolation",
    "PoolCreated",
    "PoolDeleted",
    "PoolModified",
    "RateLimitExceeded",
    "Receipt",
    "Removed",
    "Resource",
    "ResourceLimitViolation",
    "Result",
    "Retention",
    "SealVerificationFailed",
    "SealVerified",
    "SegmentRotated",
    "SegmentsPruned",
    "Severity",
    "ShardQuarantined",
    "ShardShared",
    "ShardsLost",
    "ShareRevoked",
    "SignedCheckpoint",
    "Success",
    "SuspiciousActivity",
    "TaskCanceled",
    "TaskCompleted",
    "TaskSubmitted",
    "Time",
    "TokenCreated",
    "TokenRevoked",
    "Uint",
    "Verdict",
    "VramAllocated",
    "VramAllocationFailed",
    "VramDeallocated",
    "VramSealed",
    "WitnessAnchor",
    "WorkerStateChanged",
    "create_log",
    "emit_policy_violation",
    "emit_seal_verification_failed",
    "emit_seal_verified",
    "emit_vram_allocated",
    "emit_vram_allocation_failed",
    "emit_vram_deallocated",
    "emit_vram_sealed",
    "prove_consistency",
    "prove_inclusion",
    "prune",
    "register",
    "verify",
]

#: Name → module of this package; what is not here is one of the events.
_HOMES = {
    "AuditLogger": "log",
    "Consistency": "publishing.proving",
    "Inclusion": "publishing.proving",
    "KeyPlacementWarning": "writing.placement",
    "LogOptions": "writing.options",
    "LogStats": "writing.stats",
    "Receipt": "format.receipt",
    "Removed": "pruning",
    "Retention": "pruning",
    "SignedCheckpoint": "format.checkpoint",
    "Verdict": "reading.verdict",
    "WitnessAnchor": "publishing.witness",
    "create_log": "writing.creation",
    "emit_policy_violation": "helpers",
    "emit_seal_verification_failed": "helpers",
    "emit_seal_verified": "helpers",
    "emit_vram_allocated": "helpers",
    "emit_vram_allocation_failed": "helpers",
    "emit_vram_deallocated": "helpers",
    "emit_vram_sealed": "helpers",
    "prove_consistency": "publishing.proving",
    "prove_inclusion": "publishing.proving",
    "prune": "pruning",
    "verify": "reading.verification",
}
__getattr__, __dir__ = lazy_names(
    __name__, {name: f"{__name__}.{_HOMES.get(name, 'events')}" for name in __all__}
)
