"""Shards that a worker held when it died: sealed in its last session, and never given back since.

Found in the log itself, backwards from its end to where that worker last began. What begins a session is
recorded after what the session before it lost, so that nothing further back can be missing.
"""

from __future__ import annotations

import os
from collections.abc import Iterable

from vram_residency.audit.reading.query import newest_segments

_EVENTS = ("vram_sealed", "vram_deallocated", "shards_lost", "worker_state_changed")


class Span:
    """A stretch of the log: what was sealed in it and is still held, and what came from before and went."""

    def __init__(self, worker_id: str) -> None:
        self.held: dict[str, None] = {}  # in the order in which they were sealed
        self.gone: set[str] = set()
        self.has_begun = False
        self._worker_id = worker_id

    def take(self, entry: dict[str, object]) -> None:
        """The next entry, in order."""
        match entry.get("event_type"), entry:
            case "worker_state_changed", {"worker_id": self._worker_id, "from_state": "starting"}:
                if entry.get("to_state") != "stopped":
                    self._begin()
            case "vram_sealed", {"worker_id": self._worker_id, "shard_id": str(shard_id)}:
                self.held[shard_id] = None
                self.gone.discard(shard_id)
            case "vram_deallocated", {"worker_id": self._worker_id, "shard_id": str(shard_id)}:
                self._give_back(shard_id)
            case "shards_lost", {"shard_ids": list(shard_ids)}:
                for shard_id in shard_ids:
                    self._give_back(str(shard_id))

    def put_before(self, older: Span) -> None:
        """Let ``older``, which came right before, belong to this."""
        kept = {shard_id: None for shard_id in older.held if shard_id not in self.gone}
        self.held = kept | self.held
        self.gone |= older.gone
        self.has_begun |= older.has_begun

    def _begin(self) -> None:
        self.held.clear()
        self.gone.clear()
        self.has_begun = True

    def _give_back(self, shard_id: str) -> None:
        if shard_id in self.held:
            del self.held[shard_id]
        else:
            self.gone.add(shard_id)


def span_of(entries: Iterable[dict[str, object]], worker_id: str) -> Span:
    """What one stretch of entries says. Pure."""
    span = Span(worker_id)
    for entry in entries:
        span.take(entry)
    return span


def lost_shards(directory: str | os.PathLike[str], worker_id: str) -> list[str]:
    """Ids of the shards that this worker held at the end of its last session, in the order of sealing."""
    whole = Span(worker_id)
    for entries in newest_segments(directory, event=_EVENTS):
        whole.put_before(span_of(entries, worker_id))
        if whole.has_begun:
            break
    return list(whole.held)
