"""Sampling: how much is read, which groups, and what may be missed."""

from __future__ import annotations

import math
import random
import secrets
from collections import Counter
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vram_residency.digest.sampling import groups_to_read, miss_probability, sample_groups
from vram_residency.digest.value import GROUP_BYTES


@pytest.mark.parametrize(
    ("fraction", "size_bytes", "expected"),
    [
        (0.01, None, 10),
        (0.0101, None, 11),
        (1e-9, None, 1),
        (1.0, None, 1000),
        (None, 1, 1),
        (None, GROUP_BYTES, 1),
        (None, GROUP_BYTES + 1, 2),
        (None, 1 << 60, 1000),
        (None, None, 1000),
    ],
)
def test_a_share_or_a_number_of_bytes_is_rounded_up_to_groups(
    fraction: float | None, size_bytes: int | None, expected: int
) -> None:
    """Of 1000 groups: at least one, at most all."""
    assert groups_to_read(1000, fraction=fraction, size_bytes=size_bytes) == expected


@given(total=st.integers(1, 500), share=st.floats(0.001, 1))
def test_a_draw_has_no_group_twice_and_is_ascending(total: int, share: float) -> None:
    """Without replacement, inside the shard."""
    count = groups_to_read(total, fraction=share)
    drawn = sample_groups(total, count, secrets.SystemRandom())
    assert len(set(drawn)) == count
    assert drawn == sorted(drawn)
    assert 0 <= drawn[0] <= drawn[-1] < total


def test_every_group_is_drawn_about_as_often() -> None:
    """20,000 draws of 3 out of 12: each group about 5000 times, within six standard deviations."""
    rng = random.Random(7)
    seen = Counter(index for _ in range(20_000) for index in sample_groups(12, 3, rng))
    assert len(seen) == 12
    deviation = math.sqrt(20_000 * 0.25 * 0.75)
    assert all(abs(count - 5000) < 6 * deviation for count in seen.values())


@given(total=st.integers(1, 60), data=st.data())
def test_the_miss_probability_is_the_exact_hypergeometric(total: int, data: st.DataObject) -> None:
    """C(N - d, r) / C(N, r), against exact fractions."""
    read = data.draw(st.integers(0, total))
    damaged = data.draw(st.integers(0, total))
    exact = Fraction(math.comb(total - damaged, read), math.comb(total, read))
    assert miss_probability(total, read, damaged) == pytest.approx(float(exact), rel=1e-9, abs=1e-300)


def test_one_damaged_group_is_missed_by_the_share_not_read() -> None:
    """Reading 25 of 100 misses one damaged group in 3 of 4 cases."""
    assert miss_probability(100, 25) == pytest.approx(0.75)


def test_reading_everything_misses_nothing() -> None:
    """Exactly zero, not nearly."""
    assert miss_probability(1000, 1000) == 0.0


def test_large_shards_are_quick_and_stay_in_range() -> None:
    """800,000 groups are 100 GB; half of them damaged is never missed by a thousand draws."""
    assert 0.0 <= miss_probability(800_000, 1000, 400_000) < 1e-300
    assert miss_probability(800_000, 8000) == pytest.approx(0.99)
