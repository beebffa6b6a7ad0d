"""Verification: is this shard, now, what was sealed (residency.md section 5)?"""

from __future__ import annotations

import copy
import secrets
from typing import Literal, NamedTuple

import msgspec

from vram_residency.core.canonical import canonical_json
from vram_residency.core.clock import Clock, rfc3339
from vram_residency.core.errors import (
    InvalidInputError,
    NotSealedError,
    ResidencyError,
    UnknownShardError,
)
from vram_residency.device.base import DeviceInfo
from vram_residency.digest.groups import groups_digest
from vram_residency.digest.sampling import groups_to_read, miss_probability, sample_groups
from vram_residency.residency.content import group_count, merged
from vram_residency.residency.damage import TENSOR_NAMES_MAX, Damage, Reason, placed
from vram_residency.residency.guard import Guard
from vram_residency.residency.recorder import Recorder
from vram_residency.residency.registry import Record, Registry
from vram_residency.residency.scope import Scope
from vram_residency.residency.shard import SealedShard, Verification, is_described_by
from vram_residency.residency.triage import looks_like
from vram_residency.seal import SealKey
from vram_residency.seal.statement import sha256_hex

#: What a fast pass misses of a change that was chosen without its key (gpu.md).
FAST_MISS_PROBABILITY = 2.0**-128


class _Reading(NamedTuple):
    """What step 4 read, and the damage in it."""

    bytes_checked: int
    miss_probability: float
    damage: Damage | None
    scope: Literal["full", "fast", "sample"] = "full"


