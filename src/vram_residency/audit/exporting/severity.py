"""How grave an entry is, on one scale for all formats of export. Pure.

The event's own ``severity`` decides, where it has one; else its type, its risk score or its result.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import IntEnum
from typing import Final

from vram_residency.audit.events.registry import is_critical


class Severity(IntEnum):
    """The scale; each format has its own numbers for it."""

    INFORMATIONAL = 0
    LOW = 1
    MEDIUM = 2
    HIGH = 3
    CRITICAL = 4


#: Types whose entries say more than that something happened; ``severity`` of the event itself comes first.
OF_TYPE: Final[Mapping[str, Severity]] = {
    "seal_verification_failed": Severity.HIGH,
    "vram_allocation_failed": Severity.MEDIUM,
    "policy_violation": Severity.HIGH,
    "shard_quarantined": Severity.HIGH,
    "shards_lost": Severity.HIGH,
    "auth_failure": Severity.MEDIUM,
    "authorization_denied": Severity.MEDIUM,
    "permission_changed": Severity.LOW,
    "token_revoked": Severity.LOW,
    "rate_limit_exceeded": Severity.MEDIUM,
    "path_traversal_attempt": Severity.HIGH,
    "invalid_token_used": Severity.MEDIUM,
    "suspicious_activity": Severity.MEDIUM,
    "integrity_violation": Severity.HIGH,
    "malformed_model_rejected": Severity.MEDIUM,
    "resource_limit_violation": Severity.MEDIUM,
    "gdpr_data_access_request": Severity.INFORMATIONAL,
    "gdpr_data_export": Severity.INFORMATIONAL,
    "gdpr_right_to_erasure": Severity.INFORMATIONAL,
    "events_dropped": Severity.HIGH,
    "segments_pruned": Severity.LOW,
    "clock_stepped_back": Severity.MEDIUM,
    "key_rotated": Severity.LOW,
}
#: The lowest risk score (0 to 100) of each step.
RISK_STEPS: Final = ((90, Severity.CRITICAL), (70, Severity.HIGH), (40, Severity.MEDIUM), (0, Severity.LOW))


def severity_of(event_type: str, fields: Mapping[str, object]) -> Severity:
    """The severity of an entry with these fields, whatever they hold."""
    word = fields.get("severity")
    if isinstance(word, str) and word.upper() in Severity.__members__:
        return Severity[word.upper()]
    score = fields.get("risk_score")
    if isinstance(score, int):
        return next((step for least, step in RISK_STEPS if score >= least), Severity.LOW)
    result = fields.get("result")
    if isinstance(result, dict) and result.get("status") in {"failure", "partial_success"}:
        return Severity.LOW
    # A type that is not in the table is one that says all is well, or a user's.
    return OF_TYPE.get(event_type, Severity.MEDIUM if is_critical(event_type) else Severity.INFORMATIONAL)
