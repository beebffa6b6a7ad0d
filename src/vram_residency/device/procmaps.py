"""/proc/<pid>/maps: what the kernel says lies at an address (proc_pid_maps(5)). Pure."""

from __future__ import annotations

from typing import NamedTuple

_FIELDS = 5


class Range(NamedTuple):
    """One line: an address range [start, end) of one mapping. ``device`` is ``major:minor`` in hex."""

    start: int
    end: int
    permissions: str
    offset: int
    device: str
    inode: int


def ranges_from(maps: bytes, start: int, size_bytes: int) -> list[Range]:
    """The mappings from ``start`` on that together hold ``[start, start + size_bytes)``.

    Empty where no mapping begins exactly at ``start`` or where there is a gap. The last may go on beyond.
    """
    found: list[Range] = []
    position, end = start, start + size_bytes
    # Only our own lines are parsed: a process with a GPU framework in it has thousands.
    at = _line_at(maps, start)
    while position < end:
        line = _parse(maps, at)
        if line is None or line.start != position:
            return []
        found.append(line)
        position = line.end
        at = maps.find(b"\n", at) + 1
    return found


def _line_at(maps: bytes, start: int) -> int:
    key = b"%08x-" % start
    if maps.startswith(key):
        return 0
    at = maps.find(b"\n" + key)
    return len(maps) if at < 0 else at + 1


def _parse(maps: bytes, at: int) -> Range | None:
    line = maps[at : maps.find(b"\n", at)] if 0 <= at < len(maps) else b""
    parts = line.split(maxsplit=_FIELDS)
    if len(parts) < _FIELDS:
        return None
    start, _, end = parts[0].partition(b"-")
    try:
        return Range(
            int(start, 16),
            int(end, 16),
            parts[1].decode(),
            int(parts[2], 16),
            parts[3].decode(),
            int(parts[4]),
        )
    except ValueError:
        return None
