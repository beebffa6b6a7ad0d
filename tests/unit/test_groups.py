"""Group values: what they are, how damage is placed by them."""

from __future__ import annotations

import itertools
import os

import pytest
from blake3 import blake3
from hypothesis import given
from hypothesis import strategies as st

from vram_residency.core.errors import InvalidInputError
from vram_residency.digest import groups
from vram_residency.digest.groups import (
    GroupCollector,
    bad_groups,
    damaged_ranges,
    group_values,
    groups_digest,
)
from vram_residency.digest.value import GROUP_BYTES, VALUE_BYTES

MIB = 1 << 20


def plain_values(data: bytes) -> bytes:
    parts = (data[start : start + GROUP_BYTES] for start in range(0, len(data), GROUP_BYTES))
    return b"".join(blake3(part).digest() for part in parts)


@pytest.mark.parametrize("groups_whole", [0, 1, 2, 31, 32, 33, 100])
@pytest.mark.parametrize("rest", [-1, 0, 1])
def test_each_value_is_the_blake3_of_its_group(groups_whole: int, rest: int) -> None:
    """At every edge of a group and of a thread's batch."""
    data = os.urandom(max(0, groups_whole * GROUP_BYTES + rest))
    assert group_values(memoryview(data)) == plain_values(data)


def test_one_core_gives_the_same_values(monkeypatch: pytest.MonkeyPatch) -> None:
    """Threads are only faster."""
    data = memoryview(os.urandom(9 * MIB))
    expected = group_values(data)
    monkeypatch.setattr(groups, "thread_count", lambda: 1)
    assert group_values(data) == expected


def test_a_collector_gives_the_values_of_what_it_was_shown() -> None:
    """In runs, as memory fills."""
    data = os.urandom(2 * MIB + 5)
    collector = GroupCollector()
    for start in range(0, len(data), MIB):
        collector(memoryview(data)[start : start + MIB])
    assert collector.group_values() == plain_values(data)


def test_a_collector_refuses_runs_after_one_that_ended_inside_a_group() -> None:
    """Values would otherwise belong to other bytes."""
    collector = GroupCollector()
    collector(memoryview(bytes(GROUP_BYTES + 1)))
    with pytest.raises(InvalidInputError, match="ended inside a group"):
        collector(memoryview(bytes(GROUP_BYTES)))


def test_the_digest_of_groups_is_that_of_their_values() -> None:
    """blake3 of the concatenation."""
    assert groups_digest(b"") == f"blake3:{blake3(b'').hexdigest()}"
    assert groups_digest(bytes(64)) == f"blake3:{blake3(bytes(64)).hexdigest()}"


@given(
    size=st.integers(1, 6 * GROUP_BYTES + 100),
    flips=st.lists(st.tuples(st.integers(min_value=0), st.integers(0, 7)), max_size=4),
)
def test_damage_is_placed_to_its_groups(size: int, flips: list[tuple[int, int]]) -> None:
    """Exactly the groups in which some bit differs, merged where they touch."""
    data = bytearray(size)
    values = group_values(memoryview(data))
    for offset, bit in flips:
        data[offset % size] ^= 1 << bit
    bad = {
        offset // GROUP_BYTES
        for offset in range(0, size, GROUP_BYTES)
        if any(data[offset : offset + GROUP_BYTES])
    }
    ranges = damaged_ranges(memoryview(data), values)
    covered = {
        start // GROUP_BYTES + step
        for start, end in ranges
        for step in range(-(-(end - start) // GROUP_BYTES))
    }
    assert covered == bad
    assert all(end < start for (_, end), (start, _) in itertools.pairwise(ranges))
    assert all(0 <= start < end <= size for start, end in ranges)


def test_neighbouring_groups_are_one_range_and_the_last_ends_with_the_bytes() -> None:
    """Groups 1 and 2, and the short last one."""
    size = 4 * GROUP_BYTES + 10
    data = bytearray(size)
    values = group_values(memoryview(data))
    for offset in (GROUP_BYTES, 3 * GROUP_BYTES - 1, size - 1):
        data[offset] = 1
    assert damaged_ranges(memoryview(data), values) == [
        (GROUP_BYTES, 3 * GROUP_BYTES),
        (4 * GROUP_BYTES, size),
    ]


def test_only_the_asked_groups_are_looked_at() -> None:
    """Sampling reads what was drawn and nothing else."""
    data = bytearray(4 * GROUP_BYTES)
    values = group_values(memoryview(data))
    data[0] = data[2 * GROUP_BYTES] = 1
    assert bad_groups(memoryview(data), values, [1, 2, 3]) == [2]
    assert bad_groups(memoryview(data), values, []) == []


@pytest.mark.parametrize("length", [0, VALUE_BYTES - 1, VALUE_BYTES + 1, 3 * VALUE_BYTES])
def test_values_of_another_size_are_refused(length: int) -> None:
    """They cannot belong to these bytes."""
    with pytest.raises(InvalidInputError, match="where the memory needs 64"):
        damaged_ranges(memoryview(bytes(GROUP_BYTES + 1)), bytes(length))
