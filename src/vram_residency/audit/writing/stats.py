"""What an opened log counts."""

from __future__ import annotations

import msgspec


class LogStats(msgspec.Struct, frozen=True, kw_only=True):
    """Counts since this logger was opened, and where the log stands."""

    accepted: int
    waiting: int
    capacity: int
    dropped: int
    dropped_critical: int
    tree_size: int
    checkpoint_size: int
    epoch: int
    write_failures: int
    last_failure: str | None


#: Of a log that keeps nothing.
NO_STATS = LogStats(
    accepted=0,
    waiting=0,
    capacity=0,
    dropped=0,
    dropped_critical=0,
    tree_size=0,
    checkpoint_size=0,
    epoch=0,
    write_failures=0,
    last_failure=None,
)
