"""What callers hold: the frozen handle of a shard, and the result of a verification."""

from __future__ import annotations

from typing import Any, Literal

from msgspec import UNSET, Struct

from vram_residency.formats.layout import TensorSpec
from vram_residency.seal.statement import Statement


class SealedShard(Struct, frozen=True, kw_only=True):
    """A handle without secrets or pointers; picklable; two handles are equal if every field is.

    A handle is never trusted for what it says: the manager looks it up by ``shard_id`` and compares every
    field with its own record (residency.md section 4).

    vram_bytes: the shard's size. sealed_at: RFC 3339, UTC, microseconds. path: on the host device a file
    that other engines can open without a copy (outside the promise of ``execution``), else None.
    """

    shard_id: str
    gpu_device: int
    vram_bytes: int
    digest: str
    sealed_at: str
    worker_id: str
    model_ref: str | None = None
    shard_index: int | None = None
    total_shards: int | None = None
    tensors: tuple[TensorSpec, ...] = ()
    path: str | None = None

    def __repr__(self) -> str:
        """Short, for logs and prompts: a model has hundreds of tensors, and only their number is shown."""
        return (
            f"SealedShard(shard_id={self.shard_id!r}, digest={self.digest!r}, vram_bytes={self.vram_bytes}, "
            f"model_ref={self.model_ref!r}, worker_id={self.worker_id!r}, tensors={len(self.tensors)})"
        )


def is_described_by(shard: SealedShard, statement: Statement) -> bool:
    """Whether a handle says what the signed statement says, in every field that both have."""
    return all(
        getattr(shard, name) == (None if (signed := getattr(statement, name)) is UNSET else signed)
        for name in _SIGNED
    )


_SIGNED = (
    "shard_id",
    "gpu_device",
    "vram_bytes",
    "digest",
    "sealed_at",
    "worker_id",
    "model_ref",
    "shard_index",
    "total_shards",
)


class SealedModel(Struct, frozen=True):
    """A model of several files: one shard each, by sorted file name.

    manifest_digest: ``blake3:…`` over the canonical JSON of [[file name, digest], …] (docs/format/models.md).
    """

    shards: tuple[SealedShard, ...]
    manifest_digest: str


class Verification(Struct, frozen=True, kw_only=True):
    """Each byte read matched when it was read, between ``read_from`` and ``read_to`` (RFC 3339).

    scope: what was really done: on the host device a fast verification is a full pass and says ``full``.
    miss_probability: for a sample, the probability of having missed damage that was blind to the choice and
    hit just one 128 KiB group; 0.0 for a full pass.
    """

    shard_id: str
    scope: Literal["full", "fast", "sample"]
    requested_scope: Literal["full", "fast", "sample"]
    digest: str
    bytes_checked: int
    duration_s: float
    residency: dict[str, Any]
    miss_probability: float
    read_from: str
    read_to: str


class Timings(Struct, frozen=True, kw_only=True):
    """How long the parts of a seal took, in seconds."""

    load_s: float = 0.0
    digest_s: float = 0.0


class ShardReport(Struct, frozen=True, kw_only=True):
    """Everything the manager can say about one shard without secrets.

    fully_verified_at: RFC 3339 time of the last whole verification that succeeded; sealing is the first.
    tensor_digests: for adopted tensors, each one's own digest by name.
    """

    shard: SealedShard
    state: Literal["sealed", "quarantined"]
    format: Literal["safetensors", "gguf", "raw"]
    statement: Statement
    residency: dict[str, Any]
    timings: Timings
    fully_verified_at: str
    tensor_digests: dict[str, str]
