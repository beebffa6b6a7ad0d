"""The leaf hashes under ``tree/``: unverified until they fold to a root that is vouched for.

Of entries that were pruned they are all that is left, and what every later root stands on.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Final

from vram_residency.audit.format import tree
from vram_residency.audit.reading import source as reading
from vram_residency.audit.store.directory import Directory

BATCH_LEAVES: Final = 4096


def stored_leaves(directory: Directory, start: int = 0) -> Iterator[bytes]:
    """Leaf hashes from entry ``start`` on, as far as the files follow each other. Raises OSError."""
    index = 0
    for path in sorted(directory.tree.glob("*.leaves")):
        if path.name != directory.leaves(index).name:
            return
        with reading.open_regular(path) as file:
            count = os.fstat(file.fileno()).st_size // tree.HASH_BYTES
            skipped = min(max(start - index, 0), count)
            file.seek(skipped * tree.HASH_BYTES)
            yield from islice(iter(lambda: file.read(tree.HASH_BYTES), b""), count - skipped)
        index += count


def leaves_of(path: Path) -> Iterator[bytes]:
    """The leaf hashes in one file. Raises OSError."""
    with reading.open_regular(path) as file:
        yield from iter(lambda: file.read(tree.HASH_BYTES), b"")


def fold(leaf_hashes: Iterator[bytes], stops: list[int]) -> tuple[tree.Frontier, dict[int, bytes]]:
    """The frontier over the leaves up to the last stop, or as far as they go, and the roots at all stops."""
    frontier = tree.Frontier()
    roots: dict[int, bytes] = {}
    for stop in sorted(set(stops)):
        while batch := list(islice(leaf_hashes, min(stop - frontier.size, BATCH_LEAVES))):
            frontier = frontier.extend(batch)
        if frontier.size == stop:
            roots[stop] = frontier.root()
    return frontier, roots
