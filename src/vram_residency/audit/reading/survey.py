"""Going through all segments of a log once (spec: audit-log.md section 6). Flat memory, no writes.

Ranges are scanned, by several processes where that pays, and put together by one replay.
"""

from __future__ import annotations

import os
import re
import sys
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import BinaryIO, Final, NamedTuple

from vram_residency.audit.format.entry import ENTRY_BYTES_MAX
from vram_residency.audit.reading import source as reading
from vram_residency.audit.reading.replay import Replay
from vram_residency.audit.reading.scan import Item, ScanJob, Single
from vram_residency.audit.reading.scanners import (
    Answer,
    HashJob,
    LocalScanner,
    Pending,
    ScannerDiedError,
    ScannerProcesses,
    Scanners,
)
from vram_residency.audit.reading.verdict import Fault, GapFault
from vram_residency.audit.store.archive import ArchiveFormatError, is_archive
from vram_residency.audit.store.directory import Directory, LogConfig

#: What one scan takes on.
RANGE_BYTES: Final = 1 << 22
#: Below this, starting processes costs more than they save.
_SHARED_BYTES_MIN: Final = 1 << 25
#: No epoch_closed is shorter: so many epochs at most can end in a number of bytes.
_EPOCH_CLOSED_BYTES_MIN: Final = 256
#: A whole entry with something behind it but no newline: bytes were changed, not cut off.
_ENTRY_AND_MORE: Final = re.compile(rb',"mac":"[0-9a-f]{64}"\}.')

#: Bytes done and bytes in all, of the segments.
Progress = Callable[[int, int], None]


class _Part(NamedTuple):
    """A segment with its size when it was listed."""

    segment: reading.Segment
    size_bytes: int

    @property
    def ranges(self) -> Iterator[tuple[int, int]]:
        """Start and end (exclusive) of what one scan takes on, from the first byte to the last.

        An archive is one range: nobody can begin in its middle.
        """
        step = max(self.size_bytes, 1) if self.is_archived else RANGE_BYTES
        for start in range(0, self.size_bytes, step):
            yield start, min(start + step, self.size_bytes)

    @property
    def is_archived(self) -> bool:
        """Whether its size is what the archive states, and final."""
        return is_archive(self.segment.path)


