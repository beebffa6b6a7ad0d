"""How fast is an audit log verified and searched, and does that stay so as it grows?

Verification checks form, macs, numbering and tree of every entry. Beside it: SQLite holding the same lines
as a hash chain, read and recomputed (no form, no tree); pymerkle building its tree and proving that it still
holds what it held (where it is installed); and on one core the plain hashes that each entry needs. Bar:
500,000 entries/s on two cores, memory that does not grow.

    python -m benchmarks.verify_log --entries-max 1000000
"""

from __future__ import annotations

import argparse
import hashlib
import hmac
import json
import os
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path

from benchmarks.harness import machine
from tests.independent_log import LogMaker, leaf_of

from vram_residency.audit.format import chain, tree
from vram_residency.audit.reading.query import query

_EPOCH_ENTRIES = 100_000
_SEGMENT_ENTRIES = 260_000
_WAITING_MAX = 4096
_FIRST_ENTRIES = 10_000
_PEER_ENTRIES_MAX = 200_000
#: A process's own ru_maxrss counts the memory of whoever started it; VmHWM does not.
_VERIFY = """
import json, resource, sys, time
from vram_residency.audit import verify
started = time.perf_counter()
verdict = verify(sys.argv[1], vkey=sys.argv[2], mac_key=sys.argv[3], workers=int(sys.argv[4]) or None)
seconds = time.perf_counter() - started
assert verdict.verdict == "intact" and verdict.checked.mac and verdict.checked.tree, verdict
status = dict(line.split(":", 1) for line in open("/proc/self/status"))
children_kib = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
print(json.dumps([seconds, max(int(status["VmHWM"].split()[0]), children_kib)]))
"""


class Sink:
    """Takes lines as a list would and writes them to segments; keeps only the tree's frontier."""

    def __init__(self, entries: Path) -> None:
        self._entries = entries
        self._waiting: list[bytes] = []
        self._count = self._first = 0
        self._frontier = tree.Frontier()

    def __len__(self) -> int:
        return self._count

    def append(self, line: bytes) -> None:
        """One more line."""
        self._waiting.append(line)
        self._count += 1
        if len(self._waiting) >= _WAITING_MAX:
            self.flush()

    def flush(self) -> None:
        """What waits goes to the segment."""
        with self._path.open("ab") as file:
            file.writelines(line + b"\n" for line in self._waiting)
        self._frontier = self._frontier.extend(map(leaf_of, self._waiting))
        self._waiting.clear()

    def root(self) -> bytes:
        """The root of all lines."""
        self.flush()
        return self._frontier.root()

    def rotate(self) -> dict[str, object]:
        """Begin a segment; the facts of the one before."""
        self.flush()
        data = self._path.read_bytes()
        name, entries = self._path.name, self._count - self._first
        self._first = self._count
        digest = hashlib.sha256(data).hexdigest()
        return {"closed_segment": f"entries/{name}", "sha256": digest, "entries": entries}

    @property
    def _path(self) -> Path:
        return self._entries / f"{self._first:020}.jsonl"


class Maker(LogMaker):
    """Makes logs of any size in little memory."""

    def __init__(self, directory: Path) -> None:
        super().__init__()
        (directory / "entries").mkdir(parents=True)
        (directory / "log.json").write_bytes(self.config)
        self.lines = self.sink = Sink(directory / "entries")  # type: ignore[assignment]
        self._directory = directory
        self.step_s = 0.001

    def root(self, size: int | None = None) -> bytes:
        del size
        return self.sink.root()

    def make(self, entries: int) -> None:
        """So many entries, give or take those of the log's own."""
        self.open()
        step = timedelta(milliseconds=1)
        for number in range(entries):
            index = len(self.sink)
            if index % _SEGMENT_ENTRIES == 0:
                self.end_epoch()
                self.append("segment_rotated", **self.sink.rotate())
                index += 2
            elif index % _EPOCH_ENTRIES == 0:
                self.end_epoch()
                index += 1
            self.now += step
            self.append_body(
                f'{{"index":{index},"timestamp":"{self._timestamp()}","event_type":"vram_sealed",'
                f'"service_id":"{self.service_id}","audit_id":"{self.ident.hex()}-{index}",'
                f'"shard_id":"shard-{number}","gpu_device":0,"vram_bytes":1048576,'
                f'"digest":"blake3:{"ab" * 32}","worker_id":"worker-1"'.encode()
            )
        self.close()
        (self._directory / "checkpoint").write_bytes(self.checkpoint())


def lines_of(directory: Path, count: int) -> Iterator[bytes]:
    """The first lines of a log."""
    for path in sorted((directory / "entries").iterdir()):
        with path.open("rb") as file:
            for line in file:
                if count <= 0:
                    return
                count -= 1
                yield line[:-1]


