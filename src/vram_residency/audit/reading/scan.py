"""Checking a range of a segment on its own, so that many processes can check one log. Pure but for reading.

A scan vouches for stretches of ordinary entries: each has its form, its index follows, its mac follows from
the one before. What it cannot know, how the log stood before the range, it states as its assumption, and
``Replay.absorb`` takes a stretch only if the assumption holds. Whatever is not plainly right ends the scan:
the lines from there on are fed to the replay one by one, which alone finds faults. So a scan can save work,
but never change a verdict.
"""

from __future__ import annotations

import hmac
from collections.abc import Iterator, Sequence
from typing import BinaryIO, Final

import msgspec

from vram_residency.audit.events.registry import LOG_OWN_TYPES
from vram_residency.audit.format import chain, tree
from vram_residency.audit.format.entry import (
    ENTRY_BYTES_MAX,
    MAC_SUFFIX_BYTES,
    Entry,
    EntryFormatError,
    parse_entry,
)
from vram_residency.audit.reading.shapes import Row, Shapes

#: What is worked on at once: small enough to stay in a core's cache.
_BATCH_BYTES: Final = 1 << 17
#: What one scan keeps at most, however long its range: leaves of a stretch, bytes of singles.
_STRETCH_LEAVES_MAX: Final = 1 << 16
_SINGLES_BYTES_MAX: Final = 1 << 25
_LINE_BYTES_MAX: Final = ENTRY_BYTES_MAX + 1


class ScanJob(msgspec.Struct, frozen=True, kw_only=True, tag="scan"):
    """The lines that begin in bytes ``start`` to ``end`` (exclusive) of the segment at ``path``.

    ``key`` is K_epoch, and the range begins at most ``epochs_ahead_max`` epochs later; None checks no macs.
    Macs are checked from entry ``key_from`` on. ``singles`` are entries to hand over one by one.
    """

    path: bytes
    start: int
    end: int
    service_id: str
    key_id: str
    key: bytes | None
    epoch: int
    key_from: int
    epochs_ahead_max: int
    singles: tuple[int, ...]

    def __repr__(self) -> str:
        return f"ScanJob({self.path!r}, {self.start}, {self.end})"


class Single(msgspec.Struct, frozen=True, tag="single"):
    """A line (without newline) that the replay must look at: one of the log's own, or a range's first."""

    offset: int
    line: bytes


class Stretch(msgspec.Struct, frozen=True, kw_only=True, tag="stretch"):
    """Ordinary entries that follow from each other; True if entry ``first_index`` - 1 had ``previous_mac``.

    They lie in bytes ``start`` to ``end``. ``epoch`` is the epoch whose key made the macs, None where macs
    were not checked. Timestamps are as in the lines, none earlier than the one before it.
    """

    first_index: int
    count: int
    start: int
    end: int
    key_id: str
    epoch: int | None
    previous_mac: bytes
    last_mac: bytes
    first_timestamp: str
    last_timestamp: str
    subtrees: list[tree.Subtree]


Item = Single | Stretch


class _EndOfScanError(Exception):
    """Something is not plainly right: the replay must look."""


def scan(job: ScanJob, file: BinaryIO, shapes: Shapes) -> list[Item]:
    """Singles and stretches, contiguous from the first line of the range on, as far as all is plain.

    ``shapes`` are those of the job's service and key; what is learned serves the next scan.
    """
    scanner = _Scanner(job, shapes)
    try:
        for offset, data in _batches(file, job.start, job.end):
            scanner.add(offset, data)
    except _EndOfScanError:
        pass
    scanner.end_stretch()
    return scanner.items


def _batches(file: BinaryIO, start: int, end: int) -> Iterator[tuple[int, bytes]]:
    """Whole lines, many at a time: those that begin in bytes ``start`` to ``end``."""
    offset = start
    if start:
        # The line that begins before the range belongs to the range before.
        file.seek(start - 1)
        offset += len(_whole_line(file)) - 1
    while offset < end:
        data = file.read(min(_BATCH_BYTES, end - offset))
        if not data:
            return
        if not data.endswith(b"\n"):
            data += _whole_line(file)
        yield offset, data
        offset += len(data)


def _whole_line(file: BinaryIO) -> bytes:
    line = file.readline(_LINE_BYTES_MAX)
    if not line.endswith(b"\n"):
        raise _EndOfScanError
    return line


