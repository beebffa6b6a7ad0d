"""The BLAKE3 kernels, compiled for the CPU, bit for bit against the wheel, the vectors and the reference."""

from __future__ import annotations

import ctypes
import mmap
import random
import struct

import pytest
from blake3 import blake3
from hypothesis import given
from hypothesis import strategies as st
from tests.kernels.conftest import Memory
from tests.kernels.cpu import CpuRunner
from tests.reference.blake3_reference import BLOCK_BYTES, IV, PARENT, ROOT, Node, tree_node
from tests.vectors.test_blake3 import OFFICIAL, pattern

from vram_residency.digest.cuda import measure, values_of
from vram_residency.digest.launches import FAN_IN, Span, plan_digest
from vram_residency.digest.value import GROUP_BYTES, VALUE_BYTES, group_count

CHUNK_BYTES = 1024


def wrong_lengths(runner: CpuRunner, memory: Memory, lengths: list[int]) -> list[int]:
    """Those of ``lengths`` whose digest is not the wheel's; all are shards of one launch."""
    found = measure(runner, [Span(memory.address, length) for length in lengths])
    data = memoryview(memory.bytes(max(lengths)))
    return [
        length
        for length, one in zip(lengths, found, strict=True)
        if one.digest != f"blake3:{blake3(data[:length]).hexdigest()}"
    ]


@pytest.mark.parametrize("length", OFFICIAL)
def test_the_kernels_give_the_official_vectors(runner: CpuRunner, length: int) -> None:
    """From the empty input on."""
    buffer = ctypes.create_string_buffer(pattern(length), length + 16)
    address = runner.reserve(length)
    ctypes.memmove(address, buffer, length)
    assert measure(runner, [Span(address, length)])[0].digest == f"blake3:{OFFICIAL[length]}"


def test_every_length_of_the_first_chunks(runner: CpuRunner, memory: Memory) -> None:
    """0 to 3 KiB, each a shard of its own in one launch."""
    assert wrong_lengths(runner, memory, list(range(3 * CHUNK_BYTES + 2))) == []


def test_every_length_around_the_edges_of_chunks(runner: CpuRunner, memory: Memory) -> None:
    """The edges of all chunks of two groups, hence every ragged shape of the tree in a block."""
    edges = range(CHUNK_BYTES, 2 * GROUP_BYTES + CHUNK_BYTES, CHUNK_BYTES)
    assert wrong_lengths(runner, memory, [edge + step for edge in edges for step in (-1, 0, 1)]) == []


@pytest.mark.parametrize("groups", [1, 2, 3, 4, 5, 7, 8, 9, 31, 33, 64, 65, 127, 128, 129, 150])
def test_every_length_around_the_edges_of_groups(runner: CpuRunner, memory: Memory, groups: int) -> None:
    """And around 128 groups, where the tree above them gets another launch."""
    steps = (
        -CHUNK_BYTES - 1,
        -CHUNK_BYTES,
        -65,
        -64,
        -17,
        -16,
        -1,
        0,
        1,
        15,
        16,
        63,
        64,
        65,
        CHUNK_BYTES + 1,
    )
    few = steps if groups < FAN_IN // 4 else (-1, 0, 1)
    assert wrong_lengths(runner, memory, [groups * GROUP_BYTES + step for step in few]) == []


def test_random_lengths_to_several_megabytes(runner: CpuRunner, memory: Memory) -> None:
    """As many shards of any size as somebody may load, in one launch."""
    draw = random.Random(20261122)
    lengths = [draw.randrange(20 << 10) for _ in range(1000)]
    lengths += [draw.randrange(1 << 20) for _ in range(60)]
    lengths += [draw.randrange(8 << 20) for _ in range(6)]
    draw.shuffle(lengths)
    assert wrong_lengths(runner, memory, lengths) == []


@given(lengths=st.lists(st.integers(0, 3 * GROUP_BYTES), min_size=1, max_size=6), order=st.integers(0, 9))
def test_shards_of_one_launch_do_not_disturb_each_other(
    library: ctypes.CDLL, memory: Memory, lengths: list[int], order: int
) -> None:
    """In whatever order threads and blocks run: nothing depends on it, so nothing races."""
    assert wrong_lengths(CpuRunner(library, order), memory, lengths) == []


