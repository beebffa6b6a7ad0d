"""How much memory the machine, or the cgroup that we live in, has available."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

_MEMINFO = Path("/proc/meminfo")
_MEMBERSHIP = Path("/proc/self/cgroup")
_HIERARCHY = Path("/sys/fs/cgroup")

# (limit, usage, the part of usage in memory.stat that the kernel gives up first) of cgroup v2 and v1.
_V2 = ("memory.max", "memory.current", "inactive_file")
_V1 = ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")


def available_bytes(
    *, meminfo: Path = _MEMINFO, membership: Path = _MEMBERSHIP, hierarchy: Path = _HIERARCHY
) -> int:
    """Bytes that can be allocated now without swapping: the least of the machine and every cgroup above us.

    ``meminfo``, ``membership`` and ``hierarchy`` are the kernel's files (proc_meminfo(5), cgroups(7)).
    """
    rooms = _cgroup_rooms(membership, hierarchy)
    return max(0, min(_machine_bytes(meminfo), *rooms, _INFINITY))


_INFINITY = 1 << 62


def _machine_bytes(meminfo: Path) -> int:
    for line in _lines(meminfo):
        if line.startswith("MemAvailable:"):
            return int(line.split()[1]) * 1024
    # No such file on macOS: all there is.
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def _cgroup_rooms(membership: Path, hierarchy: Path) -> Iterator[int]:
    for line in _lines(membership):
        number, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        if number == "0" and not controllers:
            # A machine with both versions has version 2 below "unified".
            for root in (hierarchy, hierarchy / "unified"):
                yield from _rooms(root, path, _V2)
        elif "memory" in controllers.split(","):
            yield from _rooms(hierarchy / "memory", path, _V1)


def _rooms(root: Path, path: str, names: tuple[str, str, str]) -> Iterator[int]:
    """What each group from ours up to the root has left; in a container only the root may be visible."""
    limit_name, usage_name, reclaimable_name = names
    group = root / path.strip("/")
    for directory in (group, *group.parents):
        limit, usage = _number(directory / limit_name), _number(directory / usage_name)
        if limit is not None and usage is not None:
            yield limit - usage + _reclaimable(directory / "memory.stat", reclaimable_name)
        if directory == root:
            return


def _reclaimable(stat: Path, name: str) -> int:
    for line in _lines(stat):
        key, _, value = line.partition(" ")
        if key == name and value.isdecimal():
            return int(value)
    return 0


def _number(path: Path) -> int | None:
    text = "".join(_lines(path)).strip()
    return int(text) if text.isdecimal() else None


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text("utf-8", "replace").splitlines()
    except OSError:
        return []
