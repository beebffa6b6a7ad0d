"""Progress for people who wait: on stderr, on a terminal, and only after the first second (cli.md)."""

from __future__ import annotations

import sys
import time

_PATIENCE_S = 1.0
_REDRAW_S = 0.1
_BAR_COLUMNS = 24
_ERASE_LINE = "\r\x1b[K"


class ProgressBar:
    """One line on stderr. ``_next_s`` is the earliest moment of the next redraw."""

    def __init__(self, label: str) -> None:
        self._label = label
        self._next_s = time.monotonic() + _PATIENCE_S
        self._is_drawn = False

    def update(self, done_bytes: int, total_bytes: int) -> None:
        """Draw the line anew, at most ten times a second and never in the first."""
        now_s = time.monotonic()
        if now_s < self._next_s:
            return
        self._next_s = now_s + _REDRAW_S
        share = min(done_bytes / total_bytes, 1.0) if total_bytes else 1.0
        filled = round(share * _BAR_COLUMNS)
        bar = "█" * filled + "░" * (_BAR_COLUMNS - filled)
        sys.stderr.write(f"{_ERASE_LINE}{self._label} {bar} {share:4.0%}")
        sys.stderr.flush()
        self._is_drawn = True

    def erase(self) -> None:
        """Leave the terminal as it was."""
        if self._is_drawn:
            sys.stderr.write(_ERASE_LINE)
            sys.stderr.flush()
