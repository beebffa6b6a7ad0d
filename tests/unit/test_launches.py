"""Plans of launches: tables, levels, places, and what is refused."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vram_residency.core.errors import InvalidInputError
from vram_residency.digest.launches import FAN_IN, Launch, Plan, Span, plan_digest
from vram_residency.digest.value import GROUP_BYTES, VALUE_BYTES

GIB = 1 << 30


def rows(plan: Plan, level: int, base: int) -> list[tuple[int, ...]]:
    return list(struct.iter_unpack("<5Q", plan.levels[level].table(base)))


def test_a_small_shard_needs_one_launch() -> None:
    """Its only group is its root."""
    plan = plan_digest([Span(4096, 77)])
    assert rows(plan, 0, base=1 << 20) == [(4096, 77, 0, 0, 1)]
    assert len(plan.levels) == 1


def test_the_largest_card_needs_four_levels() -> None:
    """141 GB are 1.1 million groups, then 8,405, then 66, then one."""
    plan = plan_digest([Span(4096, 141_000_000_000)])
    assert [level.blocks for level in plan.levels] == [1_075_745, 8_405, 66, 1]
    assert [row[4] for level in range(4) for row in rows(plan, level, base=0)] == [0, 0, 0, 1]


def test_a_level_reads_what_the_level_below_has_written() -> None:
    """Shards of different depth side by side: those that are done have no row any more."""
    sizes = [1, 200 * GROUP_BYTES, GROUP_BYTES, 2 * GROUP_BYTES]
    plan = plan_digest([Span(4096 * (1 + index), size) for index, size in enumerate(sizes)])
    base = 1 << 30
    values = [base + level.values_offset for level in plan.levels]
    assert [row[2] for row in rows(plan, 0, base)] == [0, 1, 201, 202]
    assert rows(plan, 1, base) == [
        (values[0] + 1 * VALUE_BYTES, 200, 0, 0, 0),
        (values[0] + 202 * VALUE_BYTES, 2, 2, 0, 1),
    ]
    assert rows(plan, 2, base) == [(values[1], 2, 0, 0, 1)]
    assert [offset + base for offset in plan.digest_offsets] == [
        values[0],
        values[2],
        values[0] + 201 * VALUE_BYTES,
        values[1] + 2 * VALUE_BYTES,
    ]


def test_a_part_knows_its_place_and_is_no_root() -> None:
    """The counter of its first chunk goes into every compression."""
    plan = plan_digest([Span(4096, 5, first_group=3, is_whole=False)])
    assert rows(plan, 0, base=0) == [(4096, 5, 0, 3 * FAN_IN, 0)]
    assert len(plan.levels) == 1


def test_the_launches_of_a_plan() -> None:
    """Names, grids and arguments, in order; the tag shares the first table."""
    plan = plan_digest([Span(4096, 5 * GROUP_BYTES), Span(8192, 1)])
    first, second = plan.levels
    base = 1 << 24
    groups = (base + first.table_offset, 2, base + first.values_offset)
    parents = Launch("blake3_parents", 1, (base + second.table_offset, 1, base + second.values_offset))
    assert plan.digest_launches(base) == (Launch("blake3_groups", 6, groups), parents)
    tagged = Launch("blake3_groups_tagged", 6, (*groups, 99, base + plan.tags_offset))
    assert plan.digest_launches(base, spread_key=99) == (tagged, parents)
    assert plan.tag_launch(base, key=7) == Launch("tag_groups", 2, (base, 2, 6, 7, base + plan.tags_offset))
    assert (tagged.threads, plan.tag_launch(base, key=7).threads) == (128, 256)


@given(
    sizes=st.lists(st.integers(0, 300 * GROUP_BYTES), min_size=1, max_size=9),
    whole=st.booleans(),
)
def test_nothing_in_scratch_memory_overlaps(sizes: list[int], whole: bool) -> None:
    """Tables, then the values of each level, then the tags, to the last byte."""
    plan = plan_digest([Span(4096, size, is_whole=whole) for size in sizes])
    tables = len(plan.tables(0))
    pieces = [(level.table_offset, len(level.table(0))) for level in plan.levels]
    pieces += [(-(-tables // 32) * 32, 0)]
    pieces += [(level.values_offset, level.blocks * VALUE_BYTES) for level in plan.levels]
    pieces += [(plan.tags_offset, plan.groups * VALUE_BYTES), (plan.size_bytes, 0)]
    ends = [start + size for start, size in pieces]
    assert ends[-1] == plan.size_bytes
    gaps = [start - end for (start, _), end in zip(pieces[1:], ends, strict=False)]
    assert [gap for gap in gaps if gap] in ([], [-tables % 32])
    assert [plan.values_range(index)[1] for index in range(len(sizes))] == [
        VALUE_BYTES * max(1, -(-size // GROUP_BYTES)) for size in sizes
    ]
    assert [plan.tags_range(index)[0] - plan.tags_offset for index in range(len(sizes))] == [
        plan.values_range(index)[0] - plan.levels[0].values_offset for index in range(len(sizes))
    ]


@pytest.mark.parametrize(
    ("spans", "rule"),
    [
        pytest.param([], "are none", id="none"),
        pytest.param([Span(4097, 1)], "multiple of 16", id="unaligned"),
        pytest.param([Span(0, 1)], "multiple of 16", id="null"),
        pytest.param([Span(16, -1)], "no memory has", id="negative"),
        pytest.param([Span(2**64 - 16, 17)], "no memory has", id="beyond the end"),
        pytest.param([Span(16, 1, first_group=-1)], "no memory has", id="negative place"),
        pytest.param([Span(16, 1, first_group=1)], "is whole and yet", id="whole with a place"),
        pytest.param([Span(16, 2**31 * GROUP_BYTES)], "more than 2147483647 groups", id="too many"),
    ],
)
def test_what_no_kernel_can_work_on_is_refused(spans: list[Span], rule: str) -> None:
    """Before anything reaches a device."""
    with pytest.raises(InvalidInputError, match=rule):
        plan_digest(spans)


def test_no_text_shows_an_address() -> None:
    """Device pointers are private (residency.md section 1)."""
    plan = plan_digest([Span(0x7F00BEEF0000, GROUP_BYTES)])
    shown = repr([plan.spans[0], *plan.digest_launches(0x7F00BEEF0000), plan])
    assert str(0x7F00BEEF0000) not in shown
    with pytest.raises(InvalidInputError) as caught:
        plan_digest([Span(0x7F00BEEF0001, 1)])
    assert str(0x7F00BEEF0001) not in str(caught.value)
