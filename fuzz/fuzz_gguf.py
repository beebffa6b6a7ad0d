"""Fuzz the GGUF parser: it refuses in its own words, or reads what the gguf library reads.

``python fuzz/fuzz_gguf.py --runs 100000 --seed 1``
The library sees only what we accepted: its reader hangs on some hostile files.
"""

from __future__ import annotations

import random
import struct
import sys
import tempfile
from pathlib import Path

from gguf import GGUFReader

sys.path.insert(0, str(Path(__file__).parents[1]))

from mutation import mutate, run
from tests.hostile import good_gguf
from tests.model_files import gguf_array, gguf_info, gguf_pair, gguf_string

from vram_residency.core.errors import MalformedModelError
from vram_residency.formats import MemorySource, parse

PIECES = (
    gguf_string("a"),
    gguf_pair("b", 8, gguf_string("c")),
    gguf_pair("d", 9, gguf_array(4, 2, bytes(8))),
)
PIECES += (gguf_array(9, 1, gguf_array(0, 1, b"\0")), gguf_info("e", [8], 0, 96), gguf_info("f", [], 0, 0))
PIECES += (struct.pack("<Q", 0), struct.pack("<Q", 32), b"\xff", b"GGUF", bytes(32))


def make(chance: random.Random) -> bytes:
    """A changed file; often with its first 24 bytes (magic, version, counts) left alone."""
    good = good_gguf()
    kept = chance.choice((24, 24, 24, 24, 0))
    return good[:kept] + mutate(chance, good[kept:], PIECES)


def check(data: bytes) -> bool:
    """Compare with the library; True if both accept."""
    if not data:
        return False
    try:
        layout = parse(MemorySource(data), name="m.gguf")
    except MalformedModelError:
        return False
    ours = sorted((t.name, t.dtype, t.shape, t.start, t.end) for t in layout.tensors)
    with tempfile.NamedTemporaryFile() as file:
        file.write(data)
        file.flush()
        theirs = sorted(
            (
                t.name,
                t.tensor_type.name,
                tuple(map(int, reversed(t.shape))),
                t.data_offset,
                t.data_offset + t.n_bytes,
            )
            for t in GGUFReader(file.name).tensors
        )
    if ours != theirs:
        raise AssertionError(f"{ours} is not {theirs}")
    return True


if __name__ == "__main__":
    run(make, check)
