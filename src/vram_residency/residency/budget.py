"""The memory budget of one device: reserve, then commit or roll back (residency.md section 1). Pure."""

from __future__ import annotations

import threading

from msgspec import Struct

from vram_residency.core.errors import InsufficientMemoryError, InvalidInputError


class Capacity(Struct, frozen=True, kw_only=True):
    """All figures of one instant, in bytes: used + available + headroom <= total."""

    total_bytes: int
    used_bytes: int
    available_bytes: int
    headroom_bytes: int


class Budget:
    """Counts bytes so that concurrent seals never overshoot.

    Invariant, kept under ``_lock``: used_bytes <= total_bytes - headroom_bytes.
    A reservation counts as used at once; whether the allocation behind it succeeds shows later.
    """

    def __init__(self, *, total_bytes: int, headroom_bytes: int = 0) -> None:
        if not 0 <= headroom_bytes <= total_bytes:
            raise InvalidInputError("headroom_bytes", f"must be between 0 and {total_bytes}")
        self._total_bytes = total_bytes
        self._headroom_bytes = headroom_bytes
        self._used_bytes = 0
        self._lock = threading.Lock()

    def reserve(self, size_bytes: int) -> None:
        """Take ``size_bytes`` or raise InsufficientMemoryError, leaving everything as it was."""
        with self._lock:
            available_bytes = self._available_bytes()
            if size_bytes > available_bytes:
                raise InsufficientMemoryError(size_bytes, available_bytes)
            self._used_bytes += size_bytes

    def release(self, size_bytes: int) -> None:
        """Give back what ``reserve`` took: the roll back of a failed seal, or the end of a shard."""
        with self._lock:
            if size_bytes > self._used_bytes:
                raise AssertionError("more bytes released than were ever reserved")
            self._used_bytes -= size_bytes

    def capacity(self) -> Capacity:
        """Every figure, read at one instant."""
        with self._lock:
            return Capacity(
                total_bytes=self._total_bytes,
                used_bytes=self._used_bytes,
                available_bytes=self._available_bytes(),
                headroom_bytes=self._headroom_bytes,
            )

    def _available_bytes(self) -> int:
        return self._total_bytes - self._headroom_bytes - self._used_bytes
