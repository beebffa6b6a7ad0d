"""Archived segments: `.jsonl.zst`, one zstd frame (RFC 8878) with the segment's very bytes (section 7).

An archive may have been prepared by an adversary. Reading it needs little memory, gives no byte more than the
frame's header announces, and refuses what is not exactly one whole frame with a checksum.
"""

from __future__ import annotations

import errno
import io
import os
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, Final

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

ARCHIVE_SUFFIX: Final = ".zst"
#: Longer segments stay as they are.
CONTENT_BYTES_MAX: Final = 1 << 32
_WINDOW_BYTES_MAX: Final = 1 << 23
_HEADER_BYTES_MAX: Final = 18
_MAGIC: Final = b"\x28\xb5\x2f\xfd"
_BLOCK_HEADER_BYTES: Final = 3
_CHECKSUM_BYTES: Final = 4
_RLE, _RESERVED = 1, 3
#: A frame of smaller blocks on average is none of ours, and slow to walk through.
_BLOCK_CONTENT_BYTES_MIN: Final = 256
_SPARE_BLOCKS: Final = 16
_READ_BYTES: Final = 1 << 17
_BUFFER_BYTES: Final = 1 << 18


class ArchiveFormatError(OSError):
    """The file is not exactly one whole zstd frame of known size with a checksum."""


def is_archive(path: Path) -> bool:
    """Whether the name says that it is one."""
    return path.name.endswith(ARCHIVE_SUFFIX)


def content_bytes(file: BinaryIO, path: Path) -> int:
    """How long the segment in the frame is, as its header says. Raises ArchiveFormatError, OSError."""
    import zstandard

    file.seek(0)
    head = file.read(_HEADER_BYTES_MAX)
    try:
        frame = zstandard.get_frame_parameters(head)
    except zstandard.ZstdError:
        raise _malformed(path, "it does not begin with a zstd frame") from None
    size = frame.content_size
    # An unknown size is the largest number there is.
    if not head.startswith(_MAGIC) or size > CONTENT_BYTES_MAX or frame.window_size > _WINDOW_BYTES_MAX:
        raise _malformed(path, "its zstd frame states no size, or too large a one")
    if not frame.has_checksum or frame.dict_id:
        raise _malformed(path, "its zstd frame has no checksum, or needs a dictionary")
    _require_one_frame(file, path, size, zstandard.frame_header_size(head))
    return size


def open_archive(file: BinaryIO, path: Path) -> BinaryIO:
    """The segment in the frame, as a file that can be read and sought in; closing it closes ``file``.

    Raises ArchiveFormatError, here and when bytes are read that are damaged.
    """
    return io.BufferedReader(_Content(file, path, content_bytes(file, path)), _BUFFER_BYTES)


def _require_one_frame(file: BinaryIO, path: Path, size: int, offset: int) -> None:
    """The frame ends where the file ends: blocks are counted by their headers (RFC 8878 section 3.1.1.2)."""
    file_bytes = os.fstat(file.fileno()).st_size
    for _ in range(size // _BLOCK_CONTENT_BYTES_MIN + _SPARE_BLOCKS):
        file.seek(offset)
        header = int.from_bytes(file.read(_BLOCK_HEADER_BYTES), "little")
        is_last, kind, block_bytes = header & 1, header >> 1 & 3, header >> 3
        offset += _BLOCK_HEADER_BYTES + (1 if kind == _RLE else block_bytes)
        if kind == _RESERVED or offset > file_bytes:
            break
        if is_last:
            if offset + _CHECKSUM_BYTES == file_bytes:
                return
            break
    raise _malformed(path, "it is not exactly one zstd frame")


class _Content(io.RawIOBase):
    """What a frame holds. Forward it is read once; to go back it is read again from the beginning."""

    def __init__(self, file: BinaryIO, path: Path, size: int) -> None:
        super().__init__()
        self._file = file
        self._path = path
        self._size = size
        self._rewind()

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._position

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        base = {os.SEEK_SET: 0, os.SEEK_CUR: self._position, os.SEEK_END: self._size}[whence]
        target = min(max(base + offset, 0), self._size)
        if target < self._position:
            self._rewind()
        while self._position < target and self._read(min(target - self._position, _READ_BYTES)):
            pass
        return self._position

    def readinto(self, buffer: WriteableBuffer, /) -> int:
        view = memoryview(buffer).cast("B")
        data = self._read(len(view))
        view[: len(data)] = data
        return len(data)

    def close(self) -> None:
        self._file.close()
        super().close()

    def _rewind(self) -> None:
        import zstandard

        self._file.seek(0)
        self._error = zstandard.ZstdError
        decompressor = zstandard.ZstdDecompressor(max_window_size=_WINDOW_BYTES_MAX)
        self._reader = decompressor.stream_reader(self._file, read_size=_READ_BYTES, closefd=False)
        self._position = 0

    def _read(self, size: int) -> bytes:
        size = min(size, self._size - self._position)
        data = self._decompress(size)
        if size and not data:
            raise _malformed(self._path, "its zstd frame holds less than it states")
        self._position += len(data)
        # The end is looked at with the last byte: checksum and size are compared there.
        if data and self._position == self._size and self._decompress(1):
            raise _malformed(self._path, "its zstd frame holds more than it states")
        return data

    def _decompress(self, size: int) -> bytes:
        try:
            return self._reader.read(size) if size else b""
        except self._error as error:
            raise _malformed(self._path, f"its zstd frame is damaged: {error}") from None


def _malformed(path: Path, reason: str) -> ArchiveFormatError:
    return ArchiveFormatError(errno.EBADMSG, reason, str(path))
