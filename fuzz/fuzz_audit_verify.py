"""Fuzz the verification of audit logs: malformed lines and directories.

Whatever lies in the directory, ``verify`` gives one of the six verdicts or refuses with an error of ours;
a log whose bytes differ from the written ones is never called intact by the key that wrote it.

    python fuzz/fuzz_audit_verify.py --runs 10000 --seed 7
"""

from __future__ import annotations

import argparse
import contextlib
import random
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from tests.independent_log import LogMaker

from vram_residency.audit.reading.query import query
from vram_residency.audit.reading.verdict import EXIT_CODES, Verdict
from vram_residency.audit.reading.verification import verify
from vram_residency.core.errors import VramError

Mutation = Callable[[random.Random, bytes], bytes]

_SCRAPS = (
    b"",
    b"\n",
    b"\x00",
    b"\xff\xfe",
    b"{}",
    b"null",
    b"1e999",
    b"-0",
    b"9" * 400,
    b"[" * 3000,
    b'{"a":' * 3000,
    b'"\\ud800"',
    b',"mac":"' + b"0" * 64 + b'"}',
    b'"index":0',
    b'"event_type":"epoch_closed"',
    b"\xe2\x80\x94 ",
    b"x" * 70_000,
)


def _flip(rng: random.Random, data: bytes) -> bytes:
    where = rng.randrange(len(data))
    return data[:where] + bytes([data[where] ^ (1 << rng.randrange(8))]) + data[where + 1 :]


def _cut(rng: random.Random, data: bytes) -> bytes:
    return data[: rng.randrange(len(data))]


def _insert(rng: random.Random, data: bytes) -> bytes:
    where = rng.randrange(len(data) + 1)
    return data[:where] + rng.choice(_SCRAPS) + data[where:]


def _replace(rng: random.Random, data: bytes) -> bytes:
    start = rng.randrange(len(data))
    return data[:start] + rng.choice(_SCRAPS) + data[start + rng.randrange(1, 80) :]


def _shuffle(rng: random.Random, data: bytes) -> bytes:
    lines = data.split(b"\n")
    rng.shuffle(lines)
    return b"\n".join(lines)


def _repeat(rng: random.Random, data: bytes) -> bytes:
    lines = data.split(b"\n")
    lines.insert(rng.randrange(len(lines)), rng.choice(lines))
    return b"\n".join(lines)


def _nothing(rng: random.Random, data: bytes) -> bytes:
    del rng, data
    return b""


_MUTATIONS: tuple[Mutation, ...] = (_flip, _flip, _cut, _insert, _replace, _shuffle, _repeat, _nothing)


def run_one(rng: random.Random, folder: Path) -> Verdict | None:
    """One log, damaged or with strange but authentic lines; its verdict, or None where it was refused."""
    maker = _make(rng)
    size = rng.randrange(len(maker.lines) + 1)
    cut = _record_pruning(rng, maker)
    is_pruned = bool(cut) and bool(rng.randrange(4))
    directory = maker.write(
        folder / "log",
        size=len(maker.lines) if is_pruned else size,
        segments=(0, cut) if cut else (0,),
        pruned=(0,) if is_pruned else (),
    )
    changed = _damage(rng, directory)
    keys = rng.choice(
        ({}, {"vkey": maker.vkey}, {"mac_key": maker.k0}, {"vkey": maker.vkey, "mac_key": maker.k0})
    )
    with contextlib.suppress(VramError):
        list(query(directory, event="vram.sealed", since="2020-01-01"))
    try:
        verdict = verify(directory, **keys)
    except VramError:
        return None
    if verdict.verdict not in EXIT_CODES:
        raise AssertionError(f"no verdict: {verdict}")
    if changed and verdict and "mac_key" in keys and verdict.tree_size == len(maker.lines):
        raise AssertionError(f"damage to {changed} was not seen: {verdict}")
    return verdict


def _make(rng: random.Random) -> LogMaker:
    maker = LogMaker()
    maker.open()
    for _ in range(rng.randrange(6)):
        match rng.randrange(8):
            case 0:
                maker.end_epoch()
            case 1:  # any bytes under a right mac: what a broken or hostile writer could sign
                body = _insert(rng, maker.lines[-1][:-74])
                maker.append_body(body.replace(b"\n", b" "))
            case _:
                maker.seal(rng.randrange(1000))
    if rng.getrandbits(1):
        maker.close()
    return maker


def _record_pruning(rng: random.Random, maker: LogMaker) -> int:
    """Let a record that may lie say that the first entries may go; where the rest begins, or 0."""
    cut = rng.randrange(len(maker.lines)) if rng.getrandbits(1) else 0
    if cut:
        lies = {
            "next_epoch": rng.choice((0, 1, 2**62)),
            "last_mac": "ab" * 32,
            "root_hash": "",
            "first_index": 1,
        }
        name = rng.choice((*lies, *("",) * 8))
        maker.record_pruning(cut, wrong={name: lies[name]} if name else {})
    return cut


def _damage(rng: random.Random, directory: Path) -> str | None:
    """Change one file, or none. The name where entries were changed."""
    files = [path for path in directory.rglob("*") if path.is_file()]
    path = rng.choice(sorted(path for path in files if path.stat().st_size))
    name = str(path.relative_to(directory))
    data = path.read_bytes()
    if not rng.randrange(10):
        path.unlink()
        return None
    after = rng.choice(_MUTATIONS)(rng, data)
    path.write_bytes(after)
    return name if after != data and name.startswith("entries") else None


def main() -> None:
    """Run until ``--runs`` are done; any exception is a find, and the seed names it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    counts: dict[str, int] = {}
    for number in range(arguments.runs):
        seed = arguments.seed + number
        with tempfile.TemporaryDirectory() as folder:
            try:
                verdict = run_one(random.Random(seed), Path(folder))
            except BaseException:
                print(f"seed {seed}")
                raise
        word = "refused" if verdict is None else verdict.verdict
        counts[word] = counts.get(word, 0) + 1
    print(", ".join(f"{word} {count}" for word, count in sorted(counts.items())))


if __name__ == "__main__":
    main()
