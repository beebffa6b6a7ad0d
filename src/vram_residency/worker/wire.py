"""What goes over the wire of the worker's API (worker.md, "Endpoints"): one struct per body.

Unknown fields of a request are refused: a misspelt choice must not quietly mean the default.
"""

from __future__ import annotations

from typing import Annotated, Any, Final, Literal

import msgspec

from vram_residency.residency import Capacity, SealedShard, ShardReport, Verification

TP_DEGREE_MAX: Final = 1024
AUDIT_LIMIT_MAX: Final = 1_000_000

#: A path has a character, and none that ends it.
Path = Annotated[str, msgspec.Meta(min_length=1, pattern="^[^\\x00]+$")]
Scope = Literal["full", "fast", "sample"]
ShardLayout = Literal["single", "tensor_parallel"]


class PlanRequest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Would this model fit? ``path`` lies under a model root; ``model_ref`` is only carried along."""

    path: Path
    model_ref: str | None = None
    shard_layout: ShardLayout = "single"
    tp_degree: Annotated[int, msgspec.Meta(ge=1, le=TP_DEGREE_MAX)] = 1


class PlannedShard(msgspec.Struct, frozen=True):
    """One shard of a plan."""

    name: str
    required_bytes: int


class Plan(msgspec.Struct, frozen=True):
    """The answer to a plan; nothing is reserved by it."""

    feasible: bool
    required_bytes: int
    available_bytes: int
    shard_plan: list[PlannedShard]


class CommitRequest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Load and seal a file or an indexed directory under a model root."""

    path: Path
    shard_id: str | None = None
    expected_digest: str | None = None
    model_ref: str | None = None
    shard_index: int | None = None
    total_shards: int | None = None


class BodyCommit(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The query parameters of a commit whose body is the model itself. ``name``'s ending says the format."""

    name: str = "model"
    shard_id: str | None = None
    expected_digest: str | None = None
    model_ref: str | None = None
    shard_index: int | None = None
    total_shards: int | None = None

    def as_request(self) -> CommitRequest:
        """The same as for a file of that name."""
        return CommitRequest(
            path=self.name,
            shard_id=self.shard_id,
            expected_digest=self.expected_digest,
            model_ref=self.model_ref,
            shard_index=self.shard_index,
            total_shards=self.total_shards,
        )


class AuditFilters(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The query parameters of ``GET /v1/audit``: those of ``vram audit query``."""

    event: list[str] = []
    shard: str | None = None
    actor: str | None = None
    since: str | None = None
    until: str | None = None
    severity: Literal["CRITICAL", "HIGH", "MEDIUM", "LOW"] | None = None
    limit: Annotated[int, msgspec.Meta(ge=0, le=AUDIT_LIMIT_MAX)] = 1000


class ReadinessQuery(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The query parameter of ``GET /readyz``; its being there is enough."""

    verbose: str | None = None


class VerifyRequest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How much of a shard to read."""

    scope: Scope = "full"


class ExecuteRequest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Run the engine on a sealed shard, verified first."""

    handle_id: str
    input: Any = None
    params: dict[str, Any] = {}


class AttestRequest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Sign that a shard was just verified. ``nonce`` is chosen by who asks."""

    nonce: Annotated[str, msgspec.Meta(min_length=1, max_length=128)]
    scope: Scope = "full"


class Handle(msgspec.Struct, frozen=True, kw_only=True):
    """A sealed shard as outsiders may know it: no pointer, no path into this process."""

    handle_id: str
    digest: str
    vram_bytes: int
    gpu_device: int
    sealed_at: str
    worker_id: str
    state: str
    format: str
    tensors: int
    model_ref: str | None
    shard_index: int | None
    total_shards: int | None
    last_full_verification: str


class Verified(msgspec.Struct, frozen=True, kw_only=True):
    """The result of a verification that found no damage."""

    handle_id: str
    scope: str
    digest: str
    bytes_checked: int
    duration_s: float
    miss_probability: float
    read_from: str
    read_to: str


class Ready(msgspec.Struct, frozen=True):
    """Whether models can be executed, and which."""

    ready: bool
    state: str
    reason: str | None
    handles: list[Handle]


class Status(msgspec.Struct, frozen=True, kw_only=True):
    """What ``vram status`` shows of a worker."""

    worker_id: str
    state: str
    reason: str | None
    version: str
    device: str
    device_uuid: str
    capacity: Capacity
    shards: int
    executions: int
    uptime_s: float


def handle_of(report: ShardReport) -> Handle:
    """What the manager says of a shard, for outsiders."""
    shard: SealedShard = report.shard
    return Handle(
        handle_id=shard.shard_id,
        digest=shard.digest,
        vram_bytes=shard.vram_bytes,
        gpu_device=shard.gpu_device,
        sealed_at=shard.sealed_at,
        worker_id=shard.worker_id,
        state=report.state,
        format=report.format,
        tensors=len(shard.tensors),
        model_ref=shard.model_ref,
        shard_index=shard.shard_index,
        total_shards=shard.total_shards,
        last_full_verification=report.fully_verified_at,
    )


def verified_of(result: Verification) -> Verified:
    """A verification's result, for outsiders."""
    return Verified(
        handle_id=result.shard_id,
        scope=result.scope,
        digest=result.digest,
        bytes_checked=result.bytes_checked,
        duration_s=result.duration_s,
        miss_probability=result.miss_probability,
        read_from=result.read_from,
        read_to=result.read_to,
    )
