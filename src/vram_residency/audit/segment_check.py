"""The numbers of segment_rotated, recomputed from the segment that ended (events.md, the log's own)."""

from __future__ import annotations

import hashlib

from vram_residency.audit.own_events import SegmentRotated
from vram_residency.audit.verdict import Fault


class SegmentCheck:
    """Counts and hashes the segment being read; remembers the one before it."""

    def __init__(self) -> None:
        self._name = ""
        self._entries = 0
        self._hash = hashlib.sha256()
        self._closed: tuple[str, str, int] | None = None

    def begin(self, name: str) -> None:
        """A new file begins; ``name`` without its folder."""
        if self._name:
            self._closed = (self._name, self._hash.hexdigest(), self._entries)
        self._name, self._entries, self._hash = name, 0, hashlib.sha256()

    def add(self, line: bytes) -> None:
        """One more line of it."""
        self._hash.update(line)
        self._hash.update(b"\n")
        self._entries += 1

    def check(self, event: SegmentRotated) -> None:
        """segment_rotated stands first in a segment and describes the one before. Raises Fault."""
        if self._entries or self._closed is None:
            raise Fault("tampered", "segment_rotated does not stand at the beginning of a later segment")
        name, sha256, entries = self._closed
        named = event.closed_segment.removeprefix("entries/")
        if (named, event.sha256, event.entries) != (name, sha256, entries):
            raise Fault("tampered", "segment_rotated does not describe the segment before it")