class Verifier:
    """Runs the four steps against one manager's registry."""

    def __init__(
        self,
        *,
        registry: Registry,
        key: SealKey,
        device: DeviceInfo,
        guard: Guard,
        recorder: Recorder,
        clock: Clock,
    ) -> None:
        self._registry = registry
        self._key = key
        self._device = device
        self._guard = guard
        self._recorder = recorder
        self._clock = clock

    def admit(self, handle: SealedShard | str) -> Record:
        """Step 1: known and sealed. What the handle says of itself is compared, never trusted.

        A bad handle is refused and audited, without quarantine. Raises UnknownShardError, NotSealedError,
        InvalidInputError.
        """
        record = self.find(handle)
        if record.state != "sealed":
            shard_id = record.shard.shard_id
            finding = f"the shard is {record.state}"
            self._refuse(Damage(shard_id=shard_id, reason="not_sealed", finding=finding))
            raise NotSealedError(shard_id, record.state)
        return record

    def find(self, handle: SealedShard | str) -> Record:
        """The record behind a handle, whatever its state. Raises UnknownShardError, InvalidInputError."""
        if not isinstance(handle, str | SealedShard):
            raise InvalidInputError("shard", f"must be a SealedShard or its id, not {type(handle).__name__}")
        shard_id = handle if isinstance(handle, str) else handle.shard_id
        try:
            record = self._registry.find(shard_id)
        except UnknownShardError:
            finding = "no such shard is held here"
            self._refuse(Damage(shard_id=_told(shard_id), reason="unknown_shard", finding=finding))
            raise
        if isinstance(handle, SealedShard) and not _is_same(handle, record.shard):
            self._refuse(
                Damage(
                    shard_id=record.shard.shard_id,
                    reason="signature_invalid",
                    finding="the handle's fields are not those that were sealed",
                    expected_digest=record.shard.digest,
                    actual_digest=_told(handle.digest),
                )
            )
            raise UnknownShardError(record.shard.shard_id)
        return record

    def inspect(self, record: Record, scope: Scope) -> tuple[Verification, Damage | None]:
        """Steps 2 to 4, without recording anything. The first damage found ends them."""
        started_ns, read_from = self._clock.monotonic_ns(), self._clock.now_ns()
        try:
            with self._registry.reading(record):
                reading = self._examine(record, scope)
        except UnknownShardError as error:
            finding = "the shard was freed or sealed anew meanwhile"
            self._refuse(Damage(shard_id=error.shard_id, reason="unknown_shard", finding=finding))
            raise
        result = Verification(
            shard_id=record.shard.shard_id,
            scope=reading.scope,
            requested_scope=scope.kind,
            digest=record.shard.digest,
            bytes_checked=reading.bytes_checked,
            duration_s=(self._clock.monotonic_ns() - started_ns) / 1e9,
            residency=copy.deepcopy(record.residency),
            miss_probability=reading.miss_probability,
            read_from=rfc3339(read_from),
            read_to=rfc3339(self._clock.now_ns()),
        )
        return result, reading.damage and self._explained(record, reading.damage)

    def verify(self, record: Record, scope: Scope, *, at_gate: bool = False) -> Verification:
        """Steps 2 to 4, recorded. Damage quarantines the shard and raises SealVerificationError."""
        result = self._require_intact(record, scope)
        self._recorder.verified(record, result, at_gate=at_gate)
        return result

    def verify_durably(self, record: Record, scope: Scope) -> tuple[Verification, int | None]:
        """As ``verify``, and the index of the entry that says so, once it is on disk."""
        result = self._require_intact(record, scope)
        receipt = self._recorder.verified(record, result, at_gate=False, durable=True)
        return result, receipt.index if receipt else None

    def _require_intact(self, record: Record, scope: Scope) -> Verification:
        """Steps 2 to 4. Only damage is recorded."""
        self._guard.check_device()
        result, damage = self.inspect(record, scope)
        if damage is not None:
            self._condemn(record, damage, result)
            raise damage.error()
        if result.scope == "full":
            record.fully_verified_ns = self._clock.now_ns()
        return result

    def _explained(self, record: Record, damage: Damage) -> Damage:
        """The finding with what it looks like, by counters that the card keeps."""
        clause = looks_like(damage.reason, record.residency["device"], self._guard.device_facts())
        if clause is None:
            return damage
        return msgspec.structs.replace(damage, finding=f"{damage.finding}; {clause}")

    def _condemn(self, record: Record, damage: Damage, result: Verification) -> None:
        """Quarantine a damaged shard: it is never handed out again, and the log is flushed at once."""
        with self._registry.lock:
            is_first = record.state == "sealed"
            record.state = "quarantined"
        self._recorder.verification_failed(
            damage, severity="CRITICAL", action_taken="shard_quarantined", result=result
        )
        if is_first:
            self._recorder.quarantined(record.shard.shard_id, damage.reason)

    def _refuse(self, damage: Damage) -> None:
        self._recorder.verification_failed(damage, severity="HIGH", action_taken="request_rejected")

    def _examine(self, record: Record, scope: Scope) -> _Reading:
        """Steps 2 to 4. What the system or a driver will not let us see counts as damage."""
        try:
            damage = self._damage_of_seal(record) or self._damage_of_residency(record)
            return _Reading(0, 1.0, damage) if damage else self._read(record, scope)
        except (OSError, ResidencyError) as error:
            finding = f"the memory could not be read: {_words_of(error)}"
            return _Reading(0, 1.0, self._damage(record, "read_error", finding))

    def _damage_of_seal(self, record: Record) -> Damage | None:
        """Step 2: the signature, and all of the manager's own record that the statement speaks of."""
        statement, shard = record.statement, record.shard
        is_intact = (
            self._key.is_signature_of(record.signature, statement)
            and is_described_by(shard, statement)
            and shard.tensors == record.layout.tensors
            and record.content.size_bytes == statement.vram_bytes
            and statement.groups_digest == groups_digest(record.group_values)
            and statement.layout_digest == record.layout.digest()
            and statement.residency_sha256 == sha256_hex(canonical_json(record.residency))
            and (statement.device_uuid, statement.boot_id) == (self._device.uuid, self._device.boot_id)
        )
        if is_intact:
            return None
        return self._damage(record, "signature_invalid", "the manager's own record of the seal is damaged")

    def _damage_of_residency(self, record: Record) -> Damage | None:
        """Step 3: the mapping that is handed out is still that memory."""
        fault = record.content.fault()
        if fault is not None:
            damage = self._damage(record, "not_resident", fault.finding)
            return msgspec.structs.replace(damage, tensors=fault.tensors[:TENSOR_NAMES_MAX])
        now, then = dict(record.content.facts()), record.residency["facts"]
        changed = sorted(key for key in now.keys() | then.keys() if now.get(key) != then.get(key))
        if changed:
            return self._damage(record, "not_resident", f"facts changed since sealing: {', '.join(changed)}")
        return None

    def _read(self, record: Record, scope: Scope) -> _Reading:
        """Step 4: the content, read through the mapping that is handed out."""
        if scope.kind == "sample":
            return self._sample(record, scope)
        return self._read_fast(record) if scope.kind == "fast" else self._read_all(record)

    def _read_fast(self, record: Record) -> _Reading:
        verdict = record.content.fast_pass(record.statement.seal_id)
        if verdict == "match":
            return _Reading(record.content.size_bytes, FAST_MISS_PROBABILITY, None, "fast")
        # Nothing to compare with, or damage that is to be placed.
        reading = self._read_all(record)
        if verdict == "unknown" or reading.damage is not None:
            return reading
        finding = "the fast tag differs, though the digest is right again"
        return reading._replace(damage=self._damage(record, "digest_mismatch", finding))

    def _read_all(self, record: Record) -> _Reading:
        statement = record.statement
        actual = record.content.full_pass(statement.seal_id, statement.digest)
        size_bytes = record.content.size_bytes
        if actual == statement.digest:
            return _Reading(size_bytes, 0.0, None)
        ranges = merged(record.content.damage(record.group_values))
        return _Reading(size_bytes, 0.0, self._damage_at(record, ranges, actual))

    def _sample(self, record: Record, scope: Scope) -> _Reading:
        total = group_count(record.group_values)
        count = groups_to_read(total, fraction=scope.fraction, size_bytes=scope.bytes)
        indices = sample_groups(total, count, secrets.SystemRandom())
        ranges, bytes_read = record.content.sampled_damage(record.group_values, indices)
        damage = self._damage_at(record, merged(ranges), "") if ranges else None
        return _Reading(bytes_read, miss_probability(total, count), damage, "sample")

    def _damage_at(self, record: Record, ranges: list[tuple[int, int]], actual: str) -> Damage:
        if not ranges:
            # The bytes changed back between the two passes, or a frame around adopted bytes changed.
            return self._damage(record, "digest_mismatch", "the digest differs", actual=actual)
        finding, tensors = placed(ranges, record.layout)
        located = self._damage(record, "digest_mismatch", finding, actual=actual)
        return msgspec.structs.replace(
            located, first_bad_offset=ranges[0][0], last_bad_offset=ranges[-1][1] - 1, tensors=tensors
        )

    def _damage(self, record: Record, reason: Reason, finding: str, *, actual: str = "") -> Damage:
        return Damage(
            shard_id=record.shard.shard_id,
            reason=reason,
            finding=finding,
            expected_digest=record.statement.digest,
            actual_digest=actual,
        )


def _is_same(handle: SealedShard, shard: SealedShard) -> bool:
    # Compared as bytes: fields of a forged handle could bring their own idea of equality.
    try:
        return type(handle) is SealedShard and _encoded(handle) == _encoded(shard)
    except Exception:  # noqa: BLE001 - what cannot be encoded is not what was sealed, whatever it raises
        return False


def _told(field: object) -> str:
    """A field of a handle that may be forged, as evidence."""
    return field if isinstance(field, str) else type(field).__name__


def _encoded(shard: SealedShard) -> bytes:
    return msgspec.msgpack.encode(shard)


def _words_of(error: OSError | ResidencyError) -> str:
    return str(error.strerror if isinstance(error, OSError) else error)
