"""Finding which entry was changed, where only a root hash says that one was.

The leaf hashes under ``tree/`` are never trusted; but where they fold to a signed root they are what was
signed, and the first line that differs from its leaf is the first bad one.
"""

from __future__ import annotations

from itertools import islice
from typing import NamedTuple

from vram_residency.audit.format import tree
from vram_residency.audit.reading import source as reading
from vram_residency.audit.reading.stored_leaves import fold, leaves_of, stored_leaves
from vram_residency.audit.store.directory import Directory


class Place(NamedTuple):
    """Where a line lies; ``entry_index`` is the index expected there."""

    entry_index: int
    file: str
    offset: int


def find_changed(directory: Directory, *, size: int, root: bytes) -> Place | None:
    """The first line under ``size`` that differs from the signed leaves, or None where nothing can tell."""
    try:
        # 1. Only leaves that fold to the signed root count.
        frontier, _ = fold(stored_leaves(directory), [size])
        if (frontier.size, frontier.root()) != (size, root):
            return None
        # 2. The first line that is not its leaf.
        return first_difference(directory, before=size)
    except OSError:
        return None


def first_difference(directory: Directory, *, before: int) -> Place | None:
    """The first line of an entry under ``before`` that is not the one of its stored leaf. Raises OSError."""
    for segment in reading.segments(directory.entries):
        if segment.first_index >= before:
            return None
        leaves = islice(leaves_of(directory.leaves(segment.first_index)), before - segment.first_index)
        with reading.open_segment(segment.path) as file:
            pairs = enumerate(zip(reading.lines(file), leaves, strict=False), segment.first_index)
            found = (
                Place(index, segment.name, line.offset)
                for index, (line, leaf) in pairs
                if tree.leaf_hash(line.data) != leaf
            )
            if (place := next(found, None)) is not None:
                return place
    return None
