"""What the page remembers of the evidence: used bytes over time, and where damage was found. Bounded."""

from __future__ import annotations

import threading
from collections import OrderedDict, deque
from collections.abc import Callable, Collection, Sequence
from typing import Final

import msgspec

from vram_residency.core.clock import parse_rfc3339
from vram_residency.dashboard.forecast import Point

POINTS_MAX: Final = 1024
DAMAGES_MAX: Final = 1024
_NS: Final = 1_000_000_000


class Damage(msgspec.Struct, frozen=True, kw_only=True):
    """What a failed verification found, as its entry says; offsets are bytes in the shard, both inclusive."""

    shard_id: str
    timestamp: str
    reason: str
    tensors: tuple[str, ...] | None = None
    first_bad_offset: int | None = None
    last_bad_offset: int | None = None


class _Allocated(msgspec.Struct, frozen=True):
    timestamp: str
    used_bytes: int


class _Deallocated(msgspec.Struct, frozen=True):
    timestamp: str
    remaining_used: int


class Recollection:
    """Fed with the lines of the audit log as they become durable. Thread-safe."""

    def __init__(self, first: Point) -> None:
        self._lock = threading.Lock()  # guards both
        self._points: deque[Point] = deque([first], POINTS_MAX)
        self._damages: OrderedDict[str, Damage] = OrderedDict()
        self._takers: dict[bytes, Callable[[bytes], None]] = {
            b"vram_allocated": self._take_allocated,
            b"vram_deallocated": self._take_deallocated,
            b"seal_verification_failed": self._take_damage,
        }

    def take(self, lines: Sequence[bytes], _duration_s: float = 0.0) -> None:
        """Remember what concerns the page; every other line costs one search."""
        for line in lines:
            taker = self._takers.get(_event_type(line))
            if taker is not None:
                with self._lock:
                    taker(line)

    def points(self) -> list[Point]:
        """Used bytes over time, oldest first."""
        with self._lock:
            return list(self._points)

    def damage_among(self, held: Collection[str]) -> dict[str, Damage]:
        """Damage of the shards that are still held, by shard id."""
        with self._lock:
            return {name: damage for name, damage in self._damages.items() if name in held}

    def _take_allocated(self, line: bytes) -> None:
        event = msgspec.json.decode(line, type=_Allocated)
        self._points.append(Point(_unix_s(event.timestamp), event.used_bytes))

    def _take_deallocated(self, line: bytes) -> None:
        event = msgspec.json.decode(line, type=_Deallocated)
        self._points.append(Point(_unix_s(event.timestamp), event.remaining_used))

    def _take_damage(self, line: bytes) -> None:
        damage = msgspec.json.decode(line, type=Damage)
        self._damages.pop(damage.shard_id, None)
        self._damages[damage.shard_id] = damage
        if len(self._damages) > DAMAGES_MAX:
            self._damages.popitem(last=False)


def _event_type(line: bytes) -> bytes:
    """The third member of every entry; its value holds no quotation mark."""
    return line.partition(b'"event_type":"')[2].partition(b'"')[0]


def _unix_s(timestamp: str) -> float:
    return parse_rfc3339(timestamp) / _NS
