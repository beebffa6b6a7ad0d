"""Counting a log's entries by type, with examples; flat in memory, whatever stands in the log."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

import msgspec

#: A log that was tampered with may name any number of types.
TYPES_MAX: Final = 1000
#: Where the further ones are counted; no event can have this name.
OTHER_TYPES: Final = "(other types)"
_FIRST_MAX: Final = 3


class EventCount(msgspec.Struct, frozen=True):
    """How many entries of a type there are, and the indexes of the first three and the last of them."""

    event_type: str
    count: int
    examples: tuple[int, ...]


class _Head(msgspec.Struct):
    index: int
    timestamp: str
    event_type: str


class Tally:
    """Counts entries; those that are not of an entry's form are passed over."""

    def __init__(self) -> None:
        self.entries = 0
        self.first_timestamp: str | None = None
        self.last_timestamp: str | None = None
        self._counts: dict[str, int] = {}
        self._first: dict[str, list[int]] = {}
        self._last: dict[str, int] = {}

    @classmethod
    def of(cls, lines: Iterable[bytes], *, end: int | None) -> Tally:
        """Count lines in their order, those from index ``end`` on left out."""
        tally = cls()
        decode = msgspec.json.Decoder(_Head).decode
        for line in lines:
            try:
                head = decode(line)
            except (ValueError, RecursionError):
                continue
            if end is None or head.index < end:
                tally.add(head.index, head.timestamp, head.event_type)
        return tally

    def add(self, index: int, timestamp: str, event_type: str) -> None:
        """Count one entry."""
        is_known = event_type in self._counts or len(self._counts) < TYPES_MAX
        name = event_type if is_known else OTHER_TYPES
        self.entries += 1
        self.first_timestamp = self.first_timestamp or timestamp
        self.last_timestamp = timestamp
        self._counts[name] = self._counts.get(name, 0) + 1
        first = self._first.setdefault(name, [])
        if len(first) < _FIRST_MAX:
            first.append(index)
        self._last[name] = index

    def counts(self, event_types: Iterable[str] | None = None) -> tuple[EventCount, ...]:
        """The types asked for that were seen, in the order given; all by name where none are."""
        names = sorted(self._counts) if event_types is None else event_types
        return tuple(
            EventCount(name, self._counts[name], self._examples(name))
            for name in names
            if name in self._counts
        )

    def _examples(self, name: str) -> tuple[int, ...]:
        first, last = self._first[name], self._last[name]
        return tuple(first) if last in first else (*first, last)
