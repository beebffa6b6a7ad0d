"""What the machine and its cgroups have available, from files as the kernel writes them."""

from __future__ import annotations

from pathlib import Path

import pytest

from vram_residency.device.capacity import available_bytes

MIB = 1 << 20


class Kernel:
    """The kernel's files in a directory."""

    def __init__(self, root: Path) -> None:
        self.meminfo = root / "meminfo"
        self.membership = root / "cgroup"
        self.hierarchy = root / "sys"
        self.meminfo.write_text("MemTotal:  9999 kB\nMemFree:  1 kB\nMemAvailable:    1048576 kB\n")

    def group(self, path: str, names: tuple[str, str], values: tuple[object, object], stat: str = "") -> None:
        directory = self.hierarchy / path
        directory.mkdir(parents=True, exist_ok=True)
        for name, value in zip(names, values, strict=True):
            (directory / name).write_text(f"{value}\n")
        (directory / "memory.stat").write_text(stat)

    def available(self) -> int:
        return available_bytes(meminfo=self.meminfo, membership=self.membership, hierarchy=self.hierarchy)


V2 = ("memory.max", "memory.current")
V1 = ("memory.limit_in_bytes", "memory.usage_in_bytes")


@pytest.fixture
def kernel(tmp_path: Path) -> Kernel:
    return Kernel(tmp_path)


def test_without_cgroups_it_is_what_the_machine_has_available(kernel: Kernel) -> None:
    """MemAvailable, in kB."""
    assert kernel.available() == 1024 * MIB


def test_a_v2_group_counts_what_is_left_of_its_limit(kernel: Kernel) -> None:
    """Its limit less its usage, without the page cache that goes first."""
    kernel.membership.write_text("0::/a/b\n")
    stat = f"anon 5\ninactive_file {30 * MIB}\nactive_file 7\n"
    kernel.group("a/b", V2, (300 * MIB, 100 * MIB), stat)
    assert kernel.available() == 230 * MIB


def test_a_parent_of_the_group_may_be_tighter(kernel: Kernel) -> None:
    """Every level limits; "max" does not."""
    kernel.membership.write_text("0::/a/b\n")
    kernel.group("a/b", V2, ("max", 100 * MIB))
    kernel.group("a", V2, (150 * MIB, 100 * MIB))
    assert kernel.available() == 50 * MIB


def test_a_v1_group_counts_as_well(kernel: Kernel) -> None:
    """The memory controller's own hierarchy."""
    kernel.membership.write_text("9:name=systemd:/\n4:cpu,memory:/x/y\n0::/\n")
    kernel.group("memory/x/y", V1, (200 * MIB, 150 * MIB), f"total_inactive_file {10 * MIB}\n")
    kernel.group("memory", V1, (1 << 62, 1 << 30))
    assert kernel.available() == 60 * MIB


def test_in_a_container_the_root_alone_may_be_visible(kernel: Kernel) -> None:
    """/proc names a path of the host that does not exist here; the mount's root is our group."""
    kernel.membership.write_text("4:memory:/docker/0123\n0::/system.slice/docker-0123.scope\n")
    kernel.group("memory", V1, (90 * MIB, 10 * MIB))
    assert kernel.available() == 80 * MIB
    kernel.group(".", V2, (40 * MIB, 10 * MIB))
    assert kernel.available() == 30 * MIB


def test_a_machine_with_both_versions_has_v2_below_unified(kernel: Kernel) -> None:
    """The hybrid layout of systemd."""
    kernel.membership.write_text("0::/s\n")
    kernel.group("unified/s", V2, (70 * MIB, 10 * MIB))
    assert kernel.available() == 60 * MIB


def test_a_group_over_its_limit_has_nothing_left(kernel: Kernel) -> None:
    """Never less than nothing."""
    kernel.membership.write_text("0::/\n")
    kernel.group(".", V2, (10 * MIB, 20 * MIB))
    assert kernel.available() == 0


@pytest.mark.parametrize("text", ["", "nonsense\n", "0:\n", "::::\n", "4:memory\n", "\xff\n"])
def test_nonsense_limits_nothing(kernel: Kernel, text: str) -> None:
    """What cannot be read is not a limit."""
    kernel.membership.write_text(text)
    assert kernel.available() == 1024 * MIB


def test_without_meminfo_it_is_the_machine_s_memory(kernel: Kernel) -> None:
    """As on macOS."""
    kernel.meminfo.unlink()
    assert kernel.available() > 64 * MIB


def test_this_machine_has_some(tmp_path: Path) -> None:
    """The real files."""
    assert 0 < available_bytes() < 1 << 62
