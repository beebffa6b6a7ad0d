"""Entries that are written down but not yet durable. Pure: builds lines upon a position.

A draft is made once and written as often as it takes: index, timestamp and mac of an entry that may have
reached the disk never change.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import msgspec

from vram_residency.audit import chain, tree
from vram_residency.audit.entry import encode_body, join_line
from vram_residency.audit.event_base import Event
from vram_residency.audit.events import to_fields
from vram_residency.audit.own_events import ClockSteppedBack, EpochClosed
from vram_residency.audit.registry import event_type_of
from vram_residency.core.clock import rfc3339


class Identity(msgspec.Struct, frozen=True):
    """Whose entries they are: ``key_id`` is the log key's, 8 hex digits."""

    service_id: str
    key_id: str


class Position(msgspec.Struct, frozen=True):
    """The end of a log: what the next entry builds upon.

    ``mac`` is the last entry's (32 bytes), ``timestamp_us`` its time in microseconds since
    the epoch (None before the first entry).
    """

    frontier: tree.Frontier
    mac: bytes
    timestamp_us: int | None

    @property
    def size(self) -> int:
        """The number of entries so far."""
        return self.frontier.size


class Draft:
    """New lines on top of a position, under the key of one epoch."""

    def __init__(self, identity: Identity, start: Position, key: bytes) -> None:
        self.start: Final = start
        self.leaf_hashes: list[bytes] = []
        self._identity = identity
        self._key = key
        self._mac = start.mac
        self._timestamp_us = start.timestamp_us
        self._lines: list[bytes] = []

    def __len__(self) -> int:
        return len(self._lines)

    @property
    def next_index(self) -> int:
        """The index of the next entry."""
        return self.start.size + len(self._lines)

    @property
    def data(self) -> bytes:
        """The lines as they go into a segment."""
        return b"".join(self._lines)

    @property
    def end(self) -> Position:
        """The position after these lines."""
        return Position(self.start.frontier.extend(self.leaf_hashes), self._mac, self._timestamp_us)

    def audit_id(self, index: int) -> str:
        """``<key id>-<index>``."""
        return f"{self._identity.key_id}-{index}"

    def add(
        self,
        event_type: str,
        timestamp_ns: int,
        fields: Mapping[str, object],
        sanitized: tuple[str, ...] = (),
    ) -> int:
        """Append an entry of clean fields; its index. Raises EntryFormatError where it would be too long.

        Where the clock stepped back, that is an entry of its own right before.
        """
        self._note_clock(timestamp_ns)
        return self._append(event_type, timestamp_ns, fields, sanitized)

    def add_own(self, event: Event, timestamp_ns: int) -> int:
        """Append one of the log's own events; its index."""
        return self.add(event_type_of(event), timestamp_ns, to_fields(event))

    def add_epoch_closed(self, epoch: int, timestamp_ns: int) -> int:
        """Append the last entry under this draft's key (audit-log.md section 3); its index."""
        # add() may put a clock_stepped_back before it, which the root must cover: do it first.
        self._note_clock(timestamp_ns)
        root = self.end.frontier.root()
        closed = EpochClosed(epoch=epoch, tree_size=self.next_index, root_hash=root.hex())
        return self.add_own(closed, timestamp_ns)

    def _note_clock(self, timestamp_ns: int) -> None:
        if self._timestamp_us is None or timestamp_ns // 1000 >= self._timestamp_us:
            return
        step = ClockSteppedBack(by_us=self._timestamp_us - timestamp_ns // 1000)
        self._append(event_type_of(step), timestamp_ns, to_fields(step), ())

    def _append(
        self, event_type: str, timestamp_ns: int, fields: Mapping[str, object], sanitized: tuple[str, ...]
    ) -> int:
        index = self.next_index
        body = encode_body(
            index=index,
            timestamp=rfc3339(timestamp_ns),
            event_type=event_type,
            service_id=self._identity.service_id,
            audit_id=self.audit_id(index),
            fields=fields,
            sanitized=sanitized,
        )
        self._mac = chain.next_mac(self._key, self._mac, body)
        self._timestamp_us = timestamp_ns // 1000
        line = join_line(body, self._mac)
        self.leaf_hashes.append(tree.leaf_hash(line))
        self._lines.append(line + b"\n")
        return index
