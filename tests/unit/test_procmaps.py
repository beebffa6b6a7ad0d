"""Reading /proc/<pid>/maps: which mappings hold a range of addresses."""

from __future__ import annotations

import mmap
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vram_residency.device.kernel import address_of
from vram_residency.device.procmaps import Range, ranges_from

MAPS = b"""\
55d0c8a00000-55d0c8a02000 r--p 00000000 08:01 1234 /usr/bin/some program
7f0000000000-7f0000004000 r--s 00000000 00:01 77 /memfd:vram:a (deleted)
7f0000004000-7f0000008000 r--s 00004000 00:01 77 /memfd:vram:a (deleted)
7f0000009000-7f000000a000 rw-p 00000000 00:00 0
ffffffffff600000-ffffffffff601000 --xp 00000000 00:00 0 [vsyscall]
"""
FIRST = Range(0x7F0000000000, 0x7F0000004000, "r--s", 0, "00:01", 77)
SECOND = Range(0x7F0000004000, 0x7F0000008000, "r--s", 0x4000, "00:01", 77)


@pytest.mark.parametrize(
    ("start", "size", "expected"),
    [
        (0x7F0000000000, 0x4000, [FIRST]),
        (0x7F0000000000, 0x3FFF, [FIRST]),
        (0x7F0000000000, 0x4001, [FIRST, SECOND]),
        (0x7F0000000000, 0x8000, [FIRST, SECOND]),
        (0x7F0000000000, 0x8001, []),
        (0x7F0000001000, 0x1000, []),
        (0x7F0000008000, 0x1000, []),
        (0x55D0C8A00000, 1, [Range(0x55D0C8A00000, 0x55D0C8A02000, "r--p", 0, "08:01", 1234)]),
        (0xFFFFFFFFFF600000, 0x1000, [Range(0xFFFFFFFFFF600000, 0xFFFFFFFFFF601000, "--xp", 0, "00:00", 0)]),
        (0xFFFFFFFFFF600000, 0x1001, []),
    ],
)
def test_the_mappings_that_hold_a_range(start: int, size: int, expected: list[Range]) -> None:
    """All of them, in order; none where there is a gap or where none begins at the start."""
    assert ranges_from(MAPS, start, size) == expected


def test_small_addresses_are_padded() -> None:
    """The kernel writes at least eight digits."""
    assert ranges_from(b"00010000-00020000 r--p 00000000 00:00 0\n", 0x10000, 0x10000)[0].end == 0x20000


@given(st.binary(), st.integers(0, 1 << 64), st.integers(1, 1 << 40))
def test_any_bytes_are_survived(maps: bytes, start: int, size: int) -> None:
    """Total: a list, whatever is read."""
    assert isinstance(ranges_from(maps, start, size), list)


@given(st.binary(max_size=60))
def test_a_broken_line_holds_nothing(rest: bytes) -> None:
    """A line that begins well and goes on badly is no mapping that holds two pages."""
    assert ranges_from(b"7f0000000000-" + rest, 0x7F0000000000, 1 << 60) == []


def test_a_mapping_of_this_process_is_found() -> None:
    """The kernel's own file, not only our picture of it."""
    with mmap.mmap(-1, 4 * mmap.PAGESIZE) as mapping:
        address = address_of(mapping)
        found = ranges_from(Path("/proc/self/maps").read_bytes(), address, len(mapping))
    assert [(part.start, part.permissions) for part in found] == [(address, "rw-s")]
