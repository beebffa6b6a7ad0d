"""BLAKE3 (hash mode, 32 bytes), slow and plain, written from its paper (blake3.pdf of the BLAKE3 team).

Section numbers are the paper's.
"""

from __future__ import annotations

import struct
from typing import NamedTuple

MASK = 0xFFFFFFFF
BLOCK_BYTES = 64
CHUNK_BYTES = 1024

# Table 1: the initial values, those of SHA-256.
IV = (
    0x6A09E667,
    0xBB67AE85,
    0x3C6EF372,
    0xA54FF53A,
    0x510E527F,
    0x9B05688C,
    0x1F83D9AB,
    0x5BE0CD19,
)
# Table 2: the permutation of the message words between two rounds.
PERMUTATION = (2, 6, 3, 10, 7, 0, 4, 13, 1, 11, 12, 5, 9, 14, 15, 8)
ROUNDS = 7
# Table 3: flags of the compression.
CHUNK_START, CHUNK_END, PARENT, ROOT = 1, 2, 4, 8
# Section 2.2: the quarter rounds work on the columns, then on the diagonals.
COLUMNS_AND_DIAGONALS = (
    (0, 4, 8, 12),
    (1, 5, 9, 13),
    (2, 6, 10, 14),
    (3, 7, 11, 15),
    (0, 5, 10, 15),
    (1, 6, 11, 12),
    (2, 7, 8, 13),
    (3, 4, 9, 14),
)


def rotated(word: int, count: int) -> int:
    return (word >> count | word << (32 - count)) & MASK


def quarter_round(state: list[int], places: tuple[int, int, int, int], x: int, y: int) -> None:
    a, b, c, d = places
    for word, first, second in ((x, 16, 12), (y, 8, 7)):
        state[a] = (state[a] + state[b] + word) & MASK
        state[d] = rotated(state[d] ^ state[a], first)
        state[c] = (state[c] + state[d]) & MASK
        state[b] = rotated(state[b] ^ state[c], second)


class Node(NamedTuple):
    """The last compression of a chunk or a parent, not yet done: whether it is the root shows later."""

    chain: tuple[int, ...]
    words: tuple[int, ...]
    counter: int
    length: int
    flags: int

    def compressed(self, extra_flags: int = 0) -> tuple[int, ...]:
        """Section 2.2; the first eight words of the output."""
        counter = (self.counter & MASK, self.counter >> 32)
        state = [*self.chain, *IV[:4], *counter, self.length, self.flags | extra_flags]
        words = list(self.words)
        for _ in range(ROUNDS):
            for index, places in enumerate(COLUMNS_AND_DIAGONALS):
                quarter_round(state, places, words[2 * index], words[2 * index + 1])
            words = [words[place] for place in PERMUTATION]
        return tuple(state[index] ^ state[index + 8] for index in range(8))


def chunk_node(chunk: bytes, counter: int) -> Node:
    """Section 2.4: the blocks of a chunk are chained; the last one is left for the caller."""
    blocks = [chunk[start : start + BLOCK_BYTES] for start in range(0, len(chunk), BLOCK_BYTES)] or [b""]
    chain: tuple[int, ...] = IV
    for index, block in enumerate(blocks):
        flags = CHUNK_START * (index == 0) | CHUNK_END * (index == len(blocks) - 1)
        words = struct.unpack("<16I", block.ljust(BLOCK_BYTES, b"\0"))
        node = Node(chain, words, counter, len(block), flags)
        chain = node.compressed()
    return node


def tree_node(data: bytes, counter: int = 0) -> Node:
    """Section 2.1: the left subtree has the largest power of two of chunks that leaves some."""
    if len(data) <= CHUNK_BYTES:
        return chunk_node(data, counter)
    left_chunks = 1
    while 2 * left_chunks * CHUNK_BYTES < len(data):
        left_chunks *= 2
    left = tree_node(data[: left_chunks * CHUNK_BYTES], counter).compressed()
    right = tree_node(data[left_chunks * CHUNK_BYTES :], counter + left_chunks).compressed()
    return Node(IV, left + right, 0, BLOCK_BYTES, PARENT)


def blake3_hex(data: bytes) -> str:
    """The digest as hex digits."""
    return struct.pack("<8I", *tree_node(data).compressed(ROOT)).hex()
