"""Segments: the append-only files of entries (spec: audit-log.md sections 1 and 4).

What is acknowledged is durable and never touched again: a failed write is rolled back to it, and after a
failed fsync, when the kernel may have dropped the pages it could not write, the file is cut to it and never
appended to again.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, Final, NamedTuple

from vram_residency.audit.store.archive import is_archive, open_archive
from vram_residency.audit.store.directory import TORN_SUFFIX, Directory
from vram_residency.audit.store.files import Files
from vram_residency.core.errors import AuditWriteError, LogDamagedError

TORN_BYTES_MAX: Final = 16 << 20


class _SyncError(Exception):
    """fdatasync failed: whether the bytes are on the disk is not known."""


class Acknowledged(NamedTuple):
    """What of a segment is durable: so many bytes with this hash; the index of the entry after them."""

    size_bytes: int
    next_index: int
    sha256: hashlib._Hash


class SegmentWriter:
    """Appends to the newest segment. Not thread-safe: the ledger's owner guards it.

    Invariants: ``_acknowledged`` is one attribute so that no interrupt parts what is in it; unless
    ``_needs_cut``, the file is exactly that long; ``_needs_successor`` is set between a failed sync and the
    next segment; ``_predecessor`` is a segment that is over but may still be writable.
    """

    def __init__(
        self,
        directory: Directory,
        files: Files,
        *,
        first_index: int,
        acknowledged: Acknowledged,
        predecessor: Path | None = None,
    ) -> None:
        """Go on with a segment that exists. Raises AuditWriteError."""
        self._directory = directory
        self._files = files
        self.first_index = first_index
        self._acknowledged = acknowledged
        self._predecessor = predecessor
        self.path = directory.segment(first_index)
        self._needs_cut = False
        self._needs_successor = False
        try:
            self._descriptor = files.open_append(self.path)
        except OSError as error:
            raise _write_error(self.path, "open", error) from error

    @classmethod
    def create(cls, directory: Directory, files: Files, first_index: int) -> SegmentWriter:
        """Begin a segment. After a crash it is there, empty, or not: both open. Raises AuditWriteError."""
        _create_file(directory, files, first_index)
        return cls(directory, files, first_index=first_index, acknowledged=_nothing(first_index))

    @property
    def size_bytes(self) -> int:
        """How much of the segment is durable."""
        return self._acknowledged.size_bytes

    @property
    def sha256(self) -> str:
        """Hex SHA-256 of what is durable."""
        return self._acknowledged.sha256.hexdigest()

    def begin_next(self, index: int) -> None:
        """End this segment and go on in a new one, whose first entry will be ``index``. May be repeated.

        After a crash the new one is there, empty, or not. Raises AuditWriteError.
        """
        if self.first_index == index:
            return
        _create_file(self._directory, self._files, index)
        try:
            self._switch_to(index)
        except OSError as error:
            raise _write_error(self._directory.segment(index), "open", error) from error

    def append(self, data: bytes, indexes: range, *, free_bytes_min: int) -> None:
        """Make ``data``, the lines of entries ``indexes``, durable; or raise AuditWriteError.

        After an error the same bytes must be given again: some of them may have reached the disk. Bytes
        that are durable already may be given again.
        """
        if indexes.stop <= self._acknowledged.next_index:
            return
        try:
            self._require_room(len(data) + free_bytes_min)
            if self._needs_successor:
                self._begin_successor(indexes.start)
            self._require_own_file()
            try:
                self._write(data, indexes.stop)
            except _SyncError:
                self._begin_successor(indexes.start)
                self._write(data, indexes.stop)
            self._protect_predecessor()
        except _SyncError as error:
            raise _write_error(self.path, "fdatasync", error.__cause__) from error
        except OSError as error:
            raise _write_error(self.path, "write", error) from error

    def close(self) -> None:
        """Close the descriptor. May be called twice."""
        descriptor, self._descriptor = self._descriptor, -1
        if descriptor >= 0:
            os.close(descriptor)

    def _write(self, data: bytes, next_index: int) -> None:
        # Survives a crash after each step:
        # 1. written, not synced: some prefix of the lines. They are complete lines of the right chain, or a
        #    torn one: opening keeps the former and moves the latter. None was acknowledged.
        self._needs_cut = True
        try:
            self._files.write_all(self._descriptor, data)
        except OSError:
            self._cut()
            raise
        # 2. synced: everything.
        try:
            self._files.sync_data(self._descriptor)
        except OSError as error:
            self._needs_successor = True
            raise _SyncError from error
        found = self._acknowledged.sha256.copy()
        found.update(data)
        self._acknowledged = Acknowledged(self._acknowledged.size_bytes + len(data), next_index, found)
        self._needs_cut = False

    def _cut(self) -> None:
        self._files.truncate(self._descriptor, self._acknowledged.size_bytes)
        self._needs_cut = False

    def _begin_successor(self, index: int) -> None:
        """Cut this segment to what is acknowledged and go on in a new one. Each step may be repeated."""
        # 1. The cut must be durable before the same lines stand elsewhere.
        self._cut()
        self._files.sync_data(self._descriptor)
        # 2. A segment without a line has no name of its own: the new one takes its place.
        is_empty = self._acknowledged.size_bytes == 0
        if is_empty:
            self.path.unlink(missing_ok=True)
        _create_file(self._directory, self._files, index)
        self._switch_to(index, keeps_predecessor=is_empty)
        self._needs_successor = False

    def _switch_to(self, index: int, *, keeps_predecessor: bool = False) -> None:
        path = self._directory.segment(index)
        successor = self._files.open_append(path)
        self.close()
        self._descriptor = successor
        if not keeps_predecessor:
            self._predecessor = self.path
        self.first_index, self.path = index, path
        self._acknowledged = _nothing(index)

    def _protect_predecessor(self) -> None:
        """Only once something durable follows it: opening may have to go on in it until then."""
        if self._predecessor is not None:
            # Archived or pruned in the meantime.
            with contextlib.suppress(FileNotFoundError):
                self._files.protect(self._predecessor)
            self._predecessor = None

    def _require_room(self, needed_bytes: int) -> None:
        if self._files.free_bytes(self._descriptor) < needed_bytes:
            raise OSError(errno.ENOSPC, "the disk is nearly full")

    def _require_own_file(self) -> None:
        if self._needs_cut:
            self._cut()
        here = os.fstat(self._descriptor)
        try:
            is_same = os.path.samestat(here, self.path.lstat())
            is_ours = is_same and here.st_size == self._acknowledged.size_bytes
        except FileNotFoundError:
            is_ours = False
        if not is_ours:
            raise OSError(errno.ESTALE, "the segment was removed, replaced or changed under the writer")


def read_lines(path: Path) -> Iterator[tuple[int, bytes]]:
    """Offset and bytes of every line, the newline left on; a torn last line comes without one.

    The segment may be archived. Memory stays flat. Raises LogDamagedError for a line that is absurdly long or
    a file that cannot be read.
    """
    offset = 0
    try:
        file: BinaryIO = path.open("rb")
        if is_archive(path):
            file = open_archive(file, path)
    except OSError as error:
        raise _unreadable(path, error) from error
    with file:
        while line := _read_line(file, path, offset):
            yield offset, line
            offset += len(line)


def move_torn_tail(path: Path, length: int, tail: bytes, files: Files) -> None:
    """Move what follows byte ``length`` of a segment to ``<segment>.torn``. Raises AuditWriteError."""
    torn = path.with_name(path.name + TORN_SUFFIX)
    try:
        # 1. The bytes are safe elsewhere; a crash now repeats this step at the next opening.
        if not torn.exists():
            files.write_new(torn, tail)
            files.sync_directory(torn.parent)
        elif not torn.read_bytes().endswith(tail):
            _append_synced(torn, tail, files)
        # 2. Only then are they cut off.
        descriptor = files.open_append(path)
        try:
            files.truncate(descriptor, length)
            files.sync_data(descriptor)
        finally:
            os.close(descriptor)
    except OSError as error:
        raise _write_error(torn, "move torn bytes", error) from error


def remove_empty(path: Path, files: Files) -> None:
    """Remove a segment that holds no byte. Raises AuditWriteError."""
    try:
        if path.stat().st_size == 0:
            files.remove(path)
            files.sync_directory(path.parent)
    except OSError as error:
        raise _write_error(path, "remove", error) from error


def _read_line(file: BinaryIO, path: Path, offset: int) -> bytes:
    try:
        line = file.readline(TORN_BYTES_MAX + 1)
    except OSError as error:
        raise _unreadable(path, error) from error
    if len(line) > TORN_BYTES_MAX:
        raise LogDamagedError(str(path), offset, f"a line of over {TORN_BYTES_MAX} bytes")
    return line


def _nothing(first_index: int) -> Acknowledged:
    return Acknowledged(0, first_index, hashlib.sha256())


def _unreadable(path: Path, error: OSError) -> LogDamagedError:
    return LogDamagedError(str(path), None, f"cannot be read: {error.strerror}")


def _append_synced(path: Path, data: bytes, files: Files) -> None:
    descriptor = files.open_append(path)
    try:
        files.write_all(descriptor, data)
        files.sync_data(descriptor)
    finally:
        os.close(descriptor)


def _create_file(directory: Directory, files: Files, first_index: int) -> None:
    path = directory.segment(first_index)
    try:
        if path.exists() and path.stat().st_size == 0:
            path.unlink()  # left by an attempt that failed before it had a line
        os.close(files.create(path))
        files.sync_directory(directory.entries)
    except OSError as error:
        raise _write_error(path, "create", error) from error


def _write_error(path: Path, operation: str, error: BaseException | None) -> AuditWriteError:
    reason = (error.strerror if isinstance(error, OSError) else None) or str(error)
    return AuditWriteError(str(path), operation, reason)
