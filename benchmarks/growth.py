"""Does anything grow that should not? One log, ten times longer from row to row, by the library's own writer.

Writing is drained batch by batch, in segments of 100 MB. Opening, verification and queries run in fresh
processes, whose peak memory is noted. Bars (performance.md): verification and query are linear in time and
flat in memory (under 200 MB), opening does not read old segments.

    python -m benchmarks growth --entries-max 10000000
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import msgspec
from benchmarks.harness import machine
from benchmarks.peers import FIELDS

from vram_residency.audit.events.vram import VramSealed
from vram_residency.audit.log import AuditLogger
from vram_residency.audit.writing.creation import NewLog, create_log
from vram_residency.audit.writing.options import LogOptions

_FIRST_ENTRIES = 10_000
_CAPACITY = 10_000
#: Each prints seconds and the most memory that it, or a process that it started, had.
_FRAME = """
import json, resource, sys, time
{imports}
started = time.perf_counter()
{work}
seconds = time.perf_counter() - started
status = dict(line.split(":", 1) for line in open("/proc/self/status"))
peak_kib = max(int(status["VmHWM"].split()[0]), resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)
print(json.dumps([seconds, peak_kib]))
"""
_OPEN = _FRAME.format(
    imports="from vram_residency.audit import AuditLogger",
    work="logger = AuditLogger.open(sys.argv[1], service_id='bench', keys=sys.argv[2])",
)
_VERIFY = _FRAME.format(
    imports="from vram_residency.audit import verify",
    work=(
        "verdict = verify(sys.argv[1], vkey=sys.argv[3], mac_key=sys.argv[4])\n"
        "assert verdict.verdict == 'intact' and verdict.checked.mac and verdict.checked.tree, verdict"
    ),
)
_QUERY = _FRAME.format(
    imports="from vram_residency.audit.reading.query import query",
    work="assert len(list(query(sys.argv[1], shard='the-one'))) == 1",
)
_SINCE = _FRAME.format(
    imports="from vram_residency.audit.reading.query import query",
    work="assert not list(query(sys.argv[1], since='2200-01-01'))",
)


def grow(log: Path, keys: Path, start: int, end: int) -> float:
    """Append entries; their number a second, synced."""
    options = LogOptions(capacity=_CAPACITY, background=False)
    event = VramSealed(**FIELDS)
    started = time.perf_counter()
    with AuditLogger.open(log, service_id="bench", keys=keys, options=options) as logger:
        if not start:
            logger.emit(msgspec.structs.replace(event, shard_id="the-one"))
        for number in range(start + (not start), end):
            logger.emit(event)
            if number % _CAPACITY == 0:
                logger.flush()
    return (end - start) / (time.perf_counter() - started)


def run(program: str, log: Path, keys: Path, new: NewLog) -> tuple[float, float]:
    """Seconds and peak memory in MiB of a process."""
    words = [str(log), str(keys), new.vkey, new.mac_genesis_key]
    done = subprocess.run([sys.executable, "-c", program, *words], check=True, capture_output=True)
    seconds, peak_kib = json.loads(done.stdout)
    return seconds, peak_kib / 1024


def measure(log: Path, keys: Path, new: NewLog, entries: int) -> dict[str, object]:
    """One row: the log as it is now."""
    row: dict[str, object] = {"entries": entries}
    segments = list((log / "entries").iterdir())
    row["segments"] = len(segments)
    row["gb"] = round(sum(path.stat().st_size for path in segments) / 1e9, 2)
    for name, program in {"open": _OPEN, "verify": _VERIFY, "query": _QUERY, "since": _SINCE}.items():
        seconds, peak_mib = run(program, log, keys, new)
        row[f"{name}_s"] = round(seconds, 3)
        row[f"{name}_mib"] = round(peak_mib)
        if name == "verify":
            row["verify_per_s"] = round(entries / seconds)
    return row


def main() -> None:
    """Print the table, or JSON with ``--json``."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--entries-max", type=int, default=1_000_000, help="the longest log")
    parser.add_argument("--json", action="store_true", help="print one JSON document")
    found, _ = parser.parse_known_args()
    rows = []
    with tempfile.TemporaryDirectory(dir=os.environ.get("TMPDIR")) as folder:
        log, keys = Path(folder) / "log", Path(folder) / "keys"
        new = create_log(log, service_id="bench", keys=keys)
        written = 0
        while written < found.entries_max:
            entries = min(written * 10 or _FIRST_ENTRIES, found.entries_max)
            written_per_s = grow(log, keys, written, entries)
            written = entries
            rows.append(measure(log, keys, new, entries) | {"written_per_s": round(written_per_s)})
    if found.json:
        print(json.dumps({"question": "Growth of an audit log", "machine": machine(), "results": rows}))
        return
    print("Growth of an audit log")
    print("  " + ", ".join(f"{key} {value}" for key, value in machine().items()))
    for row in rows:
        print("  " + ", ".join(f"{key} {value}" for key, value in row.items()))


if __name__ == "__main__":
    main()
