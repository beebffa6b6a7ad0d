"""Where events wait for the disk: bounded, O(1), never doing I/O (spec: audit-log.md section 4).

Every record lies twice: as an object for the writer of this process, and in the journal's ring for the one
that comes after this process was killed.
"""

from __future__ import annotations

import threading
from collections import deque
from itertools import islice
from typing import Final

import msgspec

from vram_residency.audit.events.content import Content
from vram_residency.audit.format.receipt import Receipt
from vram_residency.audit.writing.ring import Losses, Ring
from vram_residency.core.clock import Clock
from vram_residency.core.errors import BufferFullError


class Ticket:
    """Held by whoever waits for an event to be durable. ``receipt`` is set once it is."""

    __slots__ = ("receipt",)

    def __init__(self) -> None:
        self.receipt: Receipt | None = None


class Record(msgspec.Struct, frozen=True, gc=False):
    """Content with the logger's clock at emit() (nanoseconds since the epoch); where it ends in the ring."""

    timestamp_ns: int
    content: Content
    ticket: Ticket | None
    end: int


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
    """A bounded queue in memory and in the journal.

    Invariants, all guarded by ``_lock``: at most ``capacity`` records wait when an ordinary one is let in,
    at most ``capacity + reserved`` ever; timestamps are taken under the lock, so they follow the order.
    The ring's header tells of the losses in ``_losses`` and ``_cut_losses``: those that no entry tells of.
    """

    def __init__(self, *, capacity: int, reserved: int, clock: Clock) -> None:
        """Takes records once it has a ring: see attach()."""
        self.capacity: Final = capacity
        self._limit: Final = capacity + reserved
        self._now_ns: Final = clock.now_ns
        self._lock = threading.Lock()
        self._records: deque[Record] = deque()
        self._losses: Losses | None = None
        self._cut_losses: Losses | None = None
        self._ring: Ring | None = None
        self.is_closed = False
        self.accepted_count = 0
        self.dropped_count = 0
        self.dropped_critical_count = 0

    def __len__(self) -> int:
        return len(self._records)

    def attach(self, ring: Ring) -> None:
        """Let records in; they lie in this empty ring until they are released."""
        self._ring = ring

    def put(self, content: Content, ticket: Ticket | None = None) -> int:
        """Append a record; how many wait now. 0 where there is no room. Raises BufferClosedError."""
        # One function, since each call costs as much as the clock (performance.md: a microsecond in all).
        with self._lock:
            ring, records, kind = self._ring, self._records, content.kind
            if self.is_closed or ring is None:
                raise BufferClosedError
            waiting_count = len(records) + 1
            if waiting_count > (self._limit if kind.is_reserved else self.capacity):
                return 0
            now_ns = self._now_ns()
            end = ring.append(now_ns, content.prefix, content.payload, kind.is_reserved)
            if not end:
                return 0
            records.append(Record(now_ns, content, ticket, end))
            self.accepted_count += 1
            return waiting_count

    def refuse(self, content: Content) -> BufferFullError:
        """Count an event that was not put as lost; the error to raise."""
        with self._lock:
            now_ns = self._now_ns()
            is_critical = content.kind.is_critical
            self._losses = _sum(self._losses, Losses(1, int(is_critical), now_ns, now_ns))
            self.dropped_count += 1
            self.dropped_critical_count += is_critical
            if self._ring is not None:
                self._ring.write_losses(_sum(self._cut_losses, self._losses))
        return BufferFullError(self.capacity)

    def cut(self) -> Cut:
        """What waits now. The records and losses stay until release()."""
        with self._lock:
            self._cut_losses, self._losses = _sum(self._cut_losses, self._losses), None
            return Cut(tuple(self._records), self._cut_losses, self._now_ns())

    def release(self, cut: Cut, tree_size: int) -> None:
        """Forget the oldest cut: it is durable in entries below ``tree_size``. May be repeated."""
        with self._lock:
            self._cut_losses = None
            count, end = 0, 0
            if cut.records and self._records and self._records[0] is cut.records[0]:
                count, end = len(cut.records), cut.records[-1].end
            if self._ring is not None:
                self._ring.release(len(self._records) - count, end, tree_size, self._losses)
            if count:
                # One assignment: an interrupt (Ctrl-C) comes before or after it.
                self._records = deque(islice(self._records, count, None))

    def close(self) -> None:
        """Let nothing in any more."""
        with self._lock:
            self.is_closed = True

    def detach(self) -> None:
        """Let the ring's memory go. Takes no lock: in a forked child nobody could give it back."""
        ring, self._ring = self._ring, None
        if ring is not None:
            ring.close()


def _sum(first: Losses | None, second: Losses | None) -> Losses | None:
    return first.add(second) if first and second else first or second
