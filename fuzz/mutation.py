"""Seeded changes to valid files, and the loop that feeds them to a parser."""

from __future__ import annotations

import argparse
import random
import time
from collections import Counter
from collections.abc import Callable, Sequence

NUMBERS = (0, 1, 2, 3, 7, 8, 9, 10, 12, 13, 31, 32, 33, 64, 127, 128, 255, 256, 65535, 65536, 65537)
NUMBERS += (2**31 - 1, 2**31, 2**32 - 1, 2**32, 2**53, 2**63 - 1, 2**63, 2**64 - 1)


def _flip(chance: random.Random, data: bytearray, _: Sequence[bytes]) -> None:
    if data:
        data[chance.randrange(len(data))] ^= 1 << chance.randrange(8)


def _overwrite(chance: random.Random, data: bytearray, _: Sequence[bytes]) -> None:
    at, length = _place(chance, data)
    data[at : at + length] = chance.randbytes(length)


def _set_number(chance: random.Random, data: bytearray, _: Sequence[bytes]) -> None:
    at, _length = _place(chance, data)
    width = chance.choice((1, 2, 4, 8))
    data[at : at + width] = (chance.choice(NUMBERS) % 2 ** (8 * width)).to_bytes(width, "little")


def _insert_piece(chance: random.Random, data: bytearray, pieces: Sequence[bytes]) -> None:
    at, _ = _place(chance, data)
    data[at:at] = chance.choice(pieces)


def _set_piece(chance: random.Random, data: bytearray, pieces: Sequence[bytes]) -> None:
    at, _ = _place(chance, data)
    piece = chance.choice(pieces)
    data[at : at + len(piece)] = piece


def _double(chance: random.Random, data: bytearray, _: Sequence[bytes]) -> None:
    at, length = _place(chance, data)
    data[at:at] = data[at : at + length]


def _remove(chance: random.Random, data: bytearray, _: Sequence[bytes]) -> None:
    at, length = _place(chance, data)
    del data[at : at + length]


def _place(chance: random.Random, data: bytearray) -> tuple[int, int]:
    return chance.randint(0, len(data)), chance.choice((1, 1, 2, 4, 8, chance.randint(1, 64)))


_EDITS = (_flip, _overwrite, _set_number, _insert_piece, _set_piece, _double, _remove)


def mutate(chance: random.Random, data: bytes, pieces: Sequence[bytes]) -> bytes:
    """Make one to six changes of any kind; ``pieces`` are fragments that mean something to the format."""
    changed = bytearray(data)
    for _ in range(chance.randint(1, 6)):
        chance.choice(_EDITS)(chance, changed, pieces)
    return bytes(changed)


Target = tuple[bytes, Callable[[bytes], bool], type[ValueError]]
Make = Callable[[random.Random], bytes]
Check = Callable[[bytes], bool]


def of_many(targets: Sequence[Target], pieces: Sequence[bytes]) -> tuple[Make, Check]:
    """One fuzz target of several small parsers, each a good input, a parser, and the error of its refusals.

    A parser says whether what it read prints, or means, the same again; an input begins with its number.
    """

    def make(chance: random.Random) -> bytes:
        number = chance.randrange(len(targets))
        good = targets[number][0]
        return bytes([number]) + (good if chance.randrange(10) == 0 else mutate(chance, good, pieces))

    def check(data: bytes) -> bool:
        _, agrees, refusal = targets[data[0]]
        try:
            is_same = agrees(data[1:])
        except refusal:
            return False
        if not is_same:
            raise AssertionError("what was read means something else")
        return True

    return make, check


def run(make: Callable[[random.Random], bytes], check: Callable[[bytes], bool]) -> None:
    """The command line of a target: ``--runs N --seed S``, or ``--seconds T`` for a long run.

    ``check`` says whether the file was accepted; whatever it raises ends the run, with the seed that
    repeats it.
    """
    parser = argparse.ArgumentParser()
    parser.add_argument("--runs", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--seconds", type=float, default=None)
    options = parser.parse_args()
    end = None if options.seconds is None else time.monotonic() + options.seconds
    seen: Counter[bool] = Counter()
    seed = options.seed
    while (seed < options.seed + options.runs) if end is None else (time.monotonic() < end):
        data = make(random.Random(seed))
        try:
            seen[check(data)] += 1
        except BaseException:
            print(f"--seed {seed} --runs 1 repeats this; the file: {data[:2000]!r}")
            raise
        seed += 1
    print(f"{seed - options.seed} files: {seen[True]} accepted, {seen[False]} refused")
