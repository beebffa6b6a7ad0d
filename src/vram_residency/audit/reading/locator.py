"""Finding which entry was changed, where only a root hash says that one was.

The leaf hashes under ``tree/`` are never trusted; but where they fold to a signed root they are what was
signed, and the first line that differs from its leaf is the first bad one.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from typing import Final, NamedTuple

from vram_residency.audit.format import tree
from vram_residency.audit.reading import source as reading
from vram_residency.audit.store.directory import Directory

_BATCH_LEAVES: Final = 4096


class Place(NamedTuple):
    """Where a line lies; ``entry_index`` is the index expected there."""

    entry_index: int
    file: str
    offset: int


def find_changed(directory: Directory, *, size: int, root: bytes) -> Place | None:
    """The first line under ``size`` that differs from the signed leaves, or None where nothing can tell."""
    try:
        # 1. Only leaves that fold to the signed root count.
        if _root_of(_stored_leaves(directory, size)) != (size, root):
            return None
        # 2. The first line that is not its leaf.
        pairs = zip(_lines(directory), _stored_leaves(directory, size), strict=False)
        return next((place for (place, data), leaf in pairs if tree.leaf_hash(data) != leaf), None)
    except OSError:
        return None


def _stored_leaves(directory: Directory, size: int) -> Iterator[bytes]:
    """The first ``size`` leaf hashes; fewer where the files hold fewer."""
    return islice(_all_leaves(directory), size)


def _all_leaves(directory: Directory) -> Iterator[bytes]:
    for path in sorted(directory.tree.glob("*.leaves")):
        with reading.open_regular(path) as file:
            while leaf := file.read(tree.HASH_BYTES):
                yield leaf


def _root_of(leaves: Iterator[bytes]) -> tuple[int, bytes]:
    frontier = tree.Frontier()
    while batch := list(islice(leaves, _BATCH_LEAVES)):
        frontier = frontier.extend(batch)
    return frontier.size, frontier.root()


def _lines(directory: Directory) -> Iterator[tuple[Place, bytes]]:
    index = 0
    for segment in reading.segments(directory.entries):
        with reading.open_regular(segment.path) as file:
            for line in reading.lines(file):
                yield Place(index, segment.name, line.offset), line.data
                index += 1
