"""From measured content to a signed record (residency.md section 4)."""

from __future__ import annotations

from typing import Any, TypedDict, TypeVar, Unpack

from msgspec import UNSET, UnsetType

from vram_residency.core.canonical import canonical_json
from vram_residency.core.clock import Clock, rfc3339
from vram_residency.digest.groups import groups_digest
from vram_residency.digest.value import Measurement
from vram_residency.formats.layout import Layout
from vram_residency.residency.content import Content
from vram_residency.residency.guard import Guard
from vram_residency.residency.identity import Identity
from vram_residency.residency.order import Order
from vram_residency.residency.recorder import Recorder
from vram_residency.residency.registry import Record
from vram_residency.residency.shard import SealedShard
from vram_residency.seal import Approval, SealKey, Statement
from vram_residency.seal.statement import Access, new_seal_id, sha256_hex

T = TypeVar("T", str, int)


class Notary:
    """Judges where content lies, then signs what was measured there."""

    def __init__(
        self, key: SealKey, identity: Identity, *, guard: Guard, recorder: Recorder, clock: Clock
    ) -> None:
        self._key = key
        self._identity = identity
        self._guard = guard
        self._recorder = recorder
        self._clock = clock

    def sign(
        self, order: Order, shard_id: str, content: Content, *, layout: Layout, measured: Measurement
    ) -> Record:
        """Make a record of ``content``, in which ``layout`` was found and ``measured`` was measured.

        Raises PolicyViolationError, recorded, where the memory breaks the policy.
        """
        started_ns = self._clock.monotonic_ns()
        facts = content.facts()
        self._guard.check_memory(facts)
        residency = self._guard.residency(facts)
        sealed_ns = self._clock.now_ns()
        shard = self._handle(
            order,
            shard_id=shard_id,
            vram_bytes=content.size_bytes,
            digest=measured.digest,
            sealed_at=rfc3339(sealed_ns),
            tensors=layout.tensors,
            path=content.path,
        )
        statement = self._statement(
            shard,
            groups_digest=groups_digest(measured.group_values),
            layout_digest=layout.digest(),
            access=content.access,
            residency_sha256=sha256_hex(canonical_json(residency)),
            approval=Approval(order.expect, "caller") if order.expect else None,
        )
        signature = self._key.sign(statement)
        self._recorder.signed(shard_id, (self._clock.monotonic_ns() - started_ns) / 1e6)
        return Record(
            shard=shard,
            statement=statement,
            signature=signature,
            layout=layout,
            group_values=measured.group_values,
            residency=residency,
            content=content,
            fully_verified_ns=sealed_ns,
        )

    def _handle(self, order: Order, **measured: Any) -> SealedShard:
        return SealedShard(
            gpu_device=self._identity.gpu_device,
            worker_id=self._identity.worker_id,
            model_ref=order.model_ref,
            shard_index=order.shard_index,
            total_shards=order.total_shards,
            **measured,
        )

    def _statement(self, shard: SealedShard, **evidence: Unpack[_Evidence]) -> Statement:
        return Statement(
            seal_id=new_seal_id(),
            shard_id=shard.shard_id,
            digest=shard.digest,
            vram_bytes=shard.vram_bytes,
            gpu_device=shard.gpu_device,
            device_uuid=self._identity.device.uuid,
            boot_id=self._identity.device.boot_id,
            sealed_at=shard.sealed_at,
            worker_id=shard.worker_id,
            model_ref=_or_unset(shard.model_ref),
            shard_index=_or_unset(shard.shard_index),
            total_shards=_or_unset(shard.total_shards),
            **evidence,
        )


class _Evidence(TypedDict):
    """What a statement says beyond the handle."""

    groups_digest: str
    layout_digest: str
    access: Access
    residency_sha256: str
    approval: Approval | None


def _or_unset(value: T | None) -> T | UnsetType:
    return UNSET if value is None else value
