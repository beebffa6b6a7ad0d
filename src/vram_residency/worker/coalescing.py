"""Events that strangers can cause, so that nobody can fill the log: the first, then how many more. Pure.

In each window the first event of a type from an address is recorded as it is; those after it are counted, and
the count is recorded when the window ends. What is remembered is bounded: beyond that many addresses, all
others are one.
"""

from __future__ import annotations

from typing import Final

import msgspec

WINDOW_S: Final = 60.0
ADDRESSES_MAX: Final = 256
OTHERS: Final = "other addresses"


class Summary(msgspec.Struct, frozen=True):
    """So many more events of a type came from an address since the one that was recorded."""

    event_type: str
    address: str
    count: int
    duration_s: float


class Coalescer:
    """Not thread-safe; ``now_s`` is monotonic."""

    def __init__(self, *, window_s: float = WINDOW_S, addresses_max: int = ADDRESSES_MAX) -> None:
        self._window_s = window_s
        self._addresses_max = addresses_max
        self._open: dict[tuple[str, str], tuple[float, int]] = {}  # (begun at, further events)

    def admit(self, event_type: str, address: str, now_s: float) -> bool:
        """Whether this event is to be recorded as it is; if not it is counted. Call ``due`` before."""
        key = (event_type, address)
        if key not in self._open and len(self._open) >= self._addresses_max:
            key = (event_type, OTHERS)
        found = self._open.get(key)
        if found is None:
            self._open[key] = (now_s, 0)
            return True
        self._open[key] = (found[0], found[1] + 1)
        return False

    def due(self, now_s: float) -> list[Summary]:
        """Windows that have ended by now, those with further events; they are forgotten."""
        ended = [key for key, (begun_s, _) in self._open.items() if now_s - begun_s >= self._window_s]
        return self._end(ended, now_s)

    def rest(self, now_s: float) -> list[Summary]:
        """What is left when the worker ends."""
        return self._end(list(self._open), now_s)

    def _end(self, keys: list[tuple[str, str]], now_s: float) -> list[Summary]:
        found = []
        for key in keys:
            begun_s, count = self._open.pop(key)
            if count:
                found.append(Summary(*key, count, now_s - begun_s))
        return found
