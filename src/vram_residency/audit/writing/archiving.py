"""Compressing old segments (spec: audit-log.md section 7), piece by piece, so that no event waits for it.

A closed segment never changes, so all but the last step needs no lock.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
from collections import deque
from collections.abc import Generator, Iterator
from contextlib import AbstractContextManager
from itertools import pairwise
from pathlib import Path
from typing import BinaryIO, Final

from vram_residency.audit.format.entry import EntryFormatError, parse_entry
from vram_residency.audit.store import machine
from vram_residency.audit.store.archive import CONTENT_BYTES_MAX, open_archive
from vram_residency.audit.store.directory import Directory, WriterLock
from vram_residency.audit.store.files import Files
from vram_residency.audit.store.segments import read_lines
from vram_residency.audit.writing.options import DEFAULT_OPTIONS, LogOptions
from vram_residency.core.clock import parse_rfc3339
from vram_residency.core.errors import AuditWriteError, LogDamagedError

_PIECE_BYTES: Final = 1 << 18
_LEVEL: Final = 3


def due_segments(directory: Directory, *, now_ns: int, archive_after_s: float) -> list[int]:
    """First indexes of segments that ended so long ago and are not archived yet, oldest first.

    Only those are looked into, and one more. Raises LogDamagedError.
    """
    due = []
    for start, following in pairwise(directory.segment_starts()):
        if not directory.segment(start).exists():
            continue
        ended_ns = _begun_ns(directory, following)
        if ended_ns is None or now_ns - ended_ns < archive_after_s * 1_000_000_000:
            break
        due.append(start)
    return due


def _begun_ns(directory: Directory, start: int) -> int | None:
    """The time of a segment's first entry, unverified; None where it cannot be read."""
    path = directory.segment(start)
    try:
        _, line = next(read_lines(path if path.exists() else directory.archived(start)))
        return parse_rfc3339(parse_entry(line.removesuffix(b"\n")).timestamp)
    except (StopIteration, LogDamagedError, EntryFormatError, ValueError):
        return None


class Archiving:
    """One segment on its way into its archive.

    After a crash at any step the segment is whole: alone, beside a piece of ``….zst.new``, or beside its
    archive. The next attempt goes on from there.
    """

    def __init__(self, directory: Directory, files: Files, start: int, *, free_bytes_min: int) -> None:
        self.segment: Final = directory.segment(start)
        self.archive: Final = directory.archived(start)
        self._new: Final = self.archive.with_name(f"{self.archive.name}.new")
        self._files = files
        self._free_bytes_min = free_bytes_min

    def pieces(self) -> Iterator[None]:
        """Prepare the archive; a few milliseconds of work between two items. Then comes install().

        Closing the iterator early cleans up. Raises AuditWriteError, also where another archive is there.
        """
        try:
            # 1. The archive under another name, durable. One that has its name already was whole before.
            told = yield from self._hash() if self.archive.exists() else self._compress()
            # 2. What is on the disk must give the segment back before the segment goes.
            yield from self._require_content(told)
        except OSError as error:
            self._discard()
            raise self._failure(error) from error
        except GeneratorExit:
            self._discard()
            raise

    def install(self) -> None:
        """Put the archive in the segment's place. Nobody may remove segments meanwhile.

        A segment that was removed since pieces() stays removed. Raises AuditWriteError.
        """
        files = self._files
        if not self.segment.exists():
            self._discard()
            return
        try:
            if self._new.exists():
                # 3. The archive has its name. Both hold the same bytes: readers take either.
                files.protect(self._new)
                files.replace(self._new, self.archive)
                files.sync_directory(self.archive.parent)
            # 4. The archive alone.
            files.remove(self.segment)
            files.sync_directory(self.segment.parent)
        except OSError as error:
            raise self._failure(error) from error

    def _require_content(self, sha256: bytes) -> Generator[None, None, None]:
        found = self.archive if self.archive.exists() else self._new
        with found.open("rb") as file, open_archive(file, found) as content:
            if (yield from _sha256(content)) != sha256:
                raise OSError(errno.EBADMSG, "the archive does not hold the segment's bytes")

    def _hash(self) -> Generator[None, None, bytes]:
        with self.segment.open("rb") as source:
            return (yield from _sha256(source))

    def _compress(self) -> Generator[None, None, bytes]:
        """The SHA-256 of what was compressed."""
        import zstandard

        files = self._files
        self._discard()  # left by a crash
        with self.segment.open("rb") as source:
            size = os.fstat(source.fileno()).st_size
            if size > CONTENT_BYTES_MAX:
                raise OSError(errno.EFBIG, "the segment is longer than an archive may be")
            packer = zstandard.ZstdCompressor(level=_LEVEL, write_checksum=True).compressobj(size=size)
            found = hashlib.sha256()
            descriptor = files.create(self._new)
            try:
                while piece := source.read(_PIECE_BYTES):
                    found.update(piece)
                    self._write(descriptor, packer.compress(piece))
                    yield
                self._write(descriptor, packer.flush())
                files.sync_data(descriptor)
            finally:
                os.close(descriptor)
        return found.digest()

    def _write(self, descriptor: int, data: bytes) -> None:
        if self._files.free_bytes(descriptor) < len(data) + self._free_bytes_min:
            raise OSError(errno.ENOSPC, "the disk is nearly full")
        self._files.write_all(descriptor, data)

    def _discard(self) -> None:
        with contextlib.suppress(OSError):  # what stays is removed, or found in the way, next time
            self._files.remove(self._new)

    def _failure(self, error: OSError) -> AuditWriteError:
        return AuditWriteError(str(self.segment), "archive", error.strerror or str(error))


