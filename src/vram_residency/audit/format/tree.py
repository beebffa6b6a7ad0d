"""The Merkle tree over the log's lines (RFC 6962 section 2.1). Pure.

A Frontier is what is needed to go on appending: the roots of the perfect subtrees that the leaves so far
make up, largest first: one for each one-bit of the size. A tree of a billion leaves has at most thirty.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from hashlib import sha256
from typing import Final

import msgspec

HASH_BYTES: Final = 32
SIZE_MAX: Final = 2**63 - 1
#: The root of the tree without leaves: SHA-256 of nothing.
EMPTY_ROOT: Final = sha256(b"").digest()


def leaf_hash(data: bytes) -> bytes:
    """SHA-256(0x00 ‖ data)."""
    return sha256(b"\x00" + data).digest()


def leaf_hashes_of(lines: Iterable[bytes]) -> list[bytes]:
    """leaf_hash() of each."""
    return [sha256(b"\x00" + line).digest() for line in lines]


def node_hash(left: bytes, right: bytes) -> bytes:
    """SHA-256(0x01 ‖ left ‖ right)."""
    return sha256(b"\x01" + left + right).digest()


#: A perfect subtree: its height (0 for a leaf) and its root hash.
Subtree = tuple[int, bytes]


def cover(first_index: int, leaf_hashes: Sequence[bytes]) -> list[Subtree]:
    """The fewest perfect subtrees over leaves that begin at ``first_index``, from left to right.

    A process that sees only a part of the log can hash that part: at most two subtrees of each height.
    """
    left: list[Subtree] = []
    right: list[Subtree] = []
    level, position, height = list(leaf_hashes), first_index, 0
    while level:
        # What has no sibling among these leaves stays as it is.
        if position & 1:
            left.append((height, level.pop(0)))
        if len(level) & 1:
            right.append((height, level.pop()))
        pairs = zip(level[::2], level[1::2], strict=True)
        level = [sha256(b"\x01" + one + two).digest() for one, two in pairs]
        position, height = (position + 1) >> 1, height + 1
    return left + right[::-1]


class FrontierFormatError(ValueError):
    """Stored bytes are not a frontier."""


class Frontier(msgspec.Struct, frozen=True):
    """The right edge of a tree. Immutable: an append gives a new one, so a failed write needs no undo.

    Invariant: ``len(subtrees)`` is the number of one-bits in ``size``.
    """

    size: int = 0
    subtrees: tuple[bytes, ...] = ()

    def append(self, new_leaf_hash: bytes) -> Frontier:
        """The frontier with one leaf more."""
        return self.extend((new_leaf_hash,))

    def extend(self, leaf_hashes: Iterable[bytes]) -> Frontier:
        """The frontier with these leaves more, in their order."""
        return self.extend_subtrees(cover(self.size, list(leaf_hashes)))

    def extend_subtrees(self, added: Iterable[Subtree]) -> Frontier:
        """The frontier with these perfect subtrees more; each must lie where ``cover`` would place it.

        Raises ValueError for one that does not.
        """
        size = self.size
        subtrees = list(self.subtrees)
        for height, root in added:
            if size & ((1 << height) - 1):
                raise ValueError(f"a subtree of height {height} cannot begin at leaf {size}")
            joined = root
            # A trailing one-bit of the size is a perfect subtree as large as the one just made: they join.
            bits = size >> height
            while bits & 1:
                joined = node_hash(subtrees.pop(), joined)
                bits >>= 1
            subtrees.append(joined)
            size += 1 << height
        return Frontier(size, tuple(subtrees))

    def root(self) -> bytes:
        """The root hash (32 bytes) of the leaves so far."""
        if not self.subtrees:
            return EMPTY_ROOT
        *larger, root = self.subtrees
        for subtree in reversed(larger):
            root = node_hash(subtree, root)
        return root

    def encode(self) -> bytes:
        """The size in decimal, then one subtree root (64 hex) a line."""
        lines = [str(self.size), *(subtree.hex() for subtree in self.subtrees)]
        return "".join(f"{line}\n" for line in lines).encode("ascii")

    @classmethod
    def parse(cls, data: bytes) -> Frontier:
        """The inverse of encode(). Its hashes are unverified. Raises FrontierFormatError."""
        try:
            first, *rest = data.decode("ascii").removesuffix("\n").split("\n")
            frontier = cls(int(first), tuple(bytes.fromhex(line) for line in rest))
        except ValueError as error:
            raise FrontierFormatError("not a size and hashes") from error
        sizes_fit = 0 <= frontier.size <= SIZE_MAX and frontier.size.bit_count() == len(frontier.subtrees)
        if not sizes_fit or frontier.encode() != data:
            raise FrontierFormatError("the size and the number of hashes do not fit")
        if any(len(subtree) != HASH_BYTES for subtree in frontier.subtrees):
            raise FrontierFormatError("a hash is not 32 bytes")
        return frontier
