"""Entries that are written down but not yet durable. Pure: builds lines upon a position.

A draft is made once and written as often as it takes: index, timestamp and mac of an entry that may have
reached the disk never change.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

import msgspec

from vram_residency.audit.events import to_fields
from vram_residency.audit.events.base import Event
from vram_residency.audit.events.own import ClockSteppedBack, EpochClosed, KeyRotated
from vram_residency.audit.events.registry import event_type_of
from vram_residency.audit.format import chain, note, tree
from vram_residency.audit.format.entry import encode_body, join_line
from vram_residency.audit.format.key_change import KeyChange
from vram_residency.core.clock import rfc3339

_US_PER_S: Final = 1_000_000
#: The end of a time that changes within a second.
_FRACTION: Final = "000000Z"

#: An event whose fields are clean: its type, its time (nanoseconds since the epoch), and the JSON object of
#: its fields, which is not empty.
PlainEvent = tuple[str, int, bytes]


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
        self._chain = chain.MacChain(key)
        self._mac = start.mac
        self._timestamp_us = start.timestamp_us
        self._lines: list[bytes] = []
        #: Event type → what stands between an entry's time and its audit id's index.
        self._middles: dict[str, bytes] = {}

    def __len__(self) -> int:
        return len(self._lines)

    @property
    def next_index(self) -> int:
        """The index of the next entry."""
        return self.start.size + len(self._lines)

    @property
    def lines(self) -> Sequence[bytes]:
        """The lines, without newlines. Nothing may be added to the draft any more."""
        return self._lines

    @property
    def data(self) -> bytes:
        """The lines as they go into a segment."""
        return b"\n".join([*self._lines, b""])

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

    def add_plain(self, events: Sequence[PlainEvent]) -> range | None:
        """add() for many events at once; their indexes. None, and nothing added, where the clock steps back.

        The same bytes at a fraction of the cost (performance.md); the caller sees to the entries' length.
        """
        times_us = [event[1] // 1000 for event in events]
        if times_us != sorted(times_us) or (
            self._timestamp_us is not None and times_us[0] < self._timestamp_us
        ):
            return None
        indexes = range(self.next_index, self.next_index + len(events))
        bodies = self._plain_bodies(indexes, times_us, events)
        # No body depends on a mac, so each step goes over all of them.
        macs = self._chain.macs(self._mac, bodies)
        lines = list(map(join_line, bodies, macs))
        self.leaf_hashes += tree.leaf_hashes_of(lines)
        self._lines += lines
        self._mac, self._timestamp_us = macs[-1], times_us[-1]
        return indexes

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

    def add_key_rotated(self, old: note.Signer, new: note.VerifierKey, timestamp_ns: int) -> int:
        """Append the entry by which ``old`` hands over to ``new``; its index. SignerUnavailableError."""
        # As above: what is signed names the entry's index.
        self._note_clock(timestamp_ns)
        change = KeyChange(self.next_index, old.verifier, new)
        rotated = KeyRotated(old_vkey=str(old.verifier), new_vkey=str(new), signature_by_old=change.sign(old))
        return self.add_own(rotated, timestamp_ns)

    def _plain_bodies(
        self, indexes: range, times_us: Sequence[int], events: Sequence[PlainEvent]
    ) -> list[bytes]:
        bodies = []
        second_us, second_text = -_US_PER_S, b""
        for index, time_us, (event_type, _, fields) in zip(indexes, times_us, events, strict=True):
            if time_us - second_us >= _US_PER_S:
                second_us = time_us // _US_PER_S * _US_PER_S
                second_text = rfc3339(second_us * 1000)[: -len(_FRACTION)].encode()
            middle = self._middles.get(event_type) or self._middle(event_type)
            parts = (index, second_text, time_us - second_us, middle, index, fields[1:-1])
            bodies.append(b'{"index":%d,"timestamp":"%b%06d%b%d",%b' % parts)
        return bodies

    def _middle(self, event_type: str) -> bytes:
        names = (event_type, self._identity.service_id)
        texts = [msgspec.json.encode(name).decode() for name in names]
        middle = f'Z","event_type":{texts[0]},"service_id":{texts[1]},"audit_id":"{self._identity.key_id}-'
        self._middles[event_type] = middle.encode()
        return self._middles[event_type]

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
        self._mac = self._chain.next(self._mac, body)
        self._timestamp_us = timestamp_ns // 1000
        line = join_line(body, self._mac)
        self.leaf_hashes.append(tree.leaf_hash(line))
        self._lines.append(line)
        return index
