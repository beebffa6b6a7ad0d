"""Which shards a manager holds, and which ids it ever used."""

from __future__ import annotations

import copy
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Literal

from msgspec import Struct

from vram_residency.core.errors import (
    DeviceBusyError,
    DuplicateShardError,
    InvalidInputError,
    UnknownShardError,
)
from vram_residency.core.redaction import safe_text
from vram_residency.formats.layout import Layout
from vram_residency.residency.content import Content
from vram_residency.residency.shard import SealedShard, Timings
from vram_residency.seal.statement import Statement

State = Literal["sealed", "quarantined"]


class Record(Struct, eq=False, kw_only=True):
    """One shard as the manager knows it.

    ``state``, ``uses`` and ``readings`` change only under the registry's lock.
    """

    shard: SealedShard
    statement: Statement
    signature: bytes
    layout: Layout
    group_values: bytes
    residency: dict[str, Any]
    content: Content
    timings: Timings = Timings()
    tensor_digests: dict[str, str] = {}
    state: State = "sealed"
    #: Open blocks of execution(): the shard is not freed while there is one.
    uses: int = 0
    #: Verifications under way: freeing and resealing wait for their end.
    readings: int = 0
    #: Nanoseconds since the epoch of the last whole verification that succeeded.
    fully_verified_ns: int

    @property
    def handle(self) -> SealedShard:
        """What callers get: a copy, so that nothing done to it reaches this record."""
        return copy.copy(self.shard)


class Registry:
    """Thread-safe. An id that was sealed once is never given again (residency.md section 4)."""

    def __init__(self) -> None:
        self.lock = threading.RLock()
        self._changed = threading.Condition(self.lock)
        self._records: dict[str, Record] = {}
        self._used_ids: set[str] = set()
        self._is_closed = False

    def close(self) -> bool:
        """Take nothing more, not even seals that are under way. False where that was said before."""
        with self.lock:
            was_closed, self._is_closed = self._is_closed, True
            return not was_closed

    @property
    def is_closed(self) -> bool:
        """Whether ``close`` was called."""
        return self._is_closed

    def require_open(self) -> None:
        """Raise InvalidInputError once closed."""
        if self._is_closed:
            raise InvalidInputError("manager", "is closed", hint="Open a new manager.")

    def claim(self, shard_id: str) -> None:
        """Take an id before any work is done. Raises DuplicateShardError."""
        with self.lock:
            if shard_id in self._used_ids:
                raise DuplicateShardError(shard_id)
            self._used_ids.add(shard_id)

    def forget_claim(self, shard_id: str) -> None:
        """Give an id back whose seal was never made."""
        with self.lock:
            if shard_id not in self._records:
                self._used_ids.discard(shard_id)

    def add(self, record: Record) -> None:
        """Register a sealed shard under its claimed id. Raises InvalidInputError once closed."""
        with self.lock:
            self.require_open()
            self._records[record.shard.shard_id] = record

    def find(self, shard_id: object) -> Record:
        """The record of an id, or UnknownShardError; ``shard_id`` may come from a forged handle."""
        if not isinstance(shard_id, str):
            raise UnknownShardError(type(shard_id).__name__)
        with self.lock:
            record = self._records.get(shard_id)
        if record is None:
            raise UnknownShardError(safe_text(shard_id))
        return record

    @contextmanager
    def using(self, record: Record) -> Iterator[None]:
        """One block of ``execution()``: nobody frees or reseals it meanwhile. Raises UnknownShardError."""
        with self.lock:
            self._require_held(record)
            record.uses += 1
        try:
            yield
        finally:
            with self._changed:
                record.uses -= 1
                self._changed.notify_all()

    @contextmanager
    def reading(self, record: Record) -> Iterator[None]:
        """One verification: freeing and resealing wait for its end. Raises UnknownShardError."""
        with self.lock:
            self._require_held(record)
            record.readings += 1
        try:
            yield
        finally:
            with self._changed:
                record.readings -= 1
                self._changed.notify_all()

    @contextmanager
    def sole(self, record: Record) -> Iterator[None]:
        """Hold the lock at a moment when nobody reads the shard, and while nobody can begin to.

        Raises DeviceBusyError where a block of ``execution()`` is open, UnknownShardError.
        """
        with self._changed:
            self._changed.wait_for(lambda: record.readings == 0)
            self._require_held(record)
            if record.uses:
                uses = f"{record.uses} open execution() block(s) or loan(s)"
                raise DeviceBusyError(record.shard.shard_id, uses)
            yield

    def wait_until_idle(self, record: Record) -> None:
        """Wait until nobody uses or reads a shard."""
        with self._changed:
            self._changed.wait_for(lambda: record.readings == 0 and record.uses == 0)

    def replace(self, old: Record, new: Record) -> None:
        """Put a renewed seal in the place of the old one. Raises UnknownShardError, DeviceBusyError."""
        with self.sole(old):
            self._records[old.shard.shard_id] = new

    def remove(self, record: Record) -> bool:
        """Forget a shard, and say whether it was there; its id stays used."""
        with self.lock:
            is_held = self._records.get(record.shard.shard_id) is record
            if is_held:
                del self._records[record.shard.shard_id]
            return is_held

    def records(self) -> list[Record]:
        """All shards, in the order in which they were sealed."""
        with self.lock:
            return list(self._records.values())

    def _require_held(self, record: Record) -> None:
        if self._records.get(record.shard.shard_id) is not record:
            raise UnknownShardError(record.shard.shard_id)
