"""Reading a log's files with care: bounded, regular files only, flat in memory.

The directory may have been prepared by an adversary, and a writer may be at work in it.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, Final, NamedTuple

from vram_residency.audit.format.entry import ENTRY_BYTES_MAX
from vram_residency.audit.store.archive import ARCHIVE_SUFFIX, content_bytes, is_archive, open_archive

SMALL_FILE_BYTES_MAX: Final = 65_536
_BLOCK_BYTES: Final = 1 << 20
_SEGMENT_NAME: Final = re.compile(r"([0-9]{20})\.jsonl(\.zst)?\Z")
_INDEX_MAX: Final = 2**63 - 1


class NotRegularError(OSError):
    """A pipe, device or directory lies where a file should."""


class Line(NamedTuple):
    """One line without its newline; ``is_whole``: it had one."""

    offset: int
    data: bytes
    is_whole: bool


class Segment(NamedTuple):
    """A file of entries by the index of its first one; ``name`` is relative to the log's directory.

    ``twin`` is the archive where one lies beside the segment: archiving was under way.
    """

    first_index: int
    path: Path
    name: str
    twin: Path | None = None

    @property
    def plain_name(self) -> str:
        """The name of the file as it was written, without its folder."""
        return self.path.name.removesuffix(ARCHIVE_SUFFIX)


def open_regular(path: Path) -> BinaryIO:
    """Open for reading without ever waiting for a pipe. Raises OSError."""
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise NotRegularError(None, "not a regular file", str(path))
    return os.fdopen(descriptor, "rb", buffering=1 << 18)


def open_segment(path: Path) -> BinaryIO:
    """Open a segment to read its entries, also where it is archived, or is just now. Raises OSError."""
    try:
        return _open_entries(path)
    except FileNotFoundError:
        if is_archive(path):
            raise
        return _open_entries(path.with_name(path.name + ARCHIVE_SUFFIX))


def _open_entries(path: Path) -> BinaryIO:
    file = open_regular(path)
    if not is_archive(path):
        return file
    try:
        return open_archive(file, path)
    except BaseException:
        file.close()
        raise


def segment_bytes(path: Path) -> int:
    """How many bytes of entries a segment holds; of an archive what its header says. Raises OSError."""
    with open_regular(path) as file:
        return content_bytes(file, path) if is_archive(path) else os.fstat(file.fileno()).st_size


def read_small(path: Path) -> bytes:
    """At most one byte more than SMALL_FILE_BYTES_MAX, so that a longer file is seen to be so."""
    with open_regular(path) as file:
        return file.read(SMALL_FILE_BYTES_MAX + 1)


def segments(entries: Path) -> list[Segment]:
    """The segments in the order of their names; other files are none of ours. Raises OSError."""
    plain: dict[int, str] = {}
    archived: dict[int, str] = {}
    for name in os.listdir(entries):  # noqa: PTH208 - names alone; a Path for each would be waste
        match = _SEGMENT_NAME.match(name)
        if match is not None and int(match[1]) <= _INDEX_MAX:
            (archived if match[2] else plain)[int(match[1])] = name
    found = []
    for first_index, name in sorted({**archived, **plain}.items()):
        has_twin = first_index in plain and first_index in archived
        twin = entries / archived[first_index] if has_twin else None
        found.append(Segment(first_index, entries / name, f"entries/{name}", twin))
    return found


def lines(file: BinaryIO) -> Iterator[Line]:
    """The lines from here on. One that passes the entry limit comes cut and not whole: it is no entry."""
    offset = file.tell()
    while data := file.readline(ENTRY_BYTES_MAX + 2):
        is_whole = data.endswith(b"\n")
        yield Line(offset, data[:-1] if is_whole else data, is_whole)
        offset += len(data)


def blocks(file: BinaryIO) -> Iterator[tuple[bytes, int]]:
    """Whole lines from here on, many at a time, each block with the byte at which it ends in the file.

    A line that is far too long may be left out; an unfinished last line is, since it may become whole later.
    """
    end = file.tell()
    while data := file.read(_BLOCK_BYTES):
        if not data.endswith(b"\n"):
            data += file.readline(ENTRY_BYTES_MAX + 2)
        whole = data[: data.rfind(b"\n") + 1]
        end += len(whole)
        if whole:
            yield whole, end
        rest_bytes = len(data) - len(whole)
        if rest_bytes > ENTRY_BYTES_MAX:
            end = _skip_line(file, end + rest_bytes)
        elif rest_bytes:
            return  # a writer may be at work on this line: it must not be taken up in the middle
        if end < 0:
            return


def _skip_line(file: BinaryIO, position: int) -> int:
    """Where the next line begins; -1 where this one does not end."""
    while data := file.readline(ENTRY_BYTES_MAX + 2):
        position += len(data)
        if data.endswith(b"\n"):
            return position
    return -1