class Archivist:
    """Archives what is due, one piece at a time, on behalf of the writer's thread."""

    def __init__(self, directory: Directory, options: LogOptions) -> None:
        self._directory: Final = directory
        self._options: Final = options
        self._due: deque[int] = deque()
        self._current: tuple[Archiving, Iterator[None]] | None = None
        #: Set at the opening and after each rotation: nothing becomes due in between that could not wait.
        self._must_look = options.archive_after_s is not None

    @property
    def is_busy(self) -> bool:
        """Whether step() has something to do."""
        return self._must_look or bool(self._due) or self._current is not None

    def look_again(self) -> None:
        """A segment was closed, and a day may have gone by."""
        self._must_look = self._options.archive_after_s is not None

    def step(self, lock: AbstractContextManager[object]) -> None:
        """A few milliseconds of work; ``lock`` is held while files change places. Raises AuditWriteError."""
        try:
            self._step(lock)
        except (AuditWriteError, LogDamagedError) as error:
            self.stop()
            if isinstance(error, AuditWriteError):
                raise
            raise AuditWriteError(str(self._directory.entries), "archive", str(error)) from error

    def stop(self) -> None:
        """Give up what is half done."""
        self._due.clear()
        self._current = None  # closes the iterator, which cleans up

    def _step(self, lock: AbstractContextManager[object]) -> None:
        if self._current is not None:
            archiving, pieces = self._current
            if next(pieces, self) is self:
                self._current = None
                with lock:
                    archiving.install()
        elif self._due:
            self._begin(self._due.popleft())
        else:
            self._must_look = False
            self._due.extend(self._find_due())

    def _begin(self, start: int) -> None:
        options = self._options
        archiving = Archiving(self._directory, options.files, start, free_bytes_min=options.free_bytes_min)
        if archiving.segment.exists():  # else it was pruned in the meantime
            self._current = (archiving, archiving.pieces())

    def _find_due(self) -> list[int]:
        after_s = self._options.archive_after_s
        if after_s is None:
            return []
        now_ns = self._options.clock.now_ns()
        return due_segments(self._directory, now_ns=now_ns, archive_after_s=after_s)


def archive_log(
    directory: str | os.PathLike[str], *, archive_after_s: float, options: LogOptions = DEFAULT_OPTIONS
) -> list[Path]:
    """Archive the segments of a log that nobody writes; the archives that were made.

    Raises ConfigurationError (no log), LogLockedError, LogDamagedError, AuditWriteError.
    """
    place = Directory(directory)
    place.read_config()
    place.require_private()
    lock = WriterLock(place, holder=machine.writer(), files=options.files)
    try:
        made = []
        now_ns = options.clock.now_ns()
        for start in due_segments(place, now_ns=now_ns, archive_after_s=archive_after_s):
            archiving = Archiving(place, options.files, start, free_bytes_min=options.free_bytes_min)
            for _ in archiving.pieces():
                pass
            archiving.install()
            made.append(archiving.archive)
        return made
    finally:
        lock.close()


def _sha256(file: BinaryIO) -> Generator[None, None, bytes]:
    found = hashlib.sha256()
    while piece := file.read(_PIECE_BYTES):
        found.update(piece)
        yield
    return found.digest()
