"""Which groups a sampling verification reads, and what it may miss (residency.md section 5). Pure."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Protocol

from vram_residency.digest.value import GROUP_BYTES


class Random(Protocol):
    """A source of randomness; ``secrets.SystemRandom()`` wherever it matters."""

    def sample(self, population: Sequence[int], k: int, /) -> list[int]:
        """``k`` different elements, every set of them as likely as any other."""


def groups_to_read(groups_total: int, *, fraction: float | None = None, size_bytes: int | None = None) -> int:
    """How many groups a share in (0, 1] or a number of bytes asks for.

    Rounded up, at least 1, at most all.
    """
    wanted = groups_total
    if fraction is not None:
        wanted = math.ceil(groups_total * fraction)
    elif size_bytes is not None:
        wanted = -(-size_bytes // GROUP_BYTES)
    return min(max(wanted, 1), groups_total)


def sample_groups(groups_total: int, groups_read: int, rng: Random) -> list[int]:
    """Indices of the groups to read, drawn without replacement, ascending as memory likes it."""
    return sorted(rng.sample(range(groups_total), groups_read))


def miss_probability(groups_total: int, groups_read: int, damaged_groups: int = 1) -> float:
    """The chance that none of ``damaged_groups`` is among the groups read: hypergeometric.

    C(N - d, r) / C(N, r) for N groups, r read and d damaged, of damage that does not know the draw.
    """
    if groups_read + damaged_groups > groups_total:
        return 0.0
    # The quotient is symmetric in r and d: the shorter product is taken.
    few, many = sorted((groups_read, damaged_groups))
    logarithm = math.fsum(math.log1p(-many / (groups_total - index)) for index in range(few))
    return math.exp(logarithm)
