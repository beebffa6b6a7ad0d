"""Inclusion and consistency proofs (RFC 6962 section 2.1; verification as in RFC 9162 section 2.1). Pure.

A proof is a list of hashes, each the root of a span of leaves. A span falls into perfect subtrees, so a
proof is made in one pass over the leaf hashes that keeps only the subtrees it needs.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice
from typing import Final, NamedTuple

from vram_residency.audit.format import tree

#: No proof in a tree of at most 2**63 - 1 leaves is longer (C2SP tlog-witness names the same limit).
HASHES_MAX: Final = 63
_BATCH_LEAVES: Final = 4096


class ProofError(ValueError):
    """Hashes do not prove what they were given for."""


class Node(NamedTuple):
    """The root of a perfect subtree: leaves ``number * 2**level`` to ``(number + 1) * 2**level``."""

    level: int
    number: int


class Span(NamedTuple):
    """Leaves ``start`` to ``end`` (exclusive) under one node of a tree: MTH(D[start:end])."""

    start: int
    end: int


# --- which hashes a proof is made of ------------------------------------------------------------------


def inclusion_spans(index: int, size: int) -> list[Span]:
    """PATH(index, D[size]), from the leaf's sibling up. Raises ValueError unless 0 <= index < size."""
    if not 0 <= index < size:
        raise ValueError(f"there is no leaf {index} in a tree of {size}")
    spans = []
    start, end = 0, size
    while end - start > 1:
        middle = start + _split(end - start)
        if index < middle:
            spans.append(Span(middle, end))
            end = middle
        else:
            spans.append(Span(start, middle))
            start = middle
    return spans[::-1]


def consistency_spans(old_size: int, size: int) -> list[Span]:
    """PROOF(old_size, D[size]); empty for the empty tree and for equal sizes.

    Raises ValueError unless 0 <= old_size <= size.
    """
    if not 0 <= old_size <= size:
        raise ValueError(f"a tree of {size} leaves has no beginning of {old_size}")
    if old_size in {0, size}:
        return []
    spans = []
    start, end = 0, size
    while old_size != end:
        middle = start + _split(end - start)
        if old_size <= middle:
            spans.append(Span(middle, end))
            end = middle
        else:
            spans.append(Span(start, middle))
            start = middle
    # The old tree as a whole is known to who asks; a part of it is not.
    return [*([Span(start, end)] if start else []), *spans[::-1]]


def nodes_of(span: Span) -> list[Node]:
    """The perfect subtrees that a span of a tree falls into, largest first."""
    nodes = []
    start = span.start
    while start < span.end:
        level = (span.end - start).bit_length() - 1
        nodes.append(Node(level, start >> level))
        start += 1 << level
    return nodes


def root_of(span: Span, hashes: Mapping[Node, bytes]) -> bytes:
    """The root (32 bytes) of a span from its perfect subtrees. Raises KeyError where one is missing."""
    subtrees = tuple(hashes[node] for node in nodes_of(span))
    return tree.Frontier(span.end - span.start, subtrees).root()


class NodeCollector:
    """Grows a tree leaf by leaf and keeps the perfect subtrees that were asked for.

    Invariant: ``_left[level]`` is the node of that level that still waits for its right sibling.
    """

    def __init__(self, wanted: Iterable[Node]) -> None:
        self._wanted: dict[int, list[int]] = {}
        for level, number in sorted(set(wanted)):
            self._wanted.setdefault(level, []).append(number)
        self._left: dict[int, bytes] = {}
        self.size = 0
        self.found: dict[Node, bytes] = {}

    def feed(self, leaf_hashes: Iterable[bytes]) -> None:
        """Take these leaf hashes in their order; memory stays flat."""
        leaves = iter(leaf_hashes)
        while batch := list(islice(leaves, _BATCH_LEAVES)):
            self._grow(batch)

    def root(self) -> bytes:
        """The root over all leaves so far."""
        levels = [level for level in range(self.size.bit_length()) if self.size >> level & 1]
        return tree.Frontier(self.size, tuple(self._left[level] for level in reversed(levels))).root()

    def _grow(self, hashes: list[bytes]) -> None:
        first, level = self.size, 0
        self.size += len(hashes)
        while hashes:
            self._keep(level, first, hashes)
            if first & 1:
                hashes = [self._left[level], *hashes]
            if len(hashes) & 1:
                self._left[level] = hashes[-1]
            hashes = [tree.node_hash(*pair) for pair in zip(hashes[::2], hashes[1::2], strict=False)]
            first, level = first >> 1, level + 1

    def _keep(self, level: int, first: int, hashes: Sequence[bytes]) -> None:
        for number in self._wanted.get(level, ()):
            if first <= number < first + len(hashes):
                self.found[Node(level, number)] = hashes[number - first]


