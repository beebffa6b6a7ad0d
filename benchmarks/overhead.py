"""What do the two traces cost a seal? The limits: audit under 1 ms, narration under 0.1 ms, both under 0.5 %.

The cost of one audit event (emit, journal included) and of one narrated event (JSON lines, to nowhere), and
both for all events of one seal, as a share of sealing a file of 1 GiB.
"""

from __future__ import annotations

import json
import os
import secrets
import statistics
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path

from benchmarks.harness import machine, options, random_file

from vram_residency import AuditLogger, VramManager, narration
from vram_residency.audit import VramSealed

ROUNDS = 500
AUDIT_EVENTS_OF_A_SEAL, NARRATED_EVENTS_OF_A_SEAL = 2, 4

EVENT = VramSealed(
    shard_id="shard-1", gpu_device=0, vram_bytes=1 << 30, digest="blake3:" + "0" * 64, worker_id="worker-1"
)


def median_us(work: Callable[[], object]) -> float:
    """Microseconds of one call, the median of many."""
    seconds = []
    for _ in range(ROUNDS):
        started = time.perf_counter()
        work()
        seconds.append(time.perf_counter() - started)
    return statistics.median(seconds) * 1e6


def narrate() -> None:
    """The narration of a seal."""
    narration.narrate_model_sealed(shard_id="shard-1", vram_bytes=1 << 30, duration_ms=2.0, device="host")


def main() -> None:
    """Measure and print."""
    chosen = options(__doc__)
    warnings.simplefilter("ignore")
    with tempfile.TemporaryDirectory() as directory, random_file(chosen.size_bytes) as path:
        with (
            Path(os.devnull).open("w", encoding="utf-8") as nowhere,
            AuditLogger.open(Path(directory) / "audit", service_id="bench", create=True) as log,
        ):
            audit_us = median_us(lambda: log.emit(EVENT))
            narration.configure(level="info", form="json", stream=nowhere)
            narration_us = median_us(narrate)
            narration.configure(level="mute")
        with VramManager.new_with_token(secrets.token_hex(16), device="host") as manager:
            started = time.perf_counter()
            manager.seal_file(path)
            seal_us = (time.perf_counter() - started) * 1e6
    both_us = AUDIT_EVENTS_OF_A_SEAL * audit_us + NARRATED_EVENTS_OF_A_SEAL * narration_us
    figures = {
        "audit_us": round(audit_us, 1),
        "narration_us": round(narration_us, 1),
        "seal_ms": round(seal_us / 1e3),
        "share_of_a_seal_percent": round(100 * both_us / seal_us, 3),
    }
    if chosen.as_json:
        print(json.dumps({"question": "overhead", "machine": machine(), "results": figures}))
        return
    print("What the two traces cost")
    print("  " + ", ".join(f"{key} {value}" for key, value in machine().items()))
    print("  " + ", ".join(f"{key} {value}" for key, value in figures.items()))


if __name__ == "__main__":
    main()
