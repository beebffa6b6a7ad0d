"""How fast does a file become a measured, sealed shard, beside the least that anybody must do?

The reference is the bar of the project: fill a fresh memfd by plain 1 MiB writes, then BLAKE3 of it. Ours
adds the kernel's seals, locked pages, group values of every 128 KiB, and facts read back; the bar is
1.2 times the reference's time (a ratio of 0.83). Freeing the memory is not counted for anybody.
"""

from __future__ import annotations

import mmap
import os
import time
from pathlib import Path

from benchmarks.harness import MIB, Contender, memory_copy, options, race, random_file, report
from blake3 import blake3

from vram_residency.device.host import HostDevice
from vram_residency.digest.groups import GroupCollector, group_values, groups_digest
from vram_residency.digest.host import digest
from vram_residency.formats.source import FileSource

REFERENCE = "memfd + blake3"


def filled_memfd(fd: int, size_bytes: int) -> int:
    """A memfd written from a file, 1 MiB at a time."""
    memory = os.memfd_create("plain")
    with mmap.mmap(-1, MIB) as buffer, memoryview(buffer) as whole:
        done = 0
        while done < size_bytes:
            count = os.preadv(fd, [whole], done)
            os.write(memory, whole[:count])
            done += count
    return memory


def plain(path: Path, *, hashed: bool) -> float:
    """Fill, map, hash; the seconds without freeing."""
    with path.open("rb") as file:
        size_bytes = os.fstat(file.fileno()).st_size
        started = time.perf_counter()
        memory = filled_memfd(file.fileno(), size_bytes)
        with mmap.mmap(memory, size_bytes, prot=mmap.PROT_READ) as mapping:
            if hashed:
                blake3(mapping, max_threads=blake3.AUTO).digest()
            seconds = time.perf_counter() - started
    os.close(memory)
    return seconds


def ours(device: HostDevice, path: Path, *, observed: bool) -> float:
    """What a seal does between the open file and the signature; the seconds without freeing."""
    collector = GroupCollector()
    with FileSource(path) as source:
        started = time.perf_counter()
        memory = device.allocate(source.size_bytes, label="benchmark")
        memory.fill(source, observer=collector if observed else None)
        sealed = memory.seal()
        with sealed.view() as view:
            digest(view)
            groups_digest(collector.group_values() if observed else group_values(view))
        seconds = time.perf_counter() - started
    sealed.free()
    return seconds


def main() -> None:
    """Race them."""
    chosen = options(__doc__)
    with random_file(chosen.size_bytes) as path:
        device = HostDevice(capacity_bytes=2 * chosen.size_bytes)
        contenders = [
            Contender("memfd alone", lambda: plain(path, hashed=False)),
            Contender(REFERENCE, lambda: plain(path, hashed=True)),
            Contender("sealed and measured", lambda: ours(device, path, observed=True)),
            Contender("the same, groups last", lambda: ours(device, path, observed=False)),
            memory_copy(),
        ]
        results = race(contenders, size_bytes=chosen.size_bytes, rounds=chosen.rounds)
    report(
        "From a cached file to a sealed, measured shard", results, reference=REFERENCE, as_json=chosen.as_json
    )


if __name__ == "__main__":
    main()
