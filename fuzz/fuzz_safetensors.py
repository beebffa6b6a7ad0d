"""Fuzz the safetensors parser: it refuses in its own words, or reads what the safetensors library reads.

``python fuzz/fuzz_safetensors.py --runs 100000 --seed 1``
"""

from __future__ import annotations

import random
import sys
from pathlib import Path

import safetensors

sys.path.insert(0, str(Path(__file__).parents[1]))

from mutation import mutate, run
from tests.hostile import good_safetensors
from tests.model_files import safetensors_file

from vram_residency.core.errors import MalformedModelError
from vram_residency.formats import MemorySource, parse

PIECES = (
    b"{",
    b"}",
    b"[",
    b"]",
    b",",
    b":",
    b'"',
    b"\\",
    b"\\u0000",
    b"\\ud800",
    b"0",
    b"1",
    b"-",
    b".",
    b"e9",
    b" ",
)
PIECES += (
    b'"a":',
    b'"dtype":"F4",',
    b'"shape":[0],',
    b'"data_offsets":[0,0]',
    b'"__metadata__":{},',
    b"null",
    b"NaN",
)
PIECES += (b"\xff", b"\xed\xa0\x80", b"\xf0\x9f\x98\x80", b"99999999999999999999")


def make(chance: random.Random) -> bytes:
    """Mostly a changed header with a true length; sometimes any change of the file."""
    good = good_safetensors()
    if chance.randrange(10) == 0:
        return mutate(chance, good, PIECES)
    end = 8 + int.from_bytes(good[:8], "little")
    return safetensors_file(mutate(chance, good[8:end], PIECES), good[end:])


def check(data: bytes) -> bool:
    """Compare with the library; True if both accept."""
    try:
        layout = parse(MemorySource(data), name="m.safetensors")
    except MalformedModelError:
        return False
    ours = {t.name: (t.dtype, list(t.shape), data[t.start : t.end]) for t in layout.tensors}
    theirs = {n: (t["dtype"], t["shape"], bytes(t["data"])) for n, t in safetensors.deserialize(data)}
    if ours != theirs:
        raise AssertionError(f"{ours} is not {theirs}")
    return True


if __name__ == "__main__":
    run(make, check)