class _Scanner:
    """The state after the lines so far. ``_previous_mac`` is None before the first."""

    def __init__(self, job: ScanJob, shapes: Shapes) -> None:
        self.items: list[Item] = []
        self._job = job
        self._shapes = shapes
        self._singles = frozenset(job.singles)
        self._index = 0
        self._offset = 0
        self._previous_mac: bytes | None = None
        self._key: bytes | None = None
        self._epoch: int | None = None
        self._singles_bytes = 0
        self._open: _OpenStretch | None = None

    def add(self, offset: int, data: bytes) -> None:
        """The next lines, which lie at ``offset``."""
        self._offset = offset
        if self._previous_mac is None:
            first, data = data.split(b"\n", 1)
            self._add_one_by_one([first])
        lines = data.split(b"\n")
        lines.pop()
        rows = self._shapes.rows(data)
        coming = range(self._index, self._index + len(lines))
        if len(rows) == len(lines) and not any(index in coming for index in self._singles):
            self._add_rows(rows, lines)
        else:
            self._add_one_by_one(lines)

    def _add_one_by_one(self, lines: Sequence[bytes]) -> None:
        rows: list[Row] = []
        since = 0
        for position, line in enumerate(lines):
            entry = self._look(line, self._index + len(rows))
            if entry is None:
                rows += self._shapes.rows(line + b"\n")
                continue
            self._add_rows(rows, lines[since:position])
            self._add_single(entry, line)
            rows, since = [], position + 1
        self._add_rows(rows, lines[since:])

    def _look(self, line: bytes, index: int) -> Entry | None:
        """The entry where it must be handed over singly, else None: it is, or is now, of a known shape."""
        is_single = self._previous_mac is None or index in self._singles
        if not is_single and self._shapes.rows(line + b"\n"):
            return None
        try:
            entry = parse_entry(line)
        except EntryFormatError:
            raise _EndOfScanError from None
        if is_single or entry.event_type in LOG_OWN_TYPES:
            return entry
        self._shapes.learn(entry)
        return None if self._shapes.rows(line + b"\n") else entry

    def _add_single(self, entry: Entry, line: bytes) -> None:
        self.end_stretch()
        self._singles_bytes += len(line)
        if self._singles_bytes > _SINGLES_BYTES_MAX:
            raise _EndOfScanError
        self.items.append(Single(self._offset, line))
        self._offset += len(line) + 1
        self._previous_mac = entry.unverified_mac
        self._index = entry.index + 1
        if entry.index == self._job.key_from and self._job.key is not None:
            self._key, self._epoch = self._job.key, self._job.epoch
        if entry.event_type == "key_rotated":
            raise _EndOfScanError
        if entry.event_type == "epoch_closed" and self._key is not None and self._epoch is not None:
            self._key, self._epoch = chain.next_epoch_key(self._key), self._epoch + 1

    def _add_rows(self, rows: Sequence[Row], lines: Sequence[bytes]) -> None:
        if not rows:
            return
        indexes, timestamps, macs = zip(*rows, strict=True)
        expected = tuple([b"%d" % index for index in range(self._index, self._index + len(rows))])
        sizes = list(map(len, lines))
        if indexes != expected or max(sizes) > ENTRY_BYTES_MAX:
            raise _EndOfScanError
        stretch = self._stretch(lines[0])
        if sorted(timestamps) != list(timestamps) or timestamps[0] < stretch.last_timestamp:
            raise _EndOfScanError
        if stretch.epoch is not None:
            self._require_macs(lines, macs)
        stretch.leaves += tree.leaf_hashes_of(lines)
        stretch.first_timestamp = stretch.first_timestamp or timestamps[0]
        stretch.last_timestamp = timestamps[-1]
        self._index += len(rows)
        self._offset += sum(sizes) + len(lines)
        self._previous_mac = bytes.fromhex(macs[-1].decode("ascii"))
        if len(stretch.leaves) >= _STRETCH_LEAVES_MAX:
            self.end_stretch()

    def _stretch(self, first_line: bytes) -> _OpenStretch:
        if self._open is None:
            if self._previous_mac is None:
                raise _EndOfScanError
            if self._key is None and self._job.key is not None and self._index > self._job.key_from:
                self._find_epoch(first_line, self._previous_mac)
            self._open = _OpenStretch(self._index, self._offset, self._previous_mac, self._epoch)
        return self._open

    def _find_epoch(self, line: bytes, previous_mac: bytes) -> None:
        """The epoch of the first entry is the one whose key made its mac."""
        body, suffix = line[:-MAC_SUFFIX_BYTES], line[-MAC_SUFFIX_BYTES:]
        wanted = bytes.fromhex(suffix[8:72].decode("ascii"))
        key = self._job.key
        for epoch in range(self._job.epoch, self._job.epoch + self._job.epochs_ahead_max + 1):
            if key is None or hmac.compare_digest(chain.next_mac(key, previous_mac, body), wanted):
                self._key, self._epoch = key, epoch
                return
            key = chain.next_epoch_key(key)
        raise _EndOfScanError

    def _require_macs(self, lines: Sequence[bytes], macs: Sequence[bytes]) -> None:
        if self._key is None or self._previous_mac is None:
            raise _EndOfScanError
        bodies = [line[:-MAC_SUFFIX_BYTES] for line in lines]
        expected = chain.MacChain(self._key).macs(self._previous_mac, bodies)
        if not hmac.compare_digest(b"".join(expected).hex().encode("ascii"), b"".join(macs)):
            raise _EndOfScanError

    def end_stretch(self) -> None:
        """What is gathered becomes an item."""
        if self._open is not None and self._open.leaves and self._previous_mac is not None:
            self.items.append(
                self._open.close(key_id=self._job.key_id, end=self._offset, last_mac=self._previous_mac)
            )
        self._open = None


class _OpenStretch:
    """A stretch that goes on."""

    def __init__(self, first_index: int, start: int, previous_mac: bytes, epoch: int | None) -> None:
        self.epoch = epoch
        self.leaves: list[bytes] = []
        self.first_timestamp = b""
        self.last_timestamp = b""
        self._first_index = first_index
        self._start = start
        self._previous_mac = previous_mac

    def close(self, *, key_id: str, end: int, last_mac: bytes) -> Stretch:
        return Stretch(
            first_index=self._first_index,
            count=len(self.leaves),
            start=self._start,
            end=end,
            key_id=key_id,
            epoch=self.epoch,
            previous_mac=self._previous_mac,
            last_mac=last_mac,
            first_timestamp=self.first_timestamp.decode("ascii"),
            last_timestamp=self.last_timestamp.decode("ascii"),
            subtrees=tree.cover(self._first_index, self.leaves),
        )
