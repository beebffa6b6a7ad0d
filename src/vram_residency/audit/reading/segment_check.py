"""The numbers of segment_rotated, recomputed from the segment that ended (events.md, the log's own)."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Final

from vram_residency.audit.events.own import SegmentRotated
from vram_residency.audit.reading.verdict import Fault

_NAME: Final = re.compile(r"([0-9]{20})\.jsonl\Z")


class SegmentCheck:
    """Counts the segment being read; remembers the one before it.

    ``sha256_of`` gives the SHA-256 (hex) of a segment by its name: asked only where an entry states one.
    """

    def __init__(self, sha256_of: Callable[[str], str], start_index: int = 0) -> None:
        """``start_index`` is the first entry that is there; those before it were pruned."""
        self._sha256_of = sha256_of
        self._start_index = start_index
        self._name = ""
        self._entries = 0
        self._closed: tuple[str, int] | None = None

    def begin(self, name: str) -> None:
        """A new file begins; ``name`` without its folder."""
        if self._name:
            self._closed = (self._name, self._entries)
        self._name, self._entries = name, 0

    def add(self, entries: int = 1) -> None:
        """So many more lines of it."""
        self._entries += entries

    def check(self, event: SegmentRotated) -> None:
        """segment_rotated stands first in a segment and describes the one before. Raises Fault."""
        named = event.closed_segment.removeprefix("entries/")
        if self._start_index and self._closed is None and not self._entries:
            self._check_pruned(named, event.entries)
            return
        if self._entries or self._closed is None:
            raise Fault("tampered", "segment_rotated does not stand at the beginning of a later segment")
        name, entries = self._closed
        if (named, event.entries) != (name, entries) or event.sha256 != self._sha256_of(name):
            raise Fault("tampered", "segment_rotated does not describe the segment before it")

    def _check_pruned(self, named: str, entries: int) -> None:
        """Of a segment that is gone its end is known: there the first begins that is not."""
        match = _NAME.match(named)
        if match is None or int(match[1]) + entries != self._start_index:
            raise Fault("tampered", "segment_rotated does not describe the segment before it")