# --- verification ---------------------------------------------------------------------------------------


def verify_inclusion(
    leaf_hash: bytes, *, index: int, size: int, root: bytes, hashes: Sequence[bytes]
) -> None:
    """Raise ProofError unless the leaf stands at ``index`` of the tree (RFC 9162 section 2.1.3.2)."""
    _require_hashes(leaf_hash, root, *hashes)
    # 1.
    if not 0 <= index < size <= tree.SIZE_MAX:
        raise ProofError(f"there is no leaf {index} in a tree of {size}")
    # 2, 3.
    node, last, folded = index, size - 1, leaf_hash
    # 4.
    for hash_, is_left in _climb(hashes, node, last):
        folded = tree.node_hash(hash_, folded) if is_left else tree.node_hash(folded, hash_)
    # 5.
    if folded != root:
        raise ProofError("the proof does not lead to the root")


def verify_consistency(
    hashes: Sequence[bytes], *, old_size: int, old_root: bytes, size: int, root: bytes
) -> None:
    """Raise ProofError unless the old tree is a beginning of the new one (RFC 9162 section 2.1.4.2).

    The empty tree is a beginning of every tree; its proof is empty, as that of a tree and itself.
    """
    _require_hashes(old_root, root, *hashes)
    if not 0 <= old_size <= size <= tree.SIZE_MAX:
        raise ProofError(f"a tree of {size} leaves has no beginning of {old_size}")
    if old_size in {0, size}:
        _require_trivial(hashes, old_root, tree.EMPTY_ROOT if old_size == 0 else root)
        if size == 0 and root != tree.EMPTY_ROOT:
            raise ProofError("the tree is empty, but its root is not that of the empty tree")
        return
    # 1, 2. A perfect old tree is a node of the new one, and is not repeated in the proof.
    is_perfect = old_size & (old_size - 1) == 0
    path = iter((old_root, *hashes) if is_perfect else hashes)
    # 3, 4.
    node, last = old_size - 1, size - 1
    while node & 1:
        node, last = node >> 1, last >> 1
    # 5.
    first = next(path, None)
    if first is None:
        raise ProofError("the proof has too few hashes")
    # 6, 7.
    if _fold_both(first, path, node, last) != (old_root, root):
        raise ProofError("the proof does not lead to both roots")


def _fold_both(first: bytes, path: Iterator[bytes], node: int, last: int) -> tuple[bytes, bytes]:
    """Step 6 of section 2.1.4.2: the old and the new root that the path leads to."""
    old, new = first, first
    for hash_, is_left in _climb(path, node, last):
        if is_left:
            old, new = tree.node_hash(hash_, old), tree.node_hash(hash_, new)
        else:
            new = tree.node_hash(new, hash_)
    return old, new


def _climb(path: Iterable[bytes], node: int, last: int) -> Iterator[tuple[bytes, bool]]:
    """Each hash of a path from ``node`` up to the root, and whether it stands to the left.

    ``last`` is the level's last node. Raises ProofError where the path is too long or ends too early.
    """
    for hash_ in path:
        if last == 0:
            raise ProofError("the proof has too many hashes")
        is_left = bool(node & 1) or node == last
        yield hash_, is_left
        if is_left:
            while not node & 1 and node:
                node, last = node >> 1, last >> 1
        node, last = node >> 1, last >> 1
    if last != 0:
        raise ProofError("the proof has too few hashes")


def _require_trivial(hashes: Sequence[bytes], old_root: bytes, expected: bytes) -> None:
    if hashes:
        raise ProofError("the proof must be empty")
    if old_root != expected:
        raise ProofError("the proof does not lead to both roots")


def _require_hashes(*hashes: bytes) -> None:
    if any(len(hash_) != tree.HASH_BYTES for hash_ in hashes):
        raise ProofError(f"a hash has {tree.HASH_BYTES} bytes")


def _split(count: int) -> int:
    """The largest power of two smaller than ``count`` (RFC 6962 section 2.1)."""
    return 1 << (count - 1).bit_length() - 1
