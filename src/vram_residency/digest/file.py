"""The digest of a file, streamed: what ``b3sum`` prints, in bounded memory (cli.md, ``vram digest``)."""

from __future__ import annotations

import mmap
import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

from vram_residency.core.regular_file import open_regular, printable_path, unreadable
from vram_residency.digest.hashing import Progress, new_hasher
from vram_residency.digest.value import Algorithm

_BLOCK_BYTES = 4 << 20


def digest_file(
    path: str | os.PathLike[str], algorithm: Algorithm = "blake3", on_progress: Progress | None = None
) -> str:
    """The digest of a regular file's bytes as they are read, 8 MiB of memory.

    One thread reads the next block while all cores hash the last. The file is read and not mapped: a file
    that shrinks under a mapping kills the process.
    Raises InvalidInputError where the path is no readable regular file.
    """
    fd = open_regular(path)
    try:
        return _digest_descriptor(fd, algorithm, on_progress)
    except OSError as error:
        raise unreadable(printable_path(path), error) from error
    finally:
        os.close(fd)


def _digest_descriptor(fd: int, algorithm: Algorithm, on_progress: Progress | None) -> str:
    size_bytes = os.fstat(fd).st_size
    hasher = new_hasher(algorithm, size_bytes=size_bytes)
    done = 0
    for block in _read_small(fd) if size_bytes <= _BLOCK_BYTES else _read_ahead(fd):
        hasher.update(block)
        done += len(block)
        if on_progress is not None:
            on_progress(done, max(done, size_bytes))
    return f"{algorithm}:{hasher.hexdigest()}"


def _read_small(fd: int) -> Iterator[bytes]:
    while block := os.read(fd, _BLOCK_BYTES):
        yield block


def _read_ahead(fd: int) -> Iterator[memoryview]:
    """The file's blocks; each is valid until the next is taken."""
    buffers = [memoryview(mmap.mmap(-1, _BLOCK_BYTES)) for _ in range(2)]
    with ThreadPoolExecutor(1, thread_name_prefix="vram-read") as reader:
        coming = reader.submit(os.readv, fd, [buffers[0]])
        while (count := coming.result()) > 0:
            current = buffers[0]
            buffers.reverse()
            coming = reader.submit(os.readv, fd, [buffers[0]])
            yield current[:count]
