"""A log laid out as tiles (C2SP tlog-tiles): names, contents, and how they grow with the log. Pure.

A tile is 256 consecutive hashes of one level; level 0 are leaf hashes, and each hash of a higher level is the
root of a full tile below it. Entry bundles are the entries themselves, cut at the same places.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from typing import Final, Literal, NamedTuple

from vram_residency.audit.format import tree

WIDTH: Final = 256
_LEVEL_BITS: Final = 8
_GROUP: Final = 1000
_LENGTH: Final = struct.Struct(">H")


class TileFormatError(ValueError):
    """Bytes are not a tile, or not an entry bundle."""


class Tile(NamedTuple):
    """A tile's place: level (or entries), number within it, and width in hashes (or entries), 1 to 256."""

    level: int | Literal["entries"]
    number: int
    width: int

    @property
    def is_full(self) -> bool:
        """Whether it will never change."""
        return self.width == WIDTH

    @property
    def partial_folder(self) -> str:
        """Where its partial forms lie: ``tile/0/x001/234.p``."""
        return f"tile/{self.level}/{_number_path(self.number)}.p"

    @property
    def path(self) -> str:
        """``tile/0/x001/234`` where it is full, ``tile/0/x001/234.p/7`` where it is not."""
        folder = self.partial_folder
        return folder.removesuffix(".p") if self.is_full else f"{folder}/{self.width}"


def widths(size: int) -> list[int]:
    """How many hashes the last, partial tile of each level has in a tree of ``size`` leaves; may be 0."""
    levels = range((size.bit_length() + _LEVEL_BITS - 1) // _LEVEL_BITS)
    return [size >> _LEVEL_BITS * level & (WIDTH - 1) for level in levels]


def partial_tiles(size: int) -> list[Tile]:
    """The partial tiles of a tree of ``size`` leaves, from level 0 up."""
    return [
        Tile(level, size >> _LEVEL_BITS * (level + 1), width)
        for level, width in enumerate(widths(size))
        if width
    ]


def split_hashes(data: bytes, width: int) -> list[bytes]:
    """The hashes of a tile. Raises TileFormatError unless there are ``width``."""
    if len(data) != width * tree.HASH_BYTES:
        raise TileFormatError(f"a tile of {width} hashes has {width * tree.HASH_BYTES} bytes")
    return [data[start : start + tree.HASH_BYTES] for start in range(0, len(data), tree.HASH_BYTES)]


def join_entries(lines: Sequence[bytes]) -> bytes:
    """The bundle of some entries: each with its length in front (two bytes, big-endian)."""
    return b"".join(_LENGTH.pack(len(line)) + line for line in lines)


def split_entries(data: bytes, width: int) -> list[bytes]:
    """The entries of a bundle. Raises TileFormatError unless there are ``width``."""
    lines = []
    offset = 0
    while offset < len(data):
        head = data[offset : offset + _LENGTH.size]
        end = offset + _LENGTH.size + int.from_bytes(head, "big")
        if len(head) < _LENGTH.size or end > len(data):
            raise TileFormatError(f"the entry at byte {offset} is cut off")
        lines.append(data[offset + _LENGTH.size : end])
        offset = end
    if len(lines) != width:
        raise TileFormatError(f"a bundle of {len(lines)} entries where {width} belong")
    return lines


class TileEdge:
    """The right edge of a tiled tree: the hashes of every level that fill no tile yet.

    Invariant: ``len(_levels[l])`` is ``widths(size)[l]``.
    """

    def __init__(self, size: int = 0, levels: Sequence[Sequence[bytes]] = ()) -> None:
        """Go on from the hashes of the partial tiles, level 0 first. They are unverified: see root()."""
        if [len(hashes) for hashes in levels] != widths(size):
            raise TileFormatError("the partial tiles are not those of the size")
        self.size = size
        self._levels = [list(hashes) for hashes in levels]

    def copy(self) -> TileEdge:
        """An edge that grows by itself."""
        return TileEdge(self.size, self._levels)

    def hashes(self, level: int) -> list[bytes]:
        """The hashes of a level that fill no tile yet."""
        return list(self._levels[level]) if level < len(self._levels) else []

    def append(self, leaf_hash: bytes) -> list[tuple[Tile, bytes]]:
        """Take one leaf; the tiles that it filled, from level 0 up, with their bytes."""
        self.size += 1
        filled: list[tuple[Tile, bytes]] = []
        new, level = leaf_hash, 0
        while True:
            if level == len(self._levels):
                self._levels.append([])
            hashes = self._levels[level]
            hashes.append(new)
            if len(hashes) < WIDTH:
                return filled
            number = (self.size >> _LEVEL_BITS * (level + 1)) - 1
            filled.append((Tile(level, number, WIDTH), b"".join(hashes)))
            new = tree.Frontier().extend(hashes).root()
            hashes.clear()
            level += 1

    def partial(self) -> Iterator[tuple[Tile, bytes]]:
        """The partial tiles that are needed beside the full ones, with their bytes."""
        for tile in partial_tiles(self.size):
            yield tile, b"".join(self._levels[int(tile.level)])

    def root(self) -> bytes:
        """The root hash (32 bytes) of the tree so far."""
        subtrees: list[bytes] = []
        for hashes in reversed(self._levels):
            subtrees += tree.Frontier().extend(hashes).subtrees
        return tree.Frontier(self.size, tuple(subtrees)).root()


def _number_path(number: int) -> str:
    """1234067 as ``x001/x234/067``."""
    path = f"{number % _GROUP:03}"
    while number := number // _GROUP:
        path = f"x{number % _GROUP:03}/{path}"
    return path
