"""The receipt of a durable event: what a caller keeps to ask for its proof later (audit-log.md section 8)."""

from __future__ import annotations

import msgspec


class Receipt(msgspec.Struct, frozen=True):
    """Proof of place for a durable event; can later be upgraded to an inclusion proof.

    ``leaf_hash`` is 64 hex digits.
    """

    index: int
    leaf_hash: str
    audit_id: str
