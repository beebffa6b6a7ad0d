"""From an error to problem details (RFC 9457), with the codes of worker.md. Pure."""

from __future__ import annotations

from typing import Final

import msgspec

from vram_residency.core import errors

TYPE_PREFIX: Final = "urn:vram-residency:problem:"
MEDIA_TYPE: Final = "application/problem+json"


class Kind(msgspec.Struct, frozen=True):
    """One code of the API: its status, and whether and when the same call may succeed."""

    code: str
    status: int
    title: str
    retry_after_ms: int | None = None


INVALID_PARAMS: Final = Kind("INVALID_PARAMS", 400, "The request breaks a rule")
NOT_FOUND: Final = Kind("INVALID_PARAMS", 404, "There is no such thing here")
CONFLICT: Final = Kind("INVALID_PARAMS", 409, "The request contradicts what is")
UNPROCESSABLE: Final = Kind("INVALID_PARAMS", 422, "The request was made before with another body")
TOO_LARGE: Final = Kind("INVALID_PARAMS", 413, "The body is too large")
TOO_SLOW: Final = Kind("INVALID_PARAMS", 408, "The request took too long to arrive")
MISDIRECTED: Final = Kind("INVALID_PARAMS", 421, "The request was meant for another host")
HEADERS_TOO_LARGE: Final = Kind("INVALID_PARAMS", 431, "The headers are too large")
TOO_MANY: Final = Kind("BUSY", 429, "Who asks does so too often", 1_000)
AUTH_FAILED: Final = Kind("AUTH_FAILED", 401, "Who asks is not known")
FORBIDDEN: Final = Kind("AUTH_FAILED", 403, "Who asks may not do this")
VRAM_OOM: Final = Kind("VRAM_OOM", 507, "The device has no room", 5_000)
DEVICE_ERROR: Final = Kind("DEVICE_ERROR", 503, "The device refused", 1_000)
DEVICE_LOST: Final = Kind("DEVICE_ERROR", 503, "The device does not answer any more")
MODEL_REJECTED: Final = Kind("MODEL_REJECTED", 422, "The model file breaks a rule of its format")
DIGEST_MISMATCH: Final = Kind("DIGEST_MISMATCH", 422, "The memory does not hold the approved bytes")
SEAL_VERIFICATION_FAILED: Final = Kind("SEAL_VERIFICATION_FAILED", 503, "A shard is not what was sealed")
POLICY_VIOLATION: Final = Kind("POLICY_VIOLATION", 503, "The policy refuses this device or this memory")
WORKER_STOPPED: Final = Kind("WORKER_STOPPED", 503, "The worker has stopped")
BUSY: Final = Kind("BUSY", 503, "The worker is busy", 1_000)
DEADLINE_EXCEEDED: Final = Kind("DEADLINE_EXCEEDED", 504, "The deadline has passed", 0)
INTERNAL: Final = Kind("INTERNAL", 500, "Something is wrong in the worker")

#: The nearest ancestor named here decides, so that a new error inherits its family's code.
KINDS: Final[dict[type[errors.VramError], Kind]] = {
    errors.VramError: INTERNAL,
    errors.RetriableError: DEVICE_ERROR,
    errors.InsufficientMemoryError: VRAM_OOM,
    errors.DeviceBusyError: BUSY,
    errors.FatalError: WORKER_STOPPED,
    errors.SealVerificationError: SEAL_VERIFICATION_FAILED,
    errors.PolicyViolationError: POLICY_VIOLATION,
    errors.DeviceLostError: DEVICE_LOST,
    errors.RefusedError: INVALID_PARAMS,
    errors.MalformedModelError: MODEL_REJECTED,
    errors.DigestMismatchError: DIGEST_MISMATCH,
    errors.DuplicateShardError: CONFLICT,
    errors.UnknownShardError: NOT_FOUND,
    errors.NotSealedError: CONFLICT,
    errors.BufferFullError: BUSY,
}


class Problem(msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True):
    """The body of every error: RFC 9457's members, then ours."""

    type: str
    title: str
    status: int
    detail: str
    code: str
    retriable: bool
    hint: str | None = None
    retry_after_ms: int | None = None
    correlation_id: str | None = None


class Refused(Exception):  # noqa: N818 - a refusal of the API, not an error of the library
    """A refusal that has no error of its own in the library."""

    def __init__(self, kind: Kind, detail: str, *, hint: str | None = None) -> None:
        super().__init__(kind, detail)  # so that it can be copied
        self.kind = kind
        self.detail = detail
        self.hint = hint

    def __str__(self) -> str:
        return self.detail


def problem_of(error: Exception, *, correlation_id: str | None) -> Problem:
    """What the caller is told. What is not one of ours tells nothing of itself."""
    if isinstance(error, Refused):
        return _problem(error.kind, str(error), error.hint, correlation_id)
    if isinstance(error, errors.VramError):
        kind = next(KINDS[cls] for cls in type(error).__mro__ if cls in KINDS)
        return _problem(kind, str(error), error.hint, correlation_id)
    return _problem(INTERNAL, "the worker's log has the details", None, correlation_id)


def _problem(kind: Kind, detail: str, hint: str | None, correlation_id: str | None) -> Problem:
    return Problem(
        type=TYPE_PREFIX + kind.code.lower().replace("_", "-"),
        title=kind.title,
        status=kind.status,
        detail=detail,
        code=kind.code,
        retriable=kind.retry_after_ms is not None,
        hint=hint,
        retry_after_ms=kind.retry_after_ms,
        correlation_id=correlation_id,
    )
