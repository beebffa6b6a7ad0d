"""How much CPU does ``vram --help`` cost beyond ``python -c pass``? The bar is 0.15 s.

Prints the least and the median of many starts: other work on the machine only ever adds.
"""

from __future__ import annotations

import resource
import statistics
import subprocess
import sys

RUNS = 31
BAR_S = 0.15
COMMANDS = (["--help"], ["--version"], ["digest", "--help"], ["audit", "--help"])


def cpu_s(arguments: list[str]) -> float:
    """User and system time of one process, in seconds."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run([sys.executable, *arguments], stdout=subprocess.DEVNULL, check=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def main() -> None:
    """One line per command."""
    bare = sorted(cpu_s(["-c", "pass"]) for _ in range(RUNS))
    for command in COMMANDS:
        runs = sorted(cpu_s(["-m", "vram_residency.cli.main", *command]) for _ in range(RUNS))
        least, median = runs[0] - bare[0], statistics.median(runs) - statistics.median(bare)
        print(f"vram {' '.join(command):14} +{least:.3f} s CPU, median +{median:.3f} s (bar {BAR_S} s)")


if __name__ == "__main__":
    main()