def test_group_values_are_the_chaining_values_of_the_tree(runner: CpuRunner, memory: Memory) -> None:
    """Against the reference: whole groups at their places, and a ragged last one."""
    size = 2 * GROUP_BYTES + 3333
    (found,) = measure(runner, [Span(memory.address, size)])
    expected = [
        tree_node(memory.bytes(size)[start : start + GROUP_BYTES], start // CHUNK_BYTES).compressed()
        for start in range(0, size, GROUP_BYTES)
    ]
    assert found.group_values == b"".join(struct.pack("<8I", *value) for value in expected)


def test_the_value_of_an_only_group_is_the_digest(runner: CpuRunner, memory: Memory) -> None:
    """A root has no other chaining value."""
    for size in (1, CHUNK_BYTES, CHUNK_BYTES + 1, GROUP_BYTES):
        (found,) = measure(runner, [Span(memory.address, size)])
        assert found.digest == f"blake3:{found.group_values.hex()}"


def test_parts_have_the_values_that_the_whole_has(runner: CpuRunner, memory: Memory) -> None:
    """Sampling reads single groups; loading hashes runs of groups as they land."""
    size = 9 * GROUP_BYTES + 5000
    (whole,) = measure(runner, [Span(memory.address, size)])
    runs = [(0, 1), (3, 2), (7, 1), (8, 2), (9, 1)]
    parts = [
        Span(
            memory.address + first * GROUP_BYTES,
            min(count * GROUP_BYTES, size - first * GROUP_BYTES),
            first_group=first,
            is_whole=False,
        )
        for first, count in runs
    ]
    kept = [whole.group_values[first * VALUE_BYTES : (first + count) * VALUE_BYTES] for first, count in runs]
    assert values_of(runner, parts) == kept


def test_one_changed_bit_changes_the_digest_and_one_group(runner: CpuRunner) -> None:
    """Wherever it is, and no other group's value."""
    memory, size = Memory(3 * GROUP_BYTES), 3 * GROUP_BYTES - 11
    (before,) = measure(runner, [Span(memory.address, size)])
    for offset in (0, 15, 16, GROUP_BYTES - 1, GROUP_BYTES, 2 * GROUP_BYTES + 1023, size - 1):
        memory.flip(offset)
        (after,) = measure(runner, [Span(memory.address, size)])
        memory.flip(offset)
        changed = [
            group
            for group in range(3)
            if before.group_values[32 * group :][:32] != after.group_values[32 * group :][:32]
        ]
        assert (changed, after.digest != before.digest) == ([offset // GROUP_BYTES], True)


@pytest.mark.parametrize(
    "length", [16, 1008, 1024, 4096 - 16, GROUP_BYTES - 16, GROUP_BYTES, GROUP_BYTES + 48]
)
def test_nothing_behind_the_last_byte_is_read(runner: CpuRunner, memory: Memory, length: int) -> None:
    """The next page may not be there: here it is not, and reading it would end this process."""
    page = mmap.PAGESIZE
    pages = -(-length // page)
    area = mmap.mmap(-1, (pages + 1) * page)
    start = ctypes.addressof(ctypes.c_char.from_buffer(area))
    libc = ctypes.CDLL(None, use_errno=True)
    libc.mprotect.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
    assert libc.mprotect(start + pages * page, page, 0) == 0
    address = start + pages * page - length
    ctypes.memmove(address, memory.bytes(length), length)
    assert measure(runner, [Span(address, length)])[0].digest == (
        f"blake3:{blake3(memory.bytes(length)).hexdigest()}"
    )


def parent(left: bytes, right: bytes, *, is_root: bool) -> bytes:
    words = struct.unpack("<16I", left + right)
    return struct.pack("<8I", *Node(IV, words, 0, BLOCK_BYTES, PARENT).compressed(ROOT * is_root))


def reference_root(values: list[bytes]) -> bytes:
    """Left subtrees as large as can be (section 2.1)."""
    left = 1 << (len(values) - 1).bit_length() - 1

    def node(part: list[bytes], *, is_root: bool) -> bytes:
        if len(part) == 1:
            return part[0]
        half = 1 << (len(part) - 1).bit_length() - 1
        return parent(node(part[:half], is_root=False), node(part[half:], is_root=False), is_root=is_root)

    return parent(node(values[:left], is_root=False), node(values[left:], is_root=False), is_root=True)


@pytest.mark.parametrize("groups", [FAN_IN**2 - 1, FAN_IN**2, FAN_IN**2 + FAN_IN + 1])
def test_the_tree_above_two_gibibytes(runner: CpuRunner, memory: Memory, groups: int) -> None:
    """More values than one launch reduces twice: random values in place of those of so many bytes."""
    plan = plan_digest([Span(16, groups * GROUP_BYTES)])
    assert group_count(plan.spans[0].size_bytes) == groups
    base = runner.reserve(plan.size_bytes)
    runner.write(base, plan.tables(base))
    offset, size = plan.values_range(0)
    runner.write(base + offset, memory.bytes(size))
    for launch in plan.digest_launches(base)[1:]:
        runner.launch(launch)
    values = [memory.bytes(VALUE_BYTES, VALUE_BYTES * index) for index in range(groups)]
    assert runner.read(base + plan.digest_offsets[0], VALUE_BYTES) == reference_root(values)