def hashes_alone(lines: list[bytes], key: bytes) -> None:
    """Mac, leaf and node of each line: what nobody can do without."""
    macs = chain.MacChain(key).macs(bytes(32), [line[:-74] for line in lines])
    for leaf, mac in zip(tree.leaf_hashes_of(lines), macs, strict=True):
        hashlib.sha256(b"\x01" + leaf + mac).digest()


def sqlite_chain(path: Path, lines: list[bytes], key: bytes) -> Callable[[], None]:
    """A database of chained lines, and the check of its chain."""
    with sqlite3.connect(path) as database:
        database.execute("CREATE TABLE entries (id INTEGER PRIMARY KEY, line BLOB, mac BLOB)")
        mac = bytes(32)
        for number, line in enumerate(lines):
            mac = hmac.digest(key, mac + line, "sha256")
            database.execute("INSERT INTO entries VALUES (?, ?, ?)", (number, line, mac))

    def check() -> None:
        previous = bytes(32)
        with sqlite3.connect(path) as opened:
            for line, stated in opened.execute("SELECT line, mac FROM entries ORDER BY id"):
                previous = hmac.digest(key, previous + line, "sha256")
                if previous != stated:
                    raise AssertionError("the chain is broken")
        opened.close()

    return check


def pymerkle_tree(lines: list[bytes]) -> Callable[[], None] | None:
    """A tree of the same lines, and the proof that it still holds them."""
    try:
        from pymerkle import InmemoryTree, verify_consistency
    except ImportError:
        return None
    known = InmemoryTree(algorithm="sha256")
    known.append_entry(lines[0])
    size, root = known.get_size(), known.get_root()

    def check() -> None:
        again = InmemoryTree(algorithm="sha256")
        for line in lines:
            again.append_entry(line)
        verify_consistency(root, again.get_root(), again.prove_consistency(size, again.get_size()))

    return check


def seconds_of(work: Callable[[], object], rounds: int) -> float:
    """The best round."""
    best = float("inf")
    for _ in range(rounds):
        started = time.perf_counter()
        work()
        best = min(best, time.perf_counter() - started)
    return best


def measure(folder: Path, entries: int, rounds: int) -> dict[str, object]:
    """One row: a log of ``entries``."""
    directory = folder / f"log-{entries}"
    maker = Maker(directory)
    maker.make(entries)
    total = len(maker.sink)

    def verified(workers: int) -> tuple[float, float]:
        command = [sys.executable, "-c", _VERIFY, str(directory), maker.vkey, maker.k0.hex(), str(workers)]
        done = [subprocess.run(command, check=True, capture_output=True) for _ in range(rounds)]
        runs = [json.loads(run.stdout) for run in done]
        return min(seconds for seconds, _ in runs), max(kib for _, kib in runs) / 1024

    every_s, peak_mib = verified(0)
    one_s, _ = verified(1)
    shard = f"shard-{entries // 2}"
    query_s = seconds_of(lambda: list(query(directory, shard=shard)), rounds)
    parse_s = seconds_of(lambda: sum(1 for _ in query(directory, severity="LOW", since="2025-01-01")), rounds)
    lines = list(lines_of(directory, min(total, _PEER_ENTRIES_MAX)))
    peers: dict[str, Callable[[], object] | None] = {
        "the hashes alone, one core": lambda: hashes_alone(lines, maker.k0),
        "SQLite hash chain": sqlite_chain(folder / f"{entries}.db", lines, maker.k0),
        "pymerkle": pymerkle_tree(lines),
    }
    rates = {name: round(len(lines) / seconds_of(work, rounds)) for name, work in peers.items() if work}
    return {
        "entries": total,
        "bytes": sum(path.stat().st_size for path in (directory / "entries").iterdir()),
        "verify_per_s": round(total / every_s),
        "verify_one_core_per_s": round(total / one_s),
        "peak_mib": round(peak_mib),
        "query_shard_s": round(query_s, 3),
        "query_nothing_s": round(parse_s, 3),
        "peers_per_s": rates,
    }


def main() -> None:
    """Ten times more entries from row to row."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--entries-max", type=int, default=1_000_000, help="the largest log")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", action="store_true", help="print one JSON document")
    found, _ = parser.parse_known_args()
    with tempfile.TemporaryDirectory(dir=os.environ.get("TMPDIR")) as folder:
        sizes = [_FIRST_ENTRIES]
        while sizes[-1] < found.entries_max:
            sizes.append(min(sizes[-1] * 10, found.entries_max))
        rows = [measure(Path(folder), size, found.rounds) for size in sizes]
    if found.json:
        print(json.dumps({"question": "Verifying an audit log", "machine": machine(), "results": rows}))
        return
    print("Verifying an audit log")
    print("  " + ", ".join(f"{key} {value}" for key, value in machine().items()))
    for row in rows:
        print("  " + ", ".join(f"{key} {value}" for key, value in row.items()))


if __name__ == "__main__":
    main()
