"""One sentence on what can be said of this worker, and what to do next. Pure.

The gravest thing decides. The age of the oldest full verification is told beside it, by who shows it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final, Literal

import msgspec

from vram_residency.core.clock import parse_rfc3339
from vram_residency.dashboard.recollection import Damage
from vram_residency.worker.states import State
from vram_residency.worker.wire import Handle

#: A full verification that is older speaks of yesterday.
STALE_S: Final = 24 * 3600
_NS: Final = 1_000_000_000

Grade = Literal["ok", "attention", "stopped"]


class Seen(msgspec.Struct, frozen=True, kw_only=True):
    """All that the verdict rests on. lost_events: refused by the audit log's buffer; now_ns: Unix time."""

    state: State
    stopped_by: str | None
    handles: Sequence[Handle]
    damages: Mapping[str, Damage]
    lost_events: int
    last_failure: str | None
    now_ns: int


class Verdict(msgspec.Struct, frozen=True, kw_only=True):
    """``says`` is a sentence without its end, for an age may follow; ``next`` is what to do now.

    oldest_full_verification: RFC 3339, None without a shard that is vouched for.
    """

    grade: Grade
    says: str
    next: str | None = None
    oldest_full_verification: str | None = None


def judge(seen: Seen) -> Verdict:
    """The verdict."""
    damaged = [handle for handle in seen.handles if handle.state != "sealed"]
    sound = [handle for handle in seen.handles if handle.state == "sealed"]
    oldest = min((handle.last_full_verification for handle in sound), default=None)
    if seen.state is State.STOPPED or damaged:
        return _stopped(seen, damaged)
    if seen.last_failure is not None or seen.lost_events:
        return _with_gaps(seen, sound, oldest)
    if not sound:
        return _empty(seen)
    if seen.state is State.DRAINING:
        says = "Draining: what runs may finish, nothing new is taken, and then all shards are freed"
        return Verdict(grade="attention", says=says, oldest_full_verification=oldest)
    if oldest is not None and seen.now_ns - parse_rfc3339(oldest) > STALE_S * _NS:
        advice = "Verify the shards that were not read for longest: they come first in the list."
        return Verdict(grade="attention", says=_all(sound), next=advice, oldest_full_verification=oldest)
    return Verdict(grade="ok", says=_all(sound), oldest_full_verification=oldest)


def _all(sound: Sequence[Handle]) -> str:
    return "The only shard is verified" if len(sound) == 1 else f"All {len(sound)} shards are verified"


def _stopped(seen: Seen, damaged: Sequence[Handle]) -> Verdict:
    found = [seen.damages[handle.handle_id] for handle in damaged if handle.handle_id in seen.damages]
    if found:
        first = min(found, key=lambda damage: damage.timestamp)
        others = len(damaged) - 1
        says = f"shard {first.shard_id} is damaged{_where(first)}, found at {first.timestamp[11:19]} UTC"
        says += f", and {others} more {'is' if others == 1 else 'are'}" if others else ""
    elif damaged:
        says = f"shard {damaged[0].handle_id} is quarantined"
    else:
        says = seen.stopped_by or "the worker has ended"
    has_stopped = seen.state is State.STOPPED
    says = f"STOPPED: {says}" if has_stopped else f"{says[0].upper()}{says[1:]}"
    return Verdict(grade="stopped", says=says, next=_advice(seen, has_stopped=has_stopped))


def _where(damage: Damage) -> str:
    if damage.tensors:
        more = len(damage.tensors) - 1
        return f" in tensor {damage.tensors[0]}" + (f" and {more} more" if more else "")
    return f" ({damage.reason.replace('_', ' ')})"


def _advice(seen: Seen, *, has_stopped: bool) -> str:
    if not has_stopped:
        return "Send its requests elsewhere, keep the evidence (vram audit verify), then free it."
    if seen.stopped_by is None:
        return "Start a worker where one is needed: this one is not coming back."
    return (
        "Send requests to another worker. This one executes nothing until it is restarted, and holds its "
        "memory for the examination: keep the evidence first (vram audit verify, vram audit report), then "
        "restart it."
    )


def _with_gaps(seen: Seen, sound: Sequence[Handle], oldest: str | None) -> Verdict:
    shards = _all(sound) if sound else "No shard is held"
    if seen.last_failure is not None:
        says = f"{shards}, but the audit log cannot be written: {seen.last_failure}"
        advice = "Look at the log's disk. Events wait in memory until it takes them again."
    else:
        says = f"{shards}, but the audit log has lost {seen.lost_events} events"
        advice = "The log says where (events_dropped). Look for what emits more than the disk takes."
    return Verdict(grade="attention", says=says, next=advice, oldest_full_verification=oldest)


def _empty(seen: Seen) -> Verdict:
    if seen.state is State.READY:
        says = "Ready, but empty: no shard is held, so there is nothing to vouch for"
    else:
        says = f"No shard is held yet (the worker is {seen.state}): nothing can be executed"
    return Verdict(grade="attention", says=says, next="Seal a model: vram seal PATH.")
