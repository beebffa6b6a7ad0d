"""Values of groups: BLAKE3 of each 128 KiB of the bytes (residency.md section 3).

They place damage, allow sampling, and stay private to the manager; their own digest is signed.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor

from vram_residency.core.errors import InvalidInputError
from vram_residency.digest.value import GROUP_BYTES, VALUE_BYTES, group_count

# Groups that one thread hashes at a time: 4 MiB, about half a millisecond.
_BATCH = 32
_THREADS_MAX = 16


class GroupCollector:
    """Takes bytes in order, in runs of whole groups (but for the last), and keeps the groups' values.

    An observer for ``OpenMemory.fill``: the values are then ready when the copying is.
    """

    def __init__(self) -> None:
        self._values = bytearray()
        self._is_ended = False

    def __call__(self, run: memoryview) -> None:
        """Take the next run. Raises InvalidInputError after a run that ended inside a group."""
        if self._is_ended:
            raise InvalidInputError("run", "follows one that ended inside a group")
        self._is_ended = run.nbytes % GROUP_BYTES != 0
        self._values += _values_of(run, range(group_count(run.nbytes)))

    def group_values(self) -> bytes:
        """The values so far."""
        return bytes(self._values)


def group_values(view: memoryview) -> bytes:
    """VALUE_BYTES for each group of ``view``, in order."""
    return b"".join(_in_threads(view, range(group_count(view.nbytes))))


def groups_digest(values: bytes) -> str:
    """The digest of a shard's group values, a part of its signed statement."""
    from blake3 import blake3

    return f"blake3:{blake3(values).hexdigest()}"


def bad_groups(view: memoryview, values: bytes, indices: Sequence[int]) -> list[int]:
    """Those of ``indices`` whose group no longer has its value. Raises InvalidInputError on other sizes."""
    _require_values_of(view, values)
    actual = b"".join(_in_threads(view, indices))
    return [
        index for position, index in enumerate(indices) if _value(actual, position) != _value(values, index)
    ]


def damaged_ranges(view: memoryview, values: bytes) -> list[tuple[int, int]]:
    """Byte ranges [start, end) of the groups that changed; neighbours are one range.

    Raises InvalidInputError where ``values`` belong to another number of bytes.
    """
    ranges: list[tuple[int, int]] = []
    for index in bad_groups(view, values, range(group_count(view.nbytes))):
        start, end = index * GROUP_BYTES, min((index + 1) * GROUP_BYTES, view.nbytes)
        if ranges and ranges[-1][1] == start:
            start = ranges.pop()[0]
        ranges.append((start, end))
    return ranges


def thread_count() -> int:
    """Threads that can run at the same time here."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(cores, _THREADS_MAX)


def _in_threads(view: memoryview, indices: Sequence[int]) -> Iterable[bytes]:
    batches = [indices[start : start + _BATCH] for start in range(0, len(indices), _BATCH)]
    threads = min(thread_count(), len(batches))
    work: Callable[[Sequence[int]], bytes] = lambda batch: _values_of(view, batch)  # noqa: E731
    if threads < 2:  # noqa: PLR2004 - one thread is this one
        return [work(batch) for batch in batches]
    with ThreadPoolExecutor(threads, thread_name_prefix="vram-groups") as pool:
        return list(pool.map(work, batches))


def _values_of(view: memoryview, indices: Iterable[int]) -> bytes:
    from blake3 import blake3

    return b"".join(
        blake3(view[index * GROUP_BYTES : (index + 1) * GROUP_BYTES]).digest() for index in indices
    )


def _value(values: bytes, index: int) -> bytes:
    return values[index * VALUE_BYTES : (index + 1) * VALUE_BYTES]


def _require_values_of(view: memoryview, values: bytes) -> None:
    wanted = VALUE_BYTES * group_count(view.nbytes)
    if len(values) != wanted:
        raise InvalidInputError("group_values", f"has {len(values)} bytes where the memory needs {wanted}")
