"""The tag's kernels, compiled for the CPU, against a slow reference made from the spec's text."""

from __future__ import annotations

import ctypes
import mmap
from collections.abc import Iterator

import pytest
from blake3 import blake3
from tests.kernels.conftest import Memory
from tests.kernels.cpu import CpuRunner
from tests.reference import tag_reference

from vram_residency.core.errors import InvalidInputError
from vram_residency.digest.cuda import DeviceKey, fast_sums, measure_tagged
from vram_residency.digest.launches import Span
from vram_residency.digest.tag import TagKey
from vram_residency.digest.value import GROUP_BYTES, VALUE_BYTES

SEED = bytes(range(7, 39))
SEAL_ID = "0123456789abcdef" * 2
LENGTHS = [
    1,
    4,
    15,
    16,
    17,
    1023,
    1024,
    1025,
    GROUP_BYTES - 1,
    GROUP_BYTES,
    GROUP_BYTES + 1,
    3 * GROUP_BYTES + 7,
]


@pytest.fixture
def key() -> TagKey:
    return TagKey.derive(bytearray(SEED))


@pytest.fixture
def device_key(runner: CpuRunner, key: TagKey) -> Iterator[DeviceKey]:
    uploaded = DeviceKey(runner, key)
    yield uploaded
    uploaded.wipe()


def test_both_kernels_give_the_sums_of_the_reference(
    runner: CpuRunner, memory: Memory, device_key: DeviceKey
) -> None:
    """Every length in one launch, so that groups of several shards share a thread block."""
    spans = [Span(memory.address, length) for length in LENGTHS]
    expected = [tag_reference.all_sums(memory.bytes(length), SEED) for length in LENGTHS]
    assert fast_sums(runner, spans, device_key) == expected
    assert [bytes(one.sums) for one in measure_tagged(runner, spans, device_key)] == expected


@pytest.mark.parametrize("order", [1, 2, 3, 8])
def test_the_sums_do_not_depend_on_the_order_of_threads(
    library: ctypes.CDLL, memory: Memory, key: TagKey, order: int
) -> None:
    """Fused and alone, over ragged groups."""
    runner = CpuRunner(library, order)
    device_key = DeviceKey(runner, key)
    spans = [Span(memory.address, length) for length in (5 * GROUP_BYTES + 99, 77_777)]
    fused = measure_tagged(runner, spans, device_key)
    assert [bytes(one.sums) for one in fused] == fast_sums(runner, spans, device_key)
    expected = tag_reference.all_sums(memory.bytes(77_777), SEED)
    assert bytes(fused[1].sums) == expected


def test_the_fused_pass_measures_as_the_plain_one_does(
    runner: CpuRunner, memory: Memory, device_key: DeviceKey
) -> None:
    """The digest is not touched by the tag."""
    spans = [Span(memory.address, length) for length in [*LENGTHS, 130 * GROUP_BYTES + 1]]
    for span, one in zip(spans, measure_tagged(runner, spans, device_key), strict=True):
        data = memory.bytes(span.size_bytes)
        assert one.measurement.digest == f"blake3:{blake3(data).hexdigest()}"


@pytest.mark.parametrize("length", [16, 4096, GROUP_BYTES, GROUP_BYTES + 4096])
def test_the_fast_pass_reads_nothing_behind_the_last_byte(
    runner: CpuRunner, memory: Memory, device_key: DeviceKey, length: int
) -> None:
    """The page behind is not there."""
    pages = -(-length // mmap.PAGESIZE)
    area = mmap.mmap(-1, (pages + 1) * mmap.PAGESIZE)
    end = ctypes.addressof(ctypes.c_char.from_buffer(area)) + pages * mmap.PAGESIZE
    libc = ctypes.CDLL(None)
    libc.mprotect.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
    assert libc.mprotect(end, mmap.PAGESIZE, 0) == 0
    ctypes.memmove(end - length, memory.bytes(length), length)
    expected = tag_reference.all_sums(memory.bytes(length), SEED)
    spans = [Span(end - length, length)]
    assert fast_sums(runner, spans, device_key) == [expected]
    assert bytes(measure_tagged(runner, spans, device_key)[0].sums) == expected


def test_the_whole_tag_is_that_of_the_reference(
    runner: CpuRunner, memory: Memory, key: TagKey, device_key: DeviceKey
) -> None:
    """From bytes to the 32 bytes that are kept."""
    size = 2 * GROUP_BYTES + 12_345
    (sums,) = fast_sums(runner, [Span(memory.address, size)], device_key)
    tag = key.tag(SEAL_ID, pass_number=9, size_bytes=size, group_values=sums)
    assert tag == tag_reference.tag(memory.bytes(size), SEED, SEAL_ID, 9)


def test_a_changed_bit_and_swapped_groups_change_the_tag(
    runner: CpuRunner, key: TagKey, device_key: DeviceKey
) -> None:
    """Even a swap of words that a plain sum would not see."""
    memory, size = Memory(3 * GROUP_BYTES), 3 * GROUP_BYTES
    span = Span(memory.address, size)

    def tag() -> bytes:
        (sums,) = fast_sums(runner, [span], device_key)
        return key.tag(SEAL_ID, pass_number=1, size_bytes=size, group_values=sums)

    before = tag()
    for offset in (0, 9, GROUP_BYTES - 1, GROUP_BYTES, size - 1):
        memory.flip(offset, bit=7)
        assert tag() != before
        memory.flip(offset, bit=7)
    assert tag() == before
    first, second = memory.bytes(GROUP_BYTES), memory.bytes(GROUP_BYTES, GROUP_BYTES)
    ctypes.memmove(memory.address, second + first, 2 * GROUP_BYTES)
    assert tag() != before


def test_the_key_on_the_device_is_wiped_with_its_pass(runner: CpuRunner, key: TagKey) -> None:
    """The runner overwrites what it takes back; asking twice does no harm."""
    device_key = DeviceKey(runner, key)
    device_key.wipe()
    device_key.wipe()
    assert (runner.wiped, runner.reserved) == ([True], {})


def test_a_key_that_does_not_reach_the_device_leaves_nothing_there(runner: CpuRunner) -> None:
    """A wiped key has nothing to write: what was reserved is given back."""
    key = TagKey.derive(bytearray(SEED))
    key.wipe()
    with pytest.raises(InvalidInputError, match="has been wiped"):
        DeviceKey(runner, key)
    assert runner.reserved == {}


def test_scratch_memory_is_given_back_when_a_launch_fails(
    runner: CpuRunner, memory: Memory, device_key: DeviceKey, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever the driver says."""
    held = set(runner.reserved)
    monkeypatch.setattr(runner, "launch", lambda launch: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        fast_sums(runner, [Span(memory.address, VALUE_BYTES)], device_key)
    assert set(runner.reserved) == held
