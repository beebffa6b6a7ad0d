"""Audit events: every class of events.md, and what emit() asks of them.

Event classes are frozen, keyword-only msgspec Structs whose fields stand in wire order; optional fields
are None when absent and are then left out of the entry.
"""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from vram_residency.audit.events import shape
from vram_residency.audit.events.base import (
    SEVERITIES,
    UINT_MAX,
    Actor,
    AuthMethod,
    Change,
    Event,
    Failure,
    PartialSuccess,
    Resource,
    Result,
    Severity,
    Success,
    Time,
    Uint,
)
from vram_residency.audit.events.family import (
    AuthFailure,
    AuthorizationDenied,
    AuthorizationGranted,
    AuthSuccess,
    DataDeleted,
    GdprDataAccessRequest,
    GdprDataExport,
    GdprRightToErasure,
    InferenceExecuted,
    IntegrityViolation,
    InvalidTokenUsed,
    MalformedModelRejected,
    ModelAccessed,
    NodeDeregistered,
    NodeRegistered,
    PathTraversalAttempt,
    PermissionChanged,
    PoolCreated,
    PoolDeleted,
    PoolModified,
    RateLimitExceeded,
    ResourceLimitViolation,
    SuspiciousActivity,
    TaskCanceled,
    TaskCompleted,
    TaskSubmitted,
    TokenCreated,
    TokenRevoked,
)
from vram_residency.audit.events.own import (
    AuditLogAccessed,
    ClockSteppedBack,
    EpochClosed,
    EventsDropped,
    KeyRotated,
    LogClosed,
    LogOpened,
    SegmentRotated,
    SegmentsPruned,
)
from vram_residency.audit.events.registry import (
    BUILT_IN,
    ENVELOPE_NAMES,
    LOG_OWN_TYPES,
    canonical_type,
    class_of,
    declares,
    event_type_of,
    is_critical,
    register,
)
from vram_residency.audit.events.vram import (
    ModelResealed,
    PolicyViolation,
    SealVerificationFailed,
    SealVerified,
    ShardQuarantined,
    ShardShared,
    ShardsLost,
    ShareRevoked,
    VramAllocated,
    VramAllocationFailed,
    VramDeallocated,
    VramSealed,
    WorkerStateChanged,
)
from vram_residency.core.errors import InvalidEventError


def validate(event: object) -> None:
    """Check the class and every field's type; a wrong one raises InvalidEventError, nothing is accepted."""
    event_type = event_type_of(event)
    assert isinstance(event, Event)  # noqa: S101 - only Events are registered; for the type checker
    if not shape.check_of(type(event))(event):
        raise InvalidEventError(event_type, shape.find_fault(event))


def to_fields(event: Event) -> dict[str, object]:
    """The event's own fields as plain values in declared order, absent ones left out, ``claimed_at`` last."""
    fields: dict[str, object] = msgspec.to_builtins(event)
    if event.claimed_at is not None:
        fields["claimed_at"] = fields.pop("claimed_at")
    return fields


def from_mapping(event_type: str, fields: Mapping[str, object]) -> Event:
    """An event from plain values, types strict, unknown fields refused. Raises InvalidEventError."""
    cls = class_of(event_type)
    try:
        event: Event = msgspec.convert(dict(fields), cls, strict=True)
    except (msgspec.ValidationError, RecursionError) as error:
        raise InvalidEventError(event_type, _rule(error), hint=_fields_of(cls)) from None
    validate(event)
    return event


def _fields_of(cls: type[Event]) -> str:
    """What the event takes, as a hint: ``shard_id, worker_id, scope?``."""
    fields = (field for field in msgspec.structs.fields(cls) if field.name != "claimed_at")
    names = (field.name if field.required else f"{field.name}?" for field in fields)
    return f"Its fields: {', '.join(names)}; docs/format/events.md has their types."


def _rule(error: Exception) -> str:
    if isinstance(error, RecursionError):
        return "nested too deep"
    # msgspec quotes names of unknown fields as they came: they must not reach a terminal raw or whole.
    return "".join(c if c.isprintable() else "?" for c in str(error)[:200])


__all__ = [
    "BUILT_IN",
    "ENVELOPE_NAMES",
    "LOG_OWN_TYPES",
    "SEVERITIES",
    "UINT_MAX",
    "Actor",
    "AuditLogAccessed",
    "AuthFailure",
    "AuthMethod",
    "AuthSuccess",
    "AuthorizationDenied",
    "AuthorizationGranted",
    "Change",
    "ClockSteppedBack",
    "DataDeleted",
    "EpochClosed",
    "Event",
    "EventsDropped",
    "Failure",
    "GdprDataAccessRequest",
    "GdprDataExport",
    "GdprRightToErasure",
    "InferenceExecuted",
    "IntegrityViolation",
    "InvalidTokenUsed",
    "KeyRotated",
    "LogClosed",
    "LogOpened",
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
    "Resource",
    "ResourceLimitViolation",
    "Result",
    "SealVerificationFailed",
    "SealVerified",
    "SegmentRotated",
    "SegmentsPruned",
    "Severity",
    "ShardQuarantined",
    "ShardShared",
    "ShardsLost",
    "ShareRevoked",
    "Success",
    "SuspiciousActivity",
    "TaskCanceled",
    "TaskCompleted",
    "TaskSubmitted",
    "Time",
    "TokenCreated",
    "TokenRevoked",
    "Uint",
    "VramAllocated",
    "VramAllocationFailed",
    "VramDeallocated",
    "VramSealed",
    "WorkerStateChanged",
    "canonical_type",
    "class_of",
    "declares",
    "event_type_of",
    "from_mapping",
    "is_critical",
    "register",
    "to_fields",
    "validate",
]
