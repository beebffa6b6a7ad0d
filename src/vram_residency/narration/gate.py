"""Whether anybody listens at a level: the one thing that every silent call must ask, so it is one compare."""

from __future__ import annotations

import threading

from vram_residency.narration.vocabulary import INFO, TRACE


class Gate:
    """``floor`` is the lowest level that somebody may want; below it nothing is even put together.

    ``level`` is the configured threshold of the outputs. While anything is captured anywhere the floor
    lies at trace, since a capture sees every level; a listener has a level of its own.
    """

    __slots__ = ("_captures", "_listening", "_lock", "floor", "level")

    def __init__(self, level: int) -> None:
        # Guards _captures and _listening, and floor against a race of two changes.
        self._lock = threading.Lock()
        self._captures = 0
        self._listening: int | None = None
        self.level = level
        self.floor = level

    def set_level(self, level: int) -> None:
        """A new threshold for the outputs."""
        with self._lock:
            self.level = level
            self._settle()

    def capture_begins(self) -> None:
        """One more capture wants everything."""
        with self._lock:
            self._captures += 1
            self._settle()

    def capture_ends(self) -> None:
        """One capture less."""
        with self._lock:
            self._captures -= 1
            self._settle()

    def set_listening(self, level: int | None) -> None:
        """The lowest level that a listener wants; None where nobody listens."""
        with self._lock:
            self._listening = level
            self._settle()

    def _settle(self) -> None:
        wanted = [self.level]
        if self._captures:
            wanted.append(TRACE)
        if self._listening is not None:
            wanted.append(self._listening)
        self.floor = min(wanted)


gate = Gate(INFO)
