"""Which class and activity of OCSF each event is (https://schema.ocsf.io, version 1.8.0). Pure data."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, NamedTuple

OCSF_VERSION: Final = "1.8.0"
#: Activity and status of what the schema has no number for.
OTHER: Final = 99


class EventClass(NamedTuple):
    """A class of OCSF: its number and name, and the number and name of its category."""

    uid: int
    name: str
    category_uid: int
    category_name: str


BASE_EVENT: Final = EventClass(0, "Base Event", 0, "Uncategorized")
EVENT_LOG: Final = EventClass(1008, "Event Log Activity", 1, "System Activity")
DETECTION: Final = EventClass(2004, "Detection Finding", 2, "Findings")
AUTHENTICATION: Final = EventClass(3002, "Authentication", 3, "Identity & Access Management")
ENTITY: Final = EventClass(3004, "Entity Management", 3, "Identity & Access Management")
USER_ACCESS: Final = EventClass(3005, "User Access Management", 3, "Identity & Access Management")
LIFECYCLE: Final = EventClass(6002, "Application Lifecycle", 6, "Application Activity")
API: Final = EventClass(6003, "API Activity", 6, "Application Activity")


class Mapped(NamedTuple):
    """What an event becomes. ``is_failure``: its type alone says that something did not succeed."""

    event_class: EventClass
    activity_id: int
    activity_name: str
    is_failure: bool = False


#: For types that are not in the table: a user's own.
UNKNOWN: Final = Mapped(BASE_EVENT, OTHER, "Other")
_FINDING: Final = Mapped(DETECTION, 1, "Create")

TABLE: Final[Mapping[str, Mapped]] = {
    "vram_sealed": Mapped(API, 1, "Create"),
    "seal_verified": Mapped(API, 2, "Read"),
    "seal_verification_failed": _FINDING,
    "vram_allocated": Mapped(API, 1, "Create"),
    "vram_allocation_failed": Mapped(API, 1, "Create", is_failure=True),
    "vram_deallocated": Mapped(API, 4, "Delete"),
    "policy_violation": _FINDING,
    "model_resealed": Mapped(API, 3, "Update"),
    "shard_quarantined": _FINDING,
    "shard_shared": Mapped(API, OTHER, "Share"),
    "share_revoked": Mapped(API, OTHER, "Revoke Share"),
    "shards_lost": _FINDING,
    "worker_state_changed": Mapped(LIFECYCLE, OTHER, "Change State"),
    "auth_success": Mapped(AUTHENTICATION, 1, "Logon"),
    "auth_failure": Mapped(AUTHENTICATION, 1, "Logon", is_failure=True),
    "token_created": Mapped(ENTITY, 1, "Create"),
    "token_revoked": Mapped(ENTITY, 4, "Delete"),
    "authorization_granted": Mapped(API, OTHER, "Authorize"),
    "authorization_denied": Mapped(API, OTHER, "Authorize", is_failure=True),
    "permission_changed": Mapped(USER_ACCESS, OTHER, "Change Privileges"),
    "pool_created": Mapped(ENTITY, 1, "Create"),
    "pool_deleted": Mapped(ENTITY, 4, "Delete"),
    "pool_modified": Mapped(ENTITY, 3, "Update"),
    "node_registered": Mapped(ENTITY, 6, "Enroll"),
    "node_deregistered": Mapped(ENTITY, 7, "Unenroll"),
    "task_submitted": Mapped(API, 1, "Create"),
    "task_completed": Mapped(API, OTHER, "Complete"),
    "task_canceled": Mapped(API, OTHER, "Cancel"),
    "rate_limit_exceeded": _FINDING,
    "path_traversal_attempt": _FINDING,
    "invalid_token_used": _FINDING,
    "suspicious_activity": _FINDING,
    "integrity_violation": _FINDING,
    "malformed_model_rejected": _FINDING,
    "resource_limit_violation": _FINDING,
    "inference_executed": Mapped(API, OTHER, "Execute"),
    "model_accessed": Mapped(API, 2, "Read"),
    "data_deleted": Mapped(API, 4, "Delete"),
    "gdpr_data_access_request": Mapped(API, 2, "Read"),
    "gdpr_data_export": Mapped(API, OTHER, "Export"),
    "gdpr_right_to_erasure": Mapped(API, 4, "Delete"),
    "log_opened": Mapped(EVENT_LOG, 6, "Start"),
    "log_closed": Mapped(EVENT_LOG, 7, "Stop"),
    "epoch_closed": Mapped(EVENT_LOG, OTHER, "Close Epoch"),
    "segment_rotated": Mapped(EVENT_LOG, 5, "Rotate"),
    "events_dropped": Mapped(EVENT_LOG, OTHER, "Drop Events", is_failure=True),
    "audit_log_accessed": Mapped(EVENT_LOG, OTHER, "Read"),
    "segments_pruned": Mapped(EVENT_LOG, 2, "Delete"),
    "clock_stepped_back": Mapped(EVENT_LOG, OTHER, "Step Clock Back"),
    "key_rotated": Mapped(EVENT_LOG, OTHER, "Rotate Key"),
}
