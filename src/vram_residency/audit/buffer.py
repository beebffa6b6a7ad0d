"""Where events wait for the disk: bounded, O(1), never doing I/O (spec: audit-log.md section 4).

The writer needs four things of it (put, cut, release, close) and a ring in a mapped file can take its
place behind them: a record is flat data, and a cut stays in the buffer until it is released.
"""

from __future__ import annotations

import threading
from collections import deque
from itertools import islice
from typing import Final

import msgspec

from vram_residency.audit.content import Content
from vram_residency.core.clock import Clock
from vram_residency.core.errors import BufferFullError


class Receipt(msgspec.Struct, frozen=True):
    """Proof of place for a durable event; can later be upgraded to an inclusion proof.

    ``leaf_hash`` is 64 hex digits.
    """

    index: int
    leaf_hash: str
    audit_id: str


class Ticket:
    """Held by whoever waits for an event to be durable. ``receipt`` is set once it is."""

    __slots__ = ("receipt",)

    def __init__(self) -> None:
        self.receipt: Receipt | None = None


class Record(msgspec.Struct, frozen=True):
    """Content with the logger's clock at emit() (nanoseconds since the epoch)."""

    timestamp_ns: int
    content: Content
    ticket: Ticket | None


class Losses(msgspec.Struct, frozen=True):
    """Events that were refused for want of room, and when (nanoseconds since the epoch)."""

    count: int
    critical_count: int
    first_ns: int
    last_ns: int

    def add(self, later: Losses) -> Losses:
        """Both together."""
        return Losses(
            self.count + later.count,
            self.critical_count + later.critical_count,
            min(self.first_ns, later.first_ns),
            max(self.last_ns, later.last_ns),
        )


class Cut(msgspec.Struct, frozen=True):
    """Everything that waited at one moment, and that moment.

    Every event put later has a later timestamp (unless the clock stepped), so the log's own events may
    follow the records with ``at_ns`` as their time.
    """

    records: tuple[Record, ...]
    losses: Losses | None
    at_ns: int


class BufferClosedError(Exception):
    """put() came after close()."""


class EventBuffer:
    """A bounded queue in memory.

    Invariants, all guarded by ``_lock``: at most ``capacity`` records wait when an ordinary one is let in,
    at most ``capacity + reserved`` ever; timestamps are taken under the lock, so they follow the order.
    """

    def __init__(self, *, capacity: int, reserved: int, clock: Clock) -> None:
        self.capacity: Final = capacity
        self._limit: Final = capacity + reserved
        self._now_ns: Final = clock.now_ns
        self._lock = threading.Lock()
        self._records: deque[Record] = deque()
        self._losses: Losses | None = None
        self._is_closed = False
        self.accepted_count = 0
        self.dropped_count = 0
        self.dropped_critical_count = 0

    def __len__(self) -> int:
        return len(self._records)

    def put(self, content: Content, ticket: Ticket | None = None) -> int:
        """Append a record; how many now wait. Raises BufferFullError (counted), BufferClosedError."""
        with self._lock:
            if self._has_room(content):
                return self._append(content, ticket)
            self._count_loss(content)
        raise BufferFullError(self.capacity)

    def offer(self, content: Content, ticket: Ticket | None = None) -> bool:
        """Append a record if there is room. A refusal is not a loss: the caller still has the event."""
        with self._lock:
            has_room = self._has_room(content)
            if has_room:
                self._append(content, ticket)
            return has_room

    def cut(self) -> Cut:
        """What waits now. The records stay until release(); the losses are the caller's to record."""
        with self._lock:
            losses, self._losses = self._losses, None
            return Cut(tuple(self._records), losses, self._now_ns())

    def release(self, cut: Cut) -> None:
        """Forget the records of the oldest cut: they are durable elsewhere. May be repeated."""
        with self._lock:
            if cut.records and self._records and self._records[0] is cut.records[0]:
                # One assignment: an interrupt (Ctrl-C) comes before or after it.
                self._records = deque(islice(self._records, len(cut.records), None))

    def close(self) -> None:
        """Let nothing in any more."""
        with self._lock:
            self._is_closed = True

    def _has_room(self, content: Content) -> bool:
        if self._is_closed:
            raise BufferClosedError
        return len(self._records) < (self._limit if content.is_reserved else self.capacity)

    def _append(self, content: Content, ticket: Ticket | None) -> int:
        self._records.append(Record(self._now_ns(), content, ticket))
        self.accepted_count += 1
        return len(self._records)

    def _count_loss(self, content: Content) -> None:
        now_ns = self._now_ns()
        loss = Losses(1, int(content.is_critical), now_ns, now_ns)
        self._losses = self._losses.add(loss) if self._losses else loss
        self.dropped_count += 1
        self.dropped_critical_count += content.is_critical
