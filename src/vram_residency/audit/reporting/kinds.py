"""What an audit log can show, in kinds of evidence: which events bear on what."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import msgspec


class Kind(msgspec.Struct, frozen=True):
    """One kind of evidence: what it says in a sentence, and the events that say it.

    The kind without events is not told by entries but by the verification of them all.
    """

    says: str
    events: tuple[str, ...] = ()


#: The kind that the verdict decides.
CHAIN: Final = "chain"

KINDS: Final[Mapping[str, Kind]] = {
    CHAIN: Kind("The log verifies: its entries are as they were written, in their order"),
    "rhythm": Kind("Epochs were closed, also when nothing happened: silence shows", ("epoch_closed",)),
    "openings": Kind("The log was opened and closed, each time on record", ("log_opened", "log_closed")),
    "losses": Kind("Events were refused for want of room, and counted", ("events_dropped",)),
    "clock": Kind("The machine's clock stepped back", ("clock_stepped_back",)),
    "segments": Kind("Segments of the log were closed, each with its digest", ("segment_rotated",)),
    "pruning": Kind("Old entries were removed under a named policy", ("segments_pruned",)),
    "keys": Kind("The log's signing key was changed, signed by both keys", ("key_rotated",)),
    "readers": Kind("Somebody read the log", ("audit_log_accessed",)),
    "seals": Kind("Models were sealed in memory, with the digest of their bytes", ("vram_sealed",)),
    "checks": Kind("Sealed models were verified against their seals", ("seal_verified",)),
    "damage": Kind(
        "A sealed model or another resource was found changed",
        ("seal_verification_failed", "integrity_violation"),
    ),
    "containment": Kind(
        "What was found bad was put out of use",
        ("shard_quarantined", "share_revoked", "worker_state_changed"),
    ),
    "policy": Kind("Memory or a device was not what the policy asks for", ("policy_violation",)),
    "resealing": Kind("Sealed weights were changed on purpose, with a reason", ("model_resealed",)),
    "memory": Kind("Device memory was given or refused", ("vram_allocated", "vram_allocation_failed")),
    "release": Kind("Device memory was given back", ("vram_deallocated",)),
    "recovery": Kind("Shards of a worker that died were found lost", ("shards_lost",)),
    "sharing": Kind("Another process was given a sealed model", ("shard_shared", "share_revoked")),
    "logins": Kind("Somebody proved who they are, or failed to", ("auth_success", "auth_failure")),
    "tokens": Kind("Tokens were made or withdrawn", ("token_created", "token_revoked")),
    "misuse": Kind("A token that is not valid was used", ("invalid_token_used",)),
    "decisions": Kind("Access was granted or denied", ("authorization_granted", "authorization_denied")),
    "rights": Kind("The permissions of a subject were changed", ("permission_changed",)),
    "attacks": Kind(
        "Suspicious or excessive requests were met",
        ("path_traversal_attempt", "rate_limit_exceeded", "resource_limit_violation", "suspicious_activity"),
    ),
    "rejections": Kind("Malformed models were refused", ("malformed_model_rejected",)),
    "inventory": Kind(
        "Pools and nodes were added, changed or removed",
        ("pool_created", "pool_modified", "pool_deleted", "node_registered", "node_deregistered"),
    ),
    "tasks": Kind(
        "Tasks were taken, done or given up", ("task_submitted", "task_completed", "task_canceled")
    ),
    "use": Kind("A model was used or accessed for a customer", ("inference_executed", "model_accessed")),
    "subject_access": Kind("A person asked for their data", ("gdpr_data_access_request",)),
    "subject_export": Kind("A person's data was exported for them", ("gdpr_data_export",)),
    "erasure": Kind("A person's right to erasure was carried out", ("gdpr_right_to_erasure",)),
    "deletion": Kind("Customer data was deleted", ("data_deleted",)),
}
