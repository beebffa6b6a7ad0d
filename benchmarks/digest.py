"""How fast are digests of memory and files, beside hashlib, the blake3 wheel and model_signing?

The bars: checking sealed memory at 0.95 of the wheel over the same bytes, and 6 times model_signing. The
bound is a memory copy by one thread.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from benchmarks.harness import MIB, Contender, memory_copy, options, race, random_file, report
from blake3 import blake3

from vram_residency.device.base import SealedMemory
from vram_residency.device.host import HostDevice
from vram_residency.digest import host
from vram_residency.digest.groups import group_values
from vram_residency.formats.source import FileSource

REFERENCE = "blake3 wheel, memory"
PEER_BYTES = 256 * MIB


@contextmanager
def sealed_memory(path: Path) -> Iterator[SealedMemory]:
    """The file in sealed memory of the host device."""
    with FileSource(path) as source:
        memory = HostDevice(capacity_bytes=source.size_bytes).allocate(source.size_bytes, label="benchmark")
        memory.fill(source)
    sealed = memory.seal()
    yield sealed
    sealed.free()


def check(sealed: SealedMemory) -> None:
    """What a full verification reads: the residency facts, then every byte."""
    if sealed.check() is not None:
        raise SystemExit("the benchmark's memory is not what was sealed")
    with sealed.view() as view:
        host.digest(view)


def model_signing_contender(path: Path) -> Contender | None:
    """model_signing's API as it comes: SHA-256 of the file; None where it is not installed."""
    try:
        from model_signing import hashing
    except ImportError:
        return None
    return Contender("model_signing API", lambda: hashing.hash(path.parent) and None)


def contenders(path: Path, sealed: SealedMemory, view: memoryview) -> list[Contender]:
    """Ours first, then the peers; slow ones on a part of the bytes."""
    part = view[:PEER_BYTES]
    found = [
        Contender("ours, sealed memory", lambda: check(sealed)),
        Contender("ours, group values", lambda: group_values(view) and None),
        Contender("ours, file", lambda: host.digest_file(path) and None),
        Contender(REFERENCE, lambda: blake3(view, max_threads=blake3.AUTO).digest() and None),
        Contender("blake3 wheel, one thread", lambda: blake3(view).digest() and None),
        Contender("hashlib sha256", lambda: hashlib.sha256(part).digest() and None, len(part)),
        model_signing_contender(path),
        memory_copy(),
    ]
    return [each for each in found if each is not None]


def main() -> None:
    """Race them."""
    chosen = options(__doc__)
    with (
        random_file(chosen.size_bytes) as path,
        sealed_memory(path) as sealed,
        sealed.view() as view,
    ):
        racing = contenders(path, sealed, view)
        results = race(racing, size_bytes=chosen.size_bytes, rounds=chosen.rounds)
        # The views that the contenders hold end with them, before the memory is freed.
        racing.clear()
    report("Digests of memory and files", results, reference=REFERENCE, as_json=chosen.as_json)


if __name__ == "__main__":
    main()
