"""The numbers of segment_rotated, recomputed from the segment that ended (events.md, the log's own)."""

from __future__ import annotations

from collections.abc import Callable

from vram_residency.audit.events.own import SegmentRotated
from vram_residency.audit.reading.verdict import Fault


class SegmentCheck:
    """Counts the segment being read; remembers the one before it.

    ``sha256_of`` gives the SHA-256 (hex) of a segment by its name: asked only where an entry states one.
    """

    def __init__(self, sha256_of: Callable[[str], str]) -> None:
        self._sha256_of = sha256_of
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
        if self._entries or self._closed is None:
            raise Fault("tampered", "segment_rotated does not stand at the beginning of a later segment")
        name, entries = self._closed
        named = event.closed_segment.removeprefix("entries/")
        if (named, event.entries) != (name, entries) or event.sha256 != self._sha256_of(name):
            raise Fault("tampered", "segment_rotated does not describe the segment before it")
