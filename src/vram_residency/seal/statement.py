"""The signed statement of a seal (residency.md section 4): pure data and its one sequence of bytes."""

from __future__ import annotations

import hashlib
import secrets
from typing import Literal

from msgspec import UNSET, Struct, UnsetType

from vram_residency.core.canonical import canonical_json

VERSION = "vram-residency/seal/v1"

Access = Literal["read_only", "adopted"]


class Approval(Struct, frozen=True):
    """The digest that the caller had approved, and where it was said."""

    expected: str
    source: str


class Statement(Struct, frozen=True, kw_only=True):
    """Everything a seal says. Optional fields are left out of the bytes; ``approval`` is then null."""

    version: str = VERSION
    seal_id: str
    shard_id: str
    digest: str
    groups_digest: str
    layout_digest: str
    vram_bytes: int
    gpu_device: int
    device_uuid: str
    boot_id: str
    sealed_at: str
    worker_id: str
    access: Access
    residency_sha256: str
    approval: Approval | None = None
    model_ref: str | UnsetType = UNSET
    shard_index: int | UnsetType = UNSET
    total_shards: int | UnsetType = UNSET

    def canonical(self) -> bytes:
        """The signed bytes: canonical JSON, keys sorted, no spaces, UTF-8."""
        return canonical_json(self)


def new_seal_id() -> str:
    """32 random hex digits."""
    return secrets.token_hex(16)


def sha256_hex(data: bytes) -> str:
    """SHA-256 as 64 hex digits: how seals and residency records are named in events."""
    return hashlib.sha256(data).hexdigest()
