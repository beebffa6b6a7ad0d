"""Run every benchmark: ``python -m benchmarks [name …] [--json]``. One script answers one question."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path

_NO_BENCHMARKS = {"__main__", "harness", "peers"}


def main() -> None:
    """All of them, or those that are named."""
    names = sorted(
        path.stem for path in Path(__file__).parent.glob("*.py") if path.stem not in _NO_BENCHMARKS
    )
    named = [name for name in sys.argv[1:] if name in names]
    for name in named or names:
        importlib.import_module(f"benchmarks.{name}").main()


if __name__ == "__main__":
    main()
