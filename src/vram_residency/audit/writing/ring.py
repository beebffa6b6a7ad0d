"""The journal's bytes: a ring of records behind a header (spec: audit-log.md section 4). No I/O.

::

    0     magic, bytes of the ring, SHA-256 of the origin, CRC-32          written once
    512   slot: generation, drained sequence, its tree size, losses, CRC   ┐ in turns: one of
    1024  slot: the same                                                   ┘ them is always whole
    4096  records, each at a multiple of 8

A record is its commit word (magic and Adler-32 of the rest), then sequence, time, length, body. The commit
word is stored last: a process that dies before leaves no record. A record never goes around the end of the
ring. The checksum finds damage; it is no defence against who may write the file (verify says that recovered
events were not authenticated).
"""

from __future__ import annotations

import hashlib
import re
import struct
from collections.abc import Iterator
from typing import Final
from zlib import adler32, crc32

import msgspec

HEADER_BYTES: Final = 4096
#: A record's bytes beside its body: commit word, sequence, time, length, and what fills up the last word.
OVERHEAD_BYTES: Final = 40
_WORD: Final = 8
_MAGIC: Final = b"vram-journal/v1\n"
_FIXED: Final = struct.Struct("<16sQ32s")
_SLOTS: Final = (512, 1024)
_SLOT: Final = struct.Struct("<7Q")
_CRC: Final = struct.Struct("<I")
_RECORD: Final = struct.Struct("<QQI")
#: These bytes occur in no UTF-8, so that no text in an event can look like a record.
_COMMIT_BYTES: Final = b"\xf5\xc0\xff\xc1"
_COMMIT: Final = int.from_bytes(_COMMIT_BYTES, "little") << 32
_COMMIT_PATTERN: Final = re.compile(re.escape(_COMMIT_BYTES))

_pack = _RECORD.pack


class RingFormatError(ValueError):
    """The bytes are not a journal of this log, or its header is damaged."""


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


class RingRecord(msgspec.Struct, frozen=True, gc=False):
    """One event as it lies in the ring; its checksum was right. ``timestamp_ns`` since the epoch."""

    sequence: int
    timestamp_ns: int
    body: bytes


class RingContent(msgspec.Struct, frozen=True, kw_only=True):
    """What a ring says: ``records`` in sequence, all after ``drained``, the last that the log held for sure.

    ``tree_size`` is how many entries there were then. ``missing`` are the sequences between that no whole
    record has, and after the last whole one those of records whose checksum is wrong.
    """

    ring_bytes: int
    drained: int
    tree_size: int
    losses: Losses | None
    records: tuple[RingRecord, ...]
    missing: tuple[int, ...]


class Ring:
    """Writes records into memory that outlives the process. Not thread-safe: the buffer's lock guards it.

    Invariants: ``_tail`` <= ``_head`` count bytes ever used, gaps included, and stand at ``% _size``; no
    byte between them is written over; ``_room`` bytes after ``_head`` are free for ordinary records.
    ``_head`` is ``_lap`` + ``_next``, where ``_next`` is the next record's place in memory.
    """

    def __init__(self, memory: memoryview, *, reserved_bytes: int, drained: int, tree_size: int) -> None:
        """Begin empty after sequence ``drained``: whatever records lie there are passed over from now on."""
        self._memory = memory
        self._words = memory.cast("Q")
        self._size: Final = len(memory) - HEADER_BYTES
        self._ordinary_bytes: Final = self._size - reserved_bytes
        self._lap, self._next = -HEADER_BYTES, HEADER_BYTES
        self._tail = 0
        self._sequence = self._drained = drained
        self._tree_size = tree_size
        self._generation = max((slot[0] for slot in _slots(bytes(memory[:HEADER_BYTES]))), default=0)
        self._room = self._ordinary_bytes
        self.write_losses(None)

    def append(self, timestamp_ns: int, prefix: bytes, payload: bytes, is_reserved: bool) -> int:  # noqa: FBT001 - a microsecond
        """Store an event; where it ends, to be given to release(). 0 where there is no room."""
        sequence = self._sequence + 1
        body = prefix + payload
        data = _pack(sequence, timestamp_ns, len(body)) + body
        needed = (len(data) + 15) & -8
        if needed > self._room and not self._make_room(needed, is_reserved):
            return 0
        start = self._next
        words = self._words
        # 1. Without a commit word a record is nothing to whoever reads after a crash here.
        words[start >> 3] = 0
        self._memory[start + 8 : start + 8 + len(data)] = data
        # 2. With it the event survives.
        words[start >> 3] = _COMMIT | adler32(data)
        self._sequence = sequence
        self._room -= needed
        self._next = start = start + needed
        return self._lap + start

    def release(self, waiting_count: int, end: int, tree_size: int, losses: Losses | None) -> None:
        """All but the newest records are entries below ``tree_size``: they ended at ``end``. May be repeated.

        ``losses`` are those that no entry tells of.
        """
        self._drained = self._sequence - waiting_count
        self._tree_size = tree_size
        # The header first: only records that it calls drained may be written over.
        self.write_losses(losses)
        self._tail = max(self._tail, end)
        if self._tail == self._lap + self._next:
            # Empty: begin again at the start, where the memory is warm.
            self._go_around()
            self._tail = self._lap + self._next
        self._measure_room()

    def write_losses(self, losses: Losses | None) -> None:
        """Write the header's next slot. A crash in between leaves the other slot, the state before."""
        self._generation += 1
        lost = losses or _NO_LOSSES
        slot = _SLOT.pack(
            self._generation,
            self._drained,
            self._tree_size,
            lost.count,
            lost.critical_count,
            lost.first_ns,
            lost.last_ns,
        )
        start = _SLOTS[self._generation % len(_SLOTS)]
        self._memory[start : start + _SLOT.size + _CRC.size] = slot + _CRC.pack(crc32(slot))

    def close(self) -> None:
        """Let the memory go. May be called twice."""
        self._words.release()
        self._memory.release()

    def _make_room(self, needed: int, is_reserved: bool) -> bool:  # noqa: FBT001
        """Whether the record may be stored; goes around to the start of the ring where it must."""
        limit = self._size if is_reserved else self._ordinary_bytes
        to_end = self._to_end()
        gap = to_end if needed > to_end else 0
        if self._used() + gap + needed > limit:
            return False
        if gap:
            self._go_around()
        self._measure_room()
        return True

    def _to_end(self) -> int:
        return HEADER_BYTES + self._size - self._next

    def _used(self) -> int:
        return self._lap + self._next - self._tail

    def _go_around(self) -> None:
        self._lap += self._size
        self._next = HEADER_BYTES

    def _measure_room(self) -> None:
        self._room = min(self._to_end(), self._ordinary_bytes - self._used())