class Survey:
    """One pass. ``end`` is where the last whole line ended: file and byte."""

    def __init__(
        self,
        place: Directory,
        config: LogConfig,
        *,
        singles: Iterable[int] = (),
        workers: int | None = None,
        on_progress: Progress | None = None,
    ) -> None:
        """``singles`` are indexes of entries that the replay must see one by one.

        ``workers`` processes scan; None: one for each core where the log is large, else none but this one.
        """
        self.end: tuple[str, int] | tuple[None, int] = (None, 0)
        self.torn_bytes = 0
        self._place = place
        self._service_id = config.service_id
        self._singles = tuple(singles)
        self._workers = workers
        self._on_progress = on_progress or _no_progress
        self._hashes: dict[str, Pending] = {}

    def sha256_of(self, name: str) -> str:
        """The SHA-256 (hex) of the segment with this file name. Raises Fault where nobody can say."""
        path = self._place.entries / name
        pending = self._hashes.pop(name, None) or LocalScanner().submit(HashJob(os.fsencode(path)))
        found = _wait(pending).sha256
        if not found:
            raise Fault("unverifiable", "cannot be read a second time")
        return found

    def run(self, replay: Replay) -> None:
        """Give all entries to ``replay``. Raises Fault."""
        # What lies before the start was to be removed.
        parts = [part for part in self._list() if part.segment.first_index >= replay.start_index]
        if parts:
            _check_name(parts[0].segment, replay)
        total_bytes = sum(part.size_bytes for part in parts)
        done_bytes = 0
        with self._open_scanners(total_bytes) as scanners:
            scans = self._scans(scanners, parts, replay)
            for part in parts:
                is_last = part is parts[-1]
                for offset in self._take(part, replay, scans, is_last=is_last):
                    self._on_progress(done_bytes + offset, total_bytes)
                done_bytes += part.size_bytes
        replay.finish()

    # --- the work, divided ----------------------------------------------------------------------------------

    def _list(self) -> list[_Part]:
        try:
            found = reading.segments(self._place.entries)
        except FileNotFoundError:
            found = []
        except OSError as error:
            raise unreadable("entries", error) from None
        return [_Part(segment, _size_bytes(segment.path)) for segment in found]

    def _open_scanners(self, total_bytes: int) -> AbstractContextManager[Scanners]:
        count = self._workers
        if count is None:
            count = _core_count() if total_bytes >= _SHARED_BYTES_MIN else 1
        # A program frozen into one file has no interpreter to start.
        has_interpreter = bool(sys.executable) and not getattr(sys, "frozen", False)
        return ScannerProcesses(count) if count > 1 and has_interpreter else nullcontext(LocalScanner())

    def _scans(self, scanners: Scanners, parts: list[_Part], replay: Replay) -> Iterator[Pending]:
        """The scans of all ranges in order; a few more are under way than are asked for."""
        epochs_ahead_max = (scanners.ahead + 2) * RANGE_BYTES // _EPOCH_CLOSED_BYTES_MIN
        under_way: deque[Pending] = deque()
        for part in parts:
            for span in part.ranges:
                job = self._job(part.segment, span, replay, epochs_ahead_max=epochs_ahead_max)
                under_way.append(scanners.submit(job))
                if len(under_way) > scanners.ahead:
                    yield under_way.popleft()
            if part is not parts[-1]:  # the next one may state this one's hash
                name = part.segment.plain_name
                self._hashes[name] = scanners.submit(HashJob(os.fsencode(part.segment.path)))
        yield from under_way

    def _job(
        self, segment: reading.Segment, span: tuple[int, int], replay: Replay, *, epochs_ahead_max: int
    ) -> ScanJob:
        key, epoch, key_from = replay.keys()
        return ScanJob(
            path=os.fsencode(segment.path),
            start=span[0],
            end=span[1],
            service_id=self._service_id,
            key_id=replay.key_id,
            key=key,
            epoch=epoch,
            key_from=key_from,
            epochs_ahead_max=epochs_ahead_max,
            singles=(*self._singles, key_from),
        )

    # --- the work, put together -----------------------------------------------------------------------------

    def _take(
        self,
        part: _Part,
        replay: Replay,
        scans: Iterator[Pending],
        *,
        is_last: bool,
    ) -> Iterator[int]:
        """A segment, range by range; gives how many of its bytes are done."""
        segment = part.segment
        _check_name(segment, replay)
        replay.begin_segment(segment.plain_name)
        self.end = (segment.name, 0)
        try:
            with reading.open_segment(segment.path) as file:
                for (_, end), pending in zip(part.ranges, scans, strict=False):
                    self._absorb(_wait(pending).items, segment, replay)
                    # What the scan did not vouch for.
                    self._feed(file, end, segment, replay, is_last=is_last)
                    yield self.end[1]
                # What was written since the segment was listed, and the end of a torn line.
                if not part.is_archived or self.end[1] < part.size_bytes:
                    self._feed(file, None, segment, replay, is_last=is_last)
            _check_twin(segment)
        except ArchiveFormatError as error:
            fault = Fault("tampered", f"the archive is malformed: {error.strerror}")
            raise fault.at(replay.index, segment.name, self.end[1]) from None
        except OSError as error:
            raise unreadable(segment.name, error) from None

    def _absorb(self, items: Iterable[Item], segment: reading.Segment, replay: Replay) -> None:
        for item in items:
            if isinstance(item, Single):
                if item.offset != self.end[1]:
                    return
                replay.feed(item.line, file=segment.name, offset=item.offset)
                self.end = (segment.name, item.offset + len(item.line) + 1)
            elif item.start == self.end[1] and replay.absorb(item):
                self.end = (segment.name, item.end)
            else:
                return

    def _feed(
        self,
        file: BinaryIO,
        end: int | None,
        segment: reading.Segment,
        replay: Replay,
        *,
        is_last: bool,
    ) -> None:
        """The lines that begin before byte ``end``, one by one."""
        if end is not None and self.end[1] >= end:
            return
        file.seek(self.end[1])
        for line in reading.lines(file):
            if not line.is_whole:
                self._check_torn(line, segment, replay, is_last=is_last)
                return
            replay.feed(line.data, file=segment.name, offset=line.offset)
            self.end = (segment.name, line.offset + len(line.data) + 1)
            if end is not None and self.end[1] >= end:
                return

    def _check_torn(
        self, line: reading.Line, segment: reading.Segment, replay: Replay, *, is_last: bool
    ) -> None:
        """A last line without its newline is what a killed writer leaves, where nothing was signed yet."""
        if not is_last or _ENTRY_AND_MORE.search(line.data) or len(line.data) > ENTRY_BYTES_MAX:
            fault = Fault("tampered", "the line does not end where it must")
            raise fault.at(replay.index, segment.name, line.offset)
        self.torn_bytes = len(line.data)


def _no_progress(done_bytes: int, total_bytes: int) -> None:
    del done_bytes, total_bytes


def unreadable(file: str, error: OSError) -> Fault:
    """The fault for a file that the system does not give, or that is no archive though its name says so."""
    if isinstance(error, ArchiveFormatError):
        name = f"entries/{os.path.basename(error.filename)}"  # noqa: PTH119 - a name, as the system gave it
        return Fault("tampered", f"the archive is malformed: {error.strerror}", file=name)
    return Fault("unverifiable", f"cannot be read: {error.strerror or error}", file=file)


def _check_name(segment: reading.Segment, replay: Replay) -> None:
    if segment.first_index > replay.index:
        raise GapFault(segment.first_index).at(replay.index, segment.name, 0)
    if segment.first_index < replay.index:
        fault = Fault("tampered", "the segment overlaps the one before it")
        raise fault.at(replay.index, segment.name, 0)


def _check_twin(segment: reading.Segment) -> None:
    """Where a crash left a segment and its archive, they hold the same bytes."""
    if segment.twin is None:
        return
    paths = (segment.path, segment.twin)
    own, twin = (LocalScanner().answer(HashJob(os.fsencode(path))).sha256 for path in paths)
    if own != twin:
        name = f"entries/{segment.twin.name}"
        raise Fault("tampered", "the archive does not hold the bytes of the segment beside it", file=name)


def _wait(pending: Pending) -> Answer:
    try:
        return pending()
    except ScannerDiedError:
        raise Fault("unverifiable", "a process that helped to check the entries died") from None


def _size_bytes(path: Path) -> int:
    try:
        return reading.segment_bytes(path)
    except OSError:
        return 0  # reading it says why


def _core_count() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
