"""Where the verification of a pruned log begins (spec: audit-log.md sections 6 and 7).

The first entries are gone; a ``segments_pruned`` further on says how the log stood where the rest begins.
Nothing here is verified: the replay begins with it as an assumption, and confirms it where it reaches that
very entry, authenticated like any other.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Final

import msgspec

from vram_residency.audit.events.own import SegmentsPruned
from vram_residency.audit.format import tree
from vram_residency.audit.format.entry import EntryFormatError, parse_entry
from vram_residency.audit.reading import source as reading
from vram_residency.audit.reading.stored_leaves import fold, stored_leaves
from vram_residency.audit.reading.verdict import Fault, Pruned
from vram_residency.audit.store.archive import ArchiveFormatError
from vram_residency.audit.store.directory import Directory

_MARK: Final = b'"event_type":"segments_pruned"'
_HEX: Final = re.compile(r"[0-9a-f]{64}\Z")


class PruneRecord(msgspec.Struct, frozen=True):
    """A ``segments_pruned`` with its index and timestamp."""

    index: int
    timestamp: str
    event: SegmentsPruned

    @property
    def next_index(self) -> int:
        """The first entry that stays."""
        return self.event.next_index

    @property
    def summary(self) -> Pruned:
        """What a verdict says of it."""
        return Pruned(
            next_index=self.next_index,
            policy=self.event.policy,
            recorded_at=self.timestamp,
            record_index=self.index,
        )


class Boundary(msgspec.Struct, frozen=True):
    """How a log stands before entry ``index``: epoch, mac (32 bytes) and root (32 bytes)."""

    index: int
    epoch: int
    mac: bytes
    root: bytes

    @classmethod
    def of(cls, event: SegmentsPruned) -> Boundary:
        """What the event says of ``next_index``. Raises ValueError."""
        if _HEX.match(event.last_mac) is None or _HEX.match(event.root_hash) is None:
            raise ValueError("a hash in it is not 64 hex digits")
        return cls(
            event.next_index, event.next_epoch, bytes.fromhex(event.last_mac), bytes.fromhex(event.root_hash)
        )


class Start(msgspec.Struct, frozen=True):
    """What a replay begins with, unverified.

    ``frontier`` is that of the stored leaf hashes and folds to the boundary's root, ``roots`` are those of
    smaller sizes that were asked for; ``key_id`` is the log key's (8 hex) in the first entry that is there.
    """

    boundary: Boundary
    frontier: tree.Frontier
    roots: dict[int, bytes]
    key_id: str


def find_records(directory: Directory, start: int = 0) -> Iterator[PruneRecord]:
    """Every ``segments_pruned`` in the segments from entry ``start`` on, unverified, in order.

    Raises OSError, and Fault for a malformed one.
    """
    for segment in reading.segments(directory.entries):
        if segment.first_index >= start:
            yield from _records_of(segment)


def is_recorded(directory: Directory, first_index: int) -> bool:
    """Whether a ``segments_pruned``, unverified, tells that the entries before ``first_index`` are gone.

    The newest segments are read first. Raises OSError, and Fault for a malformed one.
    """
    return any(
        record.next_index >= first_index
        for segment in reversed(reading.segments(directory.entries))
        for record in _records_of(segment)
    )


def find_pruning(directory: Directory, index: int) -> PruneRecord | None:
    """The first ``segments_pruned`` that covers entry ``index``, unverified; None where none does.

    Records that were pruned themselves are told of by the next one. Raises OSError.
    """
    try:
        return next((record for record in find_records(directory) if index < record.next_index), None)
    except Fault:
        return None


def find_start(directory: Directory, *, at_least: int, sizes: Sequence[int]) -> Start | None:
    """The first place from entry ``at_least`` on that a record names and at which a segment begins, or None.

    ``sizes`` are those of checkpoints: none covers a record that names more. Raises OSError; Fault where a
    record is malformed, or the leaf hashes of
    what is gone are not there or are not those of the record.
    """
    # 1. The record: of several the one that names the least.
    segments = {segment.first_index: segment for segment in reading.segments(directory.entries)}
    records, damage = _readable_records(directory, at_least)
    fitting = [
        record
        for record in records
        if record.next_index in segments
        and at_least <= record.next_index <= max(sizes, default=0)
        # No epoch is without an entry: a larger number would only keep the reader busy.
        and record.event.next_epoch <= record.next_index
    ]
    if not fitting and damage is not None:
        raise damage
    if not fitting:
        return None
    record = min(fitting, key=lambda record: record.next_index)
    boundary = Boundary.of(record.event)
    # 2. The tree over what is gone: from the leaf hashes that stayed.
    earlier = [record.next_index for record in records]
    stops = [size for size in (*sizes, *earlier) if size < boundary.index]
    frontier, roots = fold(stored_leaves(directory), [*stops, boundary.index])
    if frontier.size != boundary.index:
        raise Fault("truncated", "leaf hashes of pruned entries are missing", file="tree")
    if frontier.root() != boundary.root:
        reason = "the leaf hashes of pruned entries do not hash to the root in segments_pruned"
        raise Fault("tampered", reason, file="tree")
    return Start(boundary, frontier, roots, _first_key_id(segments[boundary.index]))


def _readable_records(directory: Directory, start: int) -> tuple[list[PruneRecord], Fault | None]:
    """Every record from entry ``start`` on, but for those that a damaged archive hides; the first such one.

    Raises OSError, and Fault for a malformed record.
    """
    records: list[PruneRecord] = []
    damage: Fault | None = None
    for segment in reading.segments(directory.entries):
        if segment.first_index < start:
            continue
        try:
            records += _records_of(segment)
        except ArchiveFormatError as error:
            # The replay, where it comes so far, says at which entry.
            fault = Fault("tampered", f"the archive is malformed: {error.strerror}")
            damage = damage or fault.at(segment.first_index, segment.name, 0)
    return records, damage


def _records_of(segment: reading.Segment) -> Iterator[PruneRecord]:
    with reading.open_segment(segment.path) as file:
        for block, end in reading.blocks(file):
            at = block.find(_MARK)
            while at >= 0:
                line_start = block.rfind(b"\n", 0, at) + 1
                line_end = block.index(b"\n", at)
                offset = end - len(block) + line_start
                yield from _parse(block[line_start:line_end], segment.name, offset)
                at = block.find(_MARK, line_end)


def _parse(line: bytes, file: str, offset: int) -> Iterator[PruneRecord]:
    try:
        entry = parse_entry(line)
    except EntryFormatError:
        return  # the replay will say so, if it is one of the log's lines at all
    if entry.event_type != "segments_pruned":
        return  # a text that looks like it
    try:
        event = msgspec.convert(entry.fields, SegmentsPruned, strict=True)
        Boundary.of(event)
    except (msgspec.ValidationError, ValueError) as error:
        fault = Fault("tampered", f"segments_pruned is malformed: {error}")
        raise fault.at(entry.index, file, offset) from None
    yield PruneRecord(entry.index, entry.timestamp, event)


def _first_key_id(segment: reading.Segment) -> str:
    """The id in the first line's audit_id; empty where there is none, which fits no key."""
    try:
        with reading.open_segment(segment.path) as file:
            line = next(reading.lines(file), None)
        return "" if line is None else parse_entry(line.data).audit_id.partition("-")[0]
    except (ArchiveFormatError, EntryFormatError):
        return ""
