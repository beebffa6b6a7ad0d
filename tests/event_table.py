# ruff: noqa: E501 - a table
"""The events of events.md, copied by hand, and a sample of each: what the classes are compared with."""

from __future__ import annotations

from typing import Any

ACTOR = {"user_id": "alice", "ip": "192.0.2.1", "auth_method": "m_tls", "session_id": "s-1"}

#: name!: critical; field: str unless `:type`; ?: optional. In the order of events.md.
TABLE = """
vram_sealed: shard_id gpu_device:uint vram_bytes:uint digest worker_id device_uuid? seal_sha256? residency_sha256? model_ref?
seal_verified: shard_id worker_id digest? scope? bytes_checked?:uint duration_us?:uint device_uuid? seal_sha256?
seal_verification_failed!: shard_id reason expected_digest actual_digest worker_id severity first_bad_offset?:uint last_bad_offset?:uint tensors?:strs action_taken?
vram_allocated: requested_bytes:uint allocated_bytes:uint available_bytes:uint used_bytes:uint gpu_device:uint worker_id
vram_allocation_failed: requested_bytes:uint available_bytes:uint reason gpu_device:uint worker_id
vram_deallocated: shard_id freed_bytes:uint remaining_used:uint gpu_device:uint worker_id wiped?:bool
policy_violation!: policy violation details severity worker_id action_taken
auth_success: actor:actor method path
auth_failure!: attempted_user? reason ip path
token_created: actor:actor token_fingerprint scope:strs expires_at?:time
token_revoked!: actor:actor token_fingerprint reason
authorization_granted: actor:actor resource:resource action
authorization_denied!: actor:actor resource:resource action reason
permission_changed!: actor:actor subject old_permissions:strs new_permissions:strs
pool_created: actor:actor pool_id model_ref node_id replicas:uint gpu_devices:uints
pool_deleted: actor:actor pool_id model_ref node_id reason replicas_terminated:uint
pool_modified: actor:actor pool_id changes:changes
node_registered: actor:actor node_id gpu_count:uint total_vram_gb:uint capabilities:strs
node_deregistered: actor:actor node_id reason pools_affected:strs
task_submitted: actor:actor task_id model_ref prompt_length:uint prompt_hash max_tokens:uint
task_completed: task_id worker_id tokens_generated:uint duration_ms:uint result:result
task_canceled: actor:actor task_id reason
rate_limit_exceeded!: ip endpoint limit:uint actual:uint window_seconds:uint
path_traversal_attempt!: actor:actor attempted_path endpoint
invalid_token_used!: ip token_prefix endpoint
suspicious_activity!: actor:actor activity_type details risk_score:risk
integrity_violation!: resource_type resource_id expected_hash actual_hash severity action_taken worker_id?
malformed_model_rejected!: model_ref validation_error severity action_taken worker_id?
resource_limit_violation!: resource_type limit_type limit_value:uint actual_value:uint severity action_taken worker_id?
inference_executed: customer_id job_id model_ref tokens_processed:uint provider_id? result:result
model_accessed: customer_id model_ref access_type provider_id?
data_deleted: customer_id data_types:strs reason
gdpr_data_access_request!: customer_id requester scope:strs
gdpr_data_export!: customer_id data_types:strs export_format file_hash
gdpr_right_to_erasure!: customer_id completed_at:time data_types_deleted:strs
model_resealed: shard_id old_digest new_digest reason worker_id
shard_quarantined: shard_id reason worker_id
shard_shared: shard_id peer_pid:uint peer_uid:uint access
share_revoked: shard_id epoch:uint
shards_lost: shard_ids:strs reason
worker_state_changed: worker_id from_state to_state reason
"""

OWN = """
log_opened: clean:bool recovered_events:uint recovered_first_index?:uint torn_bytes:uint writer log_json_sha256 host_id boot_id version
log_closed: reason
epoch_closed: epoch:uint tree_size:uint root_hash
segment_rotated: closed_segment sha256 entries:uint
events_dropped!: count:uint critical_count:uint first_timestamp:time last_timestamp:time
audit_log_accessed: accessor query
segments_pruned: first_index:uint next_index:uint next_epoch:uint last_mac root_hash policy
clock_stepped_back!: by_us:uint
key_rotated!: old_vkey new_vkey signature_by_old
"""

SAMPLES: dict[str, Any] = {
    "str": "text",
    "uint": 7,
    "risk": 100,
    "bool": True,
    "time": "2025-10-02T10:00:00Z",
    "strs": ["a", "b"],
    "uints": [0, 1],
    "actor": ACTOR,
    "resource": {"resource_type": "pool", "resource_id": "p-1", "parent_id": "n-1"},
    "result": {"status": "failure", "reason": "out of memory"},
    "changes": {"replicas": {"old": 1, "new": 2}, "model": {"old": "a", "new": None}},
}


def parse(table: str) -> dict[str, dict[str, str]]:
    """Event → field (with its ``?``) → type."""
    events = {}
    for line in table.strip().splitlines():
        name, _, fields = line.partition(": ")
        pairs = (field.partition(":") for field in fields.split())
        events[name] = {field: kind or "str" for field, _, kind in pairs}
    return events


EVENTS = {name.rstrip("!"): fields for name, fields in parse(TABLE).items()}
OWN_EVENTS = {name.rstrip("!"): fields for name, fields in parse(OWN).items()}
CRITICAL = {name.rstrip("!") for name in parse(TABLE + OWN) if name.endswith("!")}


def sample(event_type: str, *, optional: bool = True) -> dict[str, Any]:
    """A lawful mapping of the event's fields."""
    fields = {**EVENTS, **OWN_EVENTS}[event_type]
    return {
        name.rstrip("?"): SAMPLES[kind] for name, kind in fields.items() if optional or not name.endswith("?")
    }
