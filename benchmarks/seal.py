"""What does a whole seal cost, and a whole verification, beside the least that anybody must do?

Seal: the reference fills a fresh memfd by plain 1 MiB writes and computes BLAKE3 of it; the bar is 1.2 times
its time (a ratio of 0.83). Verify: the reference is the blake3 wheel over the same memory; the bar is 0.95.
`vram check`: a whole process that starts, seals, verifies and frees, beside a process that does the
reference; the bar is 1.5 times (0.67). The `model_signing` library hashes the file, not the memory.
"""

from __future__ import annotations

import secrets
import subprocess
import sys
import time
from pathlib import Path

from benchmarks.fill import plain
from benchmarks.harness import Contender, memory_copy, options, race, random_file, report
from blake3 import blake3

from vram_residency import VramManager, narration

_PLAIN_PROCESS = (
    "import sys; from pathlib import Path; from benchmarks.fill import plain; "
    "plain(Path(sys.argv[1]), hashed=True)"
)


def seal(manager: VramManager, path: Path) -> float:
    """Seconds of ``seal_file`` in a warm process; freeing is not counted."""
    started = time.perf_counter()
    shard = manager.seal_file(path)
    seconds = time.perf_counter() - started
    manager.deallocate(shard)
    return seconds


def model_signing(path: Path) -> None:
    """The digest of the file as the library's API computes it by default (SHA-256)."""
    from model_signing import hashing

    hashing.hash(path)


def process(*command: str) -> None:
    """Run a command to its end."""
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def main() -> None:
    """Race them."""
    chosen = options(__doc__)
    narration.configure(level="mute")
    with (
        random_file(chosen.size_bytes) as path,
        VramManager.new_with_token(secrets.token_hex(16), device="host") as manager,
    ):
        seals = [
            Contender("fill + blake3", lambda: plain(path, hashed=True)),
            Contender("seal_file", lambda: seal(manager, path)),
            memory_copy(),
        ]
        results = race(seals, size_bytes=chosen.size_bytes, rounds=chosen.rounds)
        report("From a cached file to a seal", results, reference="fill + blake3", as_json=chosen.as_json)

        shard = manager.seal_file(path)
        with manager.execution(shard) as views, views.whole as memory:
            verifications = [
                Contender("blake3", lambda: blake3(memory, max_threads=blake3.AUTO).digest() and None),
                Contender("verify_sealed", lambda: manager.verify_sealed(shard).duration_s),
                Contender("model_signing", lambda: model_signing(path)),
            ]
            results = race(verifications, size_bytes=chosen.size_bytes, rounds=chosen.rounds)
        report("A full verification", results, reference="blake3", as_json=chosen.as_json)
        manager.deallocate(shard)

        processes = [
            Contender("fill + blake3", lambda: process(sys.executable, "-c", _PLAIN_PROCESS, str(path))),
            Contender(
                "vram check", lambda: process(sys.executable, "-m", "vram_residency", "check", str(path))
            ),
        ]
        results = race(processes, size_bytes=chosen.size_bytes, rounds=chosen.rounds)
        report("A whole process", results, reference="fill + blake3", as_json=chosen.as_json)


if __name__ == "__main__":
    main()
