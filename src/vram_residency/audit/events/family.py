"""Events that vram-residency shares with its family of services (events.md)."""

from __future__ import annotations

from typing import ClassVar

from vram_residency.audit.events.base import (
    Actor,
    Change,
    Event,
    Resource,
    Result,
    RiskScore,
    Strings,
    Time,
    Uint,
    Uints,
)


class AuthSuccess(Event, frozen=True, kw_only=True):
    """Somebody proved who they are."""

    actor: Actor
    method: str
    path: str


class AuthFailure(Event, frozen=True, kw_only=True):
    """Somebody did not."""

    critical: ClassVar[bool] = True

    attempted_user: str | None = None
    reason: str
    ip: str
    path: str


class TokenCreated(Event, frozen=True, kw_only=True):
    """A token was made."""

    actor: Actor
    token_fingerprint: str
    scope: Strings
    expires_at: Time | None = None


class TokenRevoked(Event, frozen=True, kw_only=True):
    """A token was withdrawn."""

    critical: ClassVar[bool] = True

    actor: Actor
    token_fingerprint: str
    reason: str


class AuthorizationGranted(Event, frozen=True, kw_only=True):
    """An action was allowed."""

    actor: Actor
    resource: Resource
    action: str


class AuthorizationDenied(Event, frozen=True, kw_only=True):
    """An action was refused."""

    critical: ClassVar[bool] = True

    actor: Actor
    resource: Resource
    action: str
    reason: str


class PermissionChanged(Event, frozen=True, kw_only=True):
    """A subject's permissions changed."""

    critical: ClassVar[bool] = True

    actor: Actor
    subject: str
    old_permissions: Strings
    new_permissions: Strings


class PoolCreated(Event, frozen=True, kw_only=True):
    """A pool of workers was made."""

    actor: Actor
    pool_id: str
    model_ref: str
    node_id: str
    replicas: Uint
    gpu_devices: Uints


class PoolDeleted(Event, frozen=True, kw_only=True):
    """A pool of workers was removed."""

    actor: Actor
    pool_id: str
    model_ref: str
    node_id: str
    reason: str
    replicas_terminated: Uint


class PoolModified(Event, frozen=True, kw_only=True):
    """A pool's settings changed: ``{field: Change(old, new)}``."""

    actor: Actor
    pool_id: str
    changes: dict[str, Change]


class NodeRegistered(Event, frozen=True, kw_only=True):
    """A machine joined."""

    actor: Actor
    node_id: str
    gpu_count: Uint
    total_vram_gb: Uint
    capabilities: Strings


class NodeDeregistered(Event, frozen=True, kw_only=True):
    """A machine left."""

    actor: Actor
    node_id: str
    reason: str
    pools_affected: Strings


class TaskSubmitted(Event, frozen=True, kw_only=True):
    """A task came in; of its prompt only length and hash."""

    actor: Actor
    task_id: str
    model_ref: str
    prompt_length: Uint
    prompt_hash: str
    max_tokens: Uint


class TaskCompleted(Event, frozen=True, kw_only=True):
    """A task ended; ``duration_ms`` in milliseconds."""

    task_id: str
    worker_id: str
    tokens_generated: Uint
    duration_ms: Uint
    result: Result


class TaskCanceled(Event, frozen=True, kw_only=True):
    """A task was called off."""

    actor: Actor
    task_id: str
    reason: str


class RateLimitExceeded(Event, frozen=True, kw_only=True):
    """An address asked too often."""

    critical: ClassVar[bool] = True

    ip: str
    endpoint: str
    limit: Uint
    actual: Uint
    window_seconds: Uint


class PathTraversalAttempt(Event, frozen=True, kw_only=True):
    """A path tried to leave its root."""

    critical: ClassVar[bool] = True

    actor: Actor
    attempted_path: str
    endpoint: str


class InvalidTokenUsed(Event, frozen=True, kw_only=True):
    """A token that is not one. ``token_prefix``: first 6 hex of its SHA-256."""

    critical: ClassVar[bool] = True

    ip: str
    token_prefix: str
    endpoint: str


class SuspiciousActivity(Event, frozen=True, kw_only=True):
    """Something odd; ``risk_score`` 0 to 100."""

    critical: ClassVar[bool] = True

    actor: Actor
    activity_type: str
    details: str
    risk_score: RiskScore


class IntegrityViolation(Event, frozen=True, kw_only=True):
    """Bytes are not the expected ones."""

    critical: ClassVar[bool] = True

    resource_type: str
    resource_id: str
    expected_hash: str
    actual_hash: str
    severity: str
    action_taken: str
    worker_id: str | None = None


class MalformedModelRejected(Event, frozen=True, kw_only=True):
    """A model file broke a rule of its format."""

    critical: ClassVar[bool] = True

    model_ref: str
    validation_error: str
    severity: str
    action_taken: str
    worker_id: str | None = None


class ResourceLimitViolation(Event, frozen=True, kw_only=True):
    """A limit was passed."""

    critical: ClassVar[bool] = True

    resource_type: str
    limit_type: str
    limit_value: Uint
    actual_value: Uint
    severity: str
    action_taken: str
    worker_id: str | None = None


class InferenceExecuted(Event, frozen=True, kw_only=True):
    """A job ran for a customer."""

    customer_id: str
    job_id: str
    model_ref: str
    tokens_processed: Uint
    provider_id: str | None = None
    result: Result


class ModelAccessed(Event, frozen=True, kw_only=True):
    """A customer used a model."""

    customer_id: str
    model_ref: str
    access_type: str
    provider_id: str | None = None


class DataDeleted(Event, frozen=True, kw_only=True):
    """A customer's data were deleted."""

    customer_id: str
    data_types: Strings
    reason: str


class GdprDataAccessRequest(Event, frozen=True, kw_only=True):
    """Article 15: somebody asked what is held."""

    critical: ClassVar[bool] = True

    customer_id: str
    requester: str
    scope: Strings


class GdprDataExport(Event, frozen=True, kw_only=True):
    """Article 20: data were handed over."""

    critical: ClassVar[bool] = True

    customer_id: str
    data_types: Strings
    export_format: str
    file_hash: str


class GdprRightToErasure(Event, frozen=True, kw_only=True):
    """Article 17: data were erased."""

    critical: ClassVar[bool] = True

    customer_id: str
    completed_at: Time
    data_types_deleted: Strings


EVENTS: tuple[type[Event], ...] = (
    AuthSuccess,
    AuthFailure,
    TokenCreated,
    TokenRevoked,
    AuthorizationGranted,
    AuthorizationDenied,
    PermissionChanged,
    PoolCreated,
    PoolDeleted,
    PoolModified,
    NodeRegistered,
    NodeDeregistered,
    TaskSubmitted,
    TaskCompleted,
    TaskCanceled,
    RateLimitExceeded,
    PathTraversalAttempt,
    InvalidTokenUsed,
    SuspiciousActivity,
    IntegrityViolation,
    MalformedModelRejected,
    ResourceLimitViolation,
    InferenceExecuted,
    ModelAccessed,
    DataDeleted,
    GdprDataAccessRequest,
    GdprDataExport,
    GdprRightToErasure,
)
