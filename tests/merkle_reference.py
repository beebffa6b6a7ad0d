"""RFC 6962 section 2.1 word for word, recursive and slow: what the product's proofs are held against.

Hashes of spans are remembered, nothing else is clever. No code is shared with the product.
"""

from __future__ import annotations

import hashlib
from functools import lru_cache


class ReferenceTree:
    """The tree over ``count`` made-up leaves, or over given ones."""

    def __init__(self, leaves: list[bytes] | int) -> None:
        data = [b"leaf %d" % number for number in range(leaves)] if isinstance(leaves, int) else leaves
        self.leaf_hashes = [hashlib.sha256(b"\x00" + one).digest() for one in data]
        self.mth = lru_cache(maxsize=None)(self._mth)

    def root(self, size: int) -> bytes:
        return self.mth(0, size)

    def _mth(self, start: int, end: int) -> bytes:
        """MTH(D[start:end])."""
        if start == end:
            return hashlib.sha256(b"").digest()
        if end - start == 1:
            return self.leaf_hashes[start]
        k = largest_power_below(end - start)
        left, right = self.mth(start, start + k), self.mth(start + k, end)
        return hashlib.sha256(b"\x01" + left + right).digest()

    def path(self, m: int, start: int, end: int) -> list[bytes]:
        """PATH(m, D[start:end])."""
        n = end - start
        if n == 1:
            return []
        k = largest_power_below(n)
        if m < k:
            return [*self.path(m, start, start + k), self.mth(start + k, end)]
        return [*self.path(m - k, start + k, end), self.mth(start, start + k)]

    def proof(self, m: int, n: int) -> list[bytes]:
        """PROOF(m, D[0:n])."""
        return self._subproof(m, 0, n, is_whole=True)

    def _subproof(self, m: int, start: int, end: int, *, is_whole: bool) -> list[bytes]:
        n = end - start
        if m == n:
            return [] if is_whole else [self.mth(start, end)]
        k = largest_power_below(n)
        if m <= k:
            return [*self._subproof(m, start, start + k, is_whole=is_whole), self.mth(start + k, end)]
        return [*self._subproof(m - k, start + k, end, is_whole=False), self.mth(start, start + k)]


def largest_power_below(n: int) -> int:
    k = 1
    while k * 2 < n:
        k *= 2
    return k


def recomputed_roots(proof: list[bytes], m: int, n: int, old_root: bytes) -> tuple[bytes, bytes]:
    """Old and new root that a consistency proof says, by walking SUBPROOF backwards; for 0 < m <= n."""
    rest = list(proof)
    old, new = _walk(rest, m, n, old_root, is_whole=True)
    if rest:
        raise ValueError("hashes are left over")
    return old, new


def _walk(rest: list[bytes], m: int, n: int, old_root: bytes, *, is_whole: bool) -> tuple[bytes, bytes]:
    if m == n:
        known = old_root if is_whole else rest.pop(0)
        return known, known
    k = largest_power_below(n)
    if m <= k:
        old, new = _walk(rest, m, k, old_root, is_whole=is_whole)
        return old, hashlib.sha256(b"\x01" + new + rest.pop(0)).digest()
    old, new = _walk(rest, m - k, n - k, old_root, is_whole=False)
    left = rest.pop(0)
    return hashlib.sha256(b"\x01" + left + old).digest(), hashlib.sha256(b"\x01" + left + new).digest()
