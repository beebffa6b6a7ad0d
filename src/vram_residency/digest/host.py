"""Digests computed by the machine's own cores from bytes in its memory (residency.md section 3)."""

from __future__ import annotations

from collections.abc import Iterable

from vram_residency.digest.file import digest_file
from vram_residency.digest.groups import group_values
from vram_residency.digest.hashing import Progress, new_hasher, slices
from vram_residency.digest.value import Algorithm, Measurement

__all__ = ["digest", "digest_file", "digest_parts", "measure"]


def digest(view: memoryview, algorithm: Algorithm = "blake3", on_progress: Progress | None = None) -> str:
    """``blake3:<64 hex>`` or ``sha256:<64 hex>`` of all bytes of a contiguous view, on all cores."""
    hasher = new_hasher(algorithm, size_bytes=view.nbytes)
    done = 0
    for part in slices(view):
        hasher.update(part)
        done += part.nbytes
        if on_progress is not None:
            on_progress(done, view.nbytes)
    return f"{algorithm}:{hasher.hexdigest()}"


def digest_parts(parts: Iterable[bytes | memoryview], algorithm: Algorithm = "blake3") -> str:
    """The digest of the concatenation of ``parts``, each contiguous bytes."""
    hasher = new_hasher(algorithm)
    for part in parts:
        for piece in slices(memoryview(part)):
            hasher.update(piece)
    return f"{algorithm}:{hasher.hexdigest()}"


def measure(view: memoryview, on_progress: Progress | None = None) -> Measurement:
    """BLAKE3 and group values of bytes that are already there: all cores, two passes.

    BLAKE3's work is arithmetic, so that one pass for both saves nothing. Memory that is being filled has
    its group values measured meanwhile instead (``GroupCollector``).
    """
    return Measurement(digest(view, "blake3", on_progress), group_values(view))
