"""A reader of C2SP tlog-tiles that knows nothing of the log but its vkey: hashlib, base64 and the files.

It computes roots and proofs from tiles alone, as a client of a published log does. No code is shared with the
product.
"""

from __future__ import annotations

import hashlib
from itertools import pairwise
from pathlib import Path

from tests.independent_log import open_note, root_of
from tests.merkle_reference import largest_power_below


def tile_name(level: int | str, number: int, width: int) -> str:
    groups = [f"{number % 1000:03}"]
    while number := number // 1000:
        groups.insert(0, f"x{number % 1000:03}")
    name = f"tile/{level}/{'/'.join(groups)}"
    return name if width == 256 else f"{name}.p/{width}"


class TileReader:
    """What a directory publishes under its own checkpoint."""

    def __init__(self, out: Path, vkey: str) -> None:
        self.out = out
        self.note = (out / "checkpoint").read_bytes()
        self.origin, self.size, self.root = open_note(self.note, vkey)
        self.served: set[str] = set()

    def tile(self, level: int, number: int) -> list[bytes]:
        hashes_at_level = self.size // 256**level
        width = min(256, hashes_at_level - 256 * number)
        assert width > 0
        data = self._get(tile_name(level, number, width))
        assert len(data) == 32 * width
        return [data[at : at + 32] for at in range(0, len(data), 32)]

    def entries(self) -> list[bytes]:
        lines: list[bytes] = []
        for number in range((self.size + 255) // 256):
            width = min(256, self.size - 256 * number)
            data = self._get(tile_name("entries", number, width))
            bundle: list[bytes] = []
            while data:
                length = int.from_bytes(data[:2], "big")
                assert len(data) >= 2 + length
                bundle.append(data[2 : 2 + length])
                data = data[2 + length :]
            assert len(bundle) == width
            lines += bundle
        return lines

    def mth(self, start: int, end: int) -> bytes:
        """MTH(D[start:end]) of a span of the tree, from tiles."""
        count = end - start
        if count == 0:
            return hashlib.sha256(b"").digest()
        for level in range(8):
            if count == 256**level and start % count == 0:
                number = start // count
                return self.tile(level, number // 256)[number % 256]
        k = largest_power_below(count)
        return hashlib.sha256(b"\x01" + self.mth(start, start + k) + self.mth(start + k, end)).digest()

    def check(self) -> list[bytes]:
        """The whole publication: every tile from the one below, the root, every entry; the entries."""
        levels: list[list[bytes]] = []
        while count := self.size // 256 ** len(levels):
            tiles = [self.tile(len(levels), number) for number in range((count + 255) // 256)]
            levels.append([hash_ for tile in tiles for hash_ in tile])
            assert len(levels[-1]) == count
        for below, above in pairwise(levels):
            assert above == [root_of(below[at : at + 256]) for at in range(0, 256 * len(above), 256)]
        lines = self.entries()
        if self.size:
            assert root_of(levels[0]) == self.root
            assert levels[0] == [hashlib.sha256(b"\x00" + line).digest() for line in lines]
        assert self.mth(0, self.size) == self.root
        return lines

    def _get(self, name: str) -> bytes:
        self.served.add(name)
        return (self.out / name).read_bytes()
