"""Sealed model weights in device memory, verified before use, with a tamper-evident audit log.

The names below are imported when they are first used, so that a bare ``import vram_residency`` stays cheap.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from vram_residency.core.lazy_names import lazy_names
from vram_residency.core.version import __version__

if TYPE_CHECKING:
    from vram_residency.audit import AuditLogger
    from vram_residency.core.errors import (
        AllocationError,
        AuditError,
        AuditWriteError,
        BufferFullError,
        ConfigurationError,
        DeviceBusyError,
        DeviceLostError,
        DigestMismatchError,
        DuplicateShardError,
        FatalError,
        InsufficientMemoryError,
        InvalidEventError,
        InvalidInputError,
        LogClosedError,
        LogDamagedError,
        LogLockedError,
        MalformedModelError,
        MissingKeyError,
        NotSealedError,
        PolicyViolationError,
        RefusedError,
        ResidencyError,
        RetriableError,
        SealVerificationError,
        UnknownShardError,
        VramError,
        WitnessError,
        WorkerError,
        WorkerRefusedError,
        WorkerUnreachableError,
    )
    from vram_residency.residency import SealedShard, Verification, VramManager

__all__ = [
    "AllocationError",
    "AuditError",
    "AuditLogger",
    "AuditWriteError",
    "BufferFullError",
    "ConfigurationError",
    "DeviceBusyError",
    "DeviceLostError",
    "DigestMismatchError",
    "DuplicateShardError",
    "FatalError",
    "InsufficientMemoryError",
    "InvalidEventError",
    "InvalidInputError",
    "LogClosedError",
    "LogDamagedError",
    "LogLockedError",
    "MalformedModelError",
    "MissingKeyError",
    "NotSealedError",
    "PolicyViolationError",
    "RefusedError",
    "ResidencyError",
    "RetriableError",
    "SealVerificationError",
    "SealedShard",
    "UnknownShardError",
    "Verification",
    "VramError",
    "VramManager",
    "WitnessError",
    "WorkerError",
    "WorkerRefusedError",
    "WorkerUnreachableError",
    "__version__",
]

__getattr__, __dir__ = lazy_names(
    __name__,
    dict.fromkeys(__all__, "vram_residency.core.errors")
    | {
        "AuditLogger": "vram_residency.audit",
        "SealedShard": "vram_residency.residency",
        "Verification": "vram_residency.residency",
        "VramManager": "vram_residency.residency",
    },
)
