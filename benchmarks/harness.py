"""What every benchmark shares: contenders run in turns on the same input, a plain table, and JSON.

Contenders take turns, so that a busy moment of the machine hits all of them; each is judged by its best
round, since other work only ever adds. Quote ratios of one run, never seconds of two.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

MIB = 1 << 20
GB = 1e9

#: Returns the seconds that count where not all of its work does.
Work = Callable[[], float | None]


class Contender(NamedTuple):
    """One way to do the job. ``size_bytes`` is the work of one round where it differs from the others'."""

    name: str
    work: Work
    size_bytes: int | None = None


class Result(NamedTuple):
    """The rounds of one contender."""

    name: str
    size_bytes: int
    seconds: list[float]

    @property
    def best_gb_per_s(self) -> float:
        """Of the best round."""
        return self.size_bytes / min(self.seconds) / GB

    @property
    def median_gb_per_s(self) -> float:
        """Of the round in the middle."""
        return self.size_bytes / statistics.median(self.seconds) / GB


class Options(NamedTuple):
    """What the command line of every benchmark asks."""

    size_bytes: int
    rounds: int
    as_json: bool


def options(description: str | None) -> Options:
    """Read ``--size-mb``, ``--rounds`` and ``--json``; what else stands there is left alone."""
    parser = argparse.ArgumentParser(description=(description or "").partition("\n")[0])
    parser.add_argument("--size-mb", type=int, default=1024, help="size of the input in MiB")
    parser.add_argument("--rounds", type=int, default=5, help="rounds for each contender")
    parser.add_argument("--json", action="store_true", help="print one JSON document")
    found, _ = parser.parse_known_args()
    return Options(found.size_mb * MIB, found.rounds, found.json)


def machine() -> dict[str, object]:
    """What the figures depend on, without naming the machine."""
    pages = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return {
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "memory_gb": round(pages / GB),
        "architecture": platform.machine(),
        "kernel": ".".join(platform.release().split(".")[:2]),
        "python": platform.python_version(),
        "load": round(os.getloadavg()[0], 1),
    }


@contextmanager
def random_file(size_bytes: int) -> Iterator[Path]:
    """A file of random bytes, in the page cache."""
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "input.bin"
        with path.open("wb") as file:
            for start in range(0, size_bytes, MIB):
                file.write(os.urandom(min(MIB, size_bytes - start)))
        yield path


def memory_copy(size_bytes: int = 256 * MIB) -> Contender:
    """One thread copies memory that is already there: the bound of anything that reads bytes."""
    source, target = os.urandom(size_bytes), memoryview(bytearray(size_bytes))

    def copy() -> None:
        target[:] = source

    return Contender("memory copy (bound)", copy, size_bytes)


def race(contenders: Sequence[Contender], *, size_bytes: int, rounds: int) -> list[Result]:
    """Run every contender ``rounds`` times, in turns, after one round that does not count."""
    results = [Result(each.name, each.size_bytes or size_bytes, []) for each in contenders]
    for round_number in range(rounds + 1):
        for contender, result in zip(contenders, results, strict=True):
            started = time.perf_counter()
            counted = contender.work()
            seconds = time.perf_counter() - started if counted is None else counted
            if round_number:
                result.seconds.append(seconds)
    return results


def report(question: str, results: Sequence[Result], *, reference: str, as_json: bool = False) -> None:
    """Print rates and their ratio to ``reference``, one of the results."""
    base = next(result.best_gb_per_s for result in results if result.name == reference)
    if as_json:
        rows = [
            {
                "name": result.name,
                "best_gb_per_s": round(result.best_gb_per_s, 3),
                "median_gb_per_s": round(result.median_gb_per_s, 3),
                "ratio": round(result.best_gb_per_s / base, 3),
                "seconds": [round(value, 4) for value in result.seconds],
            }
            for result in results
        ]
        document = {"question": question, "machine": machine(), "reference": reference, "results": rows}
        print(json.dumps(document))
        return
    width = max(len(result.name) for result in results)
    print(question)
    print("  " + ", ".join(f"{key} {value}" for key, value in machine().items()))
    print(f"  {'':{width}}  GB/s best  median  ratio to {reference}")
    for result in results:
        best, median = result.best_gb_per_s, result.median_gb_per_s
        print(f"  {result.name:{width}}  {best:9.2f}  {median:6.2f}  {best / base:.2f}")