_NO_LOSSES: Final = Losses(0, 0, 0, 0)


def new_header(ring_bytes: int, origin: str) -> bytes:
    """The header's fixed part for a ring of so many bytes (a multiple of 8); no slot is written yet."""
    fixed = _FIXED.pack(_MAGIC, ring_bytes, hashlib.sha256(origin.encode()).digest())
    return fixed + _CRC.pack(crc32(fixed))


def read_ring(data: bytes, origin: str) -> RingContent:
    """What a journal holds, whoever died while writing it. Raises RingFormatError."""
    ring_bytes = _read_fixed(data, origin)
    slots = _slots(data)
    if not slots:
        raise RingFormatError("neither slot of the header has a right checksum")
    _, drained, tree_size, *lost = max(slots)
    whole: dict[int, RingRecord] = {}
    broken: set[int] = set()
    for sequence, record in _find_records(data, drained):
        if record is None:
            broken.add(sequence)
        else:
            whole[sequence] = record
    last = max(whole, default=drained)
    return RingContent(
        ring_bytes=ring_bytes,
        drained=drained,
        tree_size=tree_size,
        losses=Losses(*lost) if lost[0] else None,
        records=tuple(whole[sequence] for sequence in sorted(whole)),
        # Sequences have no gaps: what is missing below the highest was there once.
        missing=(
            *(sequence for sequence in range(drained + 1, last) if sequence not in whole),
            *sorted(sequence for sequence in broken if sequence > last),
        ),
    )


def _read_fixed(data: bytes, origin: str) -> int:
    if not data.startswith(_MAGIC):
        raise RingFormatError("not a journal, or one of another version")
    if len(data) < HEADER_BYTES:
        raise RingFormatError("shorter than its header")
    fixed = data[: _FIXED.size]
    if _CRC.unpack_from(data, _FIXED.size)[0] != crc32(fixed):
        raise RingFormatError("the header's checksum is wrong")
    _, ring_bytes, origin_hash = _FIXED.unpack(fixed)
    if origin_hash != hashlib.sha256(origin.encode()).digest():
        raise RingFormatError("the journal of another log")
    if len(data) != HEADER_BYTES + ring_bytes:
        raise RingFormatError(f"{len(data)} bytes long, but its header says {HEADER_BYTES + ring_bytes}")
    return int(ring_bytes)


def _slots(data: bytes) -> list[tuple[int, ...]]:
    found = []
    for start in _SLOTS:
        slot = data[start : start + _SLOT.size]
        if _CRC.unpack_from(data, start + _SLOT.size)[0] == crc32(slot) and any(slot):
            found.append(_SLOT.unpack(slot))
    return found


def _find_records(data: bytes, drained: int) -> Iterator[tuple[int, RingRecord | None]]:
    """Every committed record after ``drained``, wherever it lies; None where its checksum is wrong."""
    # No sequence can be further ahead than the smallest records would reach in this ring.
    last = drained + len(data) // _RECORD.size
    for match in _COMMIT_PATTERN.finditer(data, HEADER_BYTES):
        start = match.start() - _CRC.size
        if start % _WORD or start + _WORD + _RECORD.size > len(data):
            continue
        sequence, timestamp_ns, length = _RECORD.unpack_from(data, start + _WORD)
        if not drained < sequence <= last:
            continue
        end = start + _WORD + _RECORD.size + length
        content = data[start + _WORD : end]
        is_whole = end <= len(data) and adler32(content) == _CRC.unpack_from(data, start)[0]
        record = RingRecord(sequence, timestamp_ns, content[_RECORD.size :]) if is_whole else None
        yield sequence, record
