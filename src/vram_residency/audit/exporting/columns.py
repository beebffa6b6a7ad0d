"""The columns of the formats that have such: the same names in the same order, whatever the event. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import msgspec

from vram_residency.audit.exporting.record import Record, json_text

#: What an entry's place and envelope give.
PLACE: Final = (
    "origin",
    "index",
    "leaf_hash",
    "timestamp",
    "event_type",
    "severity",
    "service_id",
    "audit_id",
    "correlation_id",
)
#: The event's actor.
ACTOR: Final = ("actor_user_id", "actor_ip", "actor_auth_method", "actor_session_id")
#: Fields that many events share, under their own names.
SHARED: Final = (
    "shard_id",
    "worker_id",
    "gpu_device",
    "vram_bytes",
    "digest",
    "model_ref",
    "pool_id",
    "node_id",
    "task_id",
    "job_id",
    "customer_id",
    "resource_type",
    "resource_id",
    "ip",
    "reason",
    "details",
    "action_taken",
)
#: Those among SHARED that are numbers.
NUMBERS: Final = frozenset({"gpu_device", "vram_bytes"})
#: The fields that have no column, as one JSON object, and the whole entry as it stands in the log.
REST: Final = ("fields", "entry")
COLUMNS: Final = PLACE + ACTOR + SHARED + REST

#: What a cell holds: text, a number, or nothing.
Cell = str | int | None

_SHARED: Final = frozenset(SHARED)
_encode = msgspec.json.encode


def cells(record: Record) -> tuple[Cell, ...]:
    """The values of one row, in the order of COLUMNS. A shared field of another type goes to ``fields``."""
    shared = {name: value for name in record.fields if (value := _shared(record, name)) is not None}
    return (
        record.origin,
        record.index,
        record.leaf_hash,
        record.timestamp,
        record.event_type,
        record.severity.name,
        record.service_id,
        record.audit_id,
        record.correlation_id,
        *(record.actor(name.removeprefix("actor_")) for name in ACTOR),
        *map(shared.get, SHARED),
        _rest(record, shared),
        record.text,
    )


def _shared(record: Record, name: str) -> Cell:
    if name in NUMBERS:
        value = record.fields[name]
        return value if type(value) is int else None
    return record.word(name) if name in _SHARED else None


def _rest(record: Record, shared: Mapping[str, Cell]) -> str | None:
    """What the row does not show elsewhere; the actor does not come twice."""
    told = {*shared, "actor", "correlation_id"}
    rest = {name: value for name, value in record.fields.items() if name not in told}
    return json_text(_encode(rest)) if rest else None
