"""One interface to the two hash functions, fed in any slices. Both let other threads run meanwhile."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Protocol

from vram_residency.core.errors import InvalidInputError
from vram_residency.digest.value import Algorithm

#: Called with (bytes done, bytes in all). What it raises ends the work.
Progress = Callable[[int, int], None]
#: Bytes per call: large enough for all cores, small enough for progress and interrupts.
SLICE_BYTES = 64 << 20
# Below this the threads of BLAKE3 cost more than they save.
_ONE_THREAD_BYTES = 256 << 10


class Hasher(Protocol):
    """A hash in the making."""

    def update(self, data: bytes | memoryview, /) -> object:
        """Take more bytes."""

    def hexdigest(self) -> str:
        """64 hex digits over all bytes so far."""


def new_hasher(algorithm: Algorithm, *, size_bytes: int = SLICE_BYTES) -> Hasher:
    """An empty hash; BLAKE3 runs on all cores unless ``size_bytes`` says that it is not worth it.

    Raises InvalidInputError for another algorithm.
    """
    if algorithm == "blake3":
        from blake3 import blake3

        threads = 1 if size_bytes <= _ONE_THREAD_BYTES else blake3.AUTO
        return blake3(max_threads=threads)
    if algorithm == "sha256":
        import hashlib

        return hashlib.sha256()
    raise InvalidInputError("algorithm", f"must be blake3 or sha256, not {algorithm!r}")


def slices(view: memoryview) -> Iterator[memoryview]:
    """A view's bytes, SLICE_BYTES at a time."""
    return (view[start : start + SLICE_BYTES] for start in range(0, view.nbytes, SLICE_BYTES))
