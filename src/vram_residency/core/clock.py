"""Time as an argument: everything that needs a clock is given one."""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta
from typing import Protocol

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class Clock(Protocol):
    """Wall time for records, monotonic time for durations."""

    def now_ns(self) -> int:
        """Nanoseconds since the Unix epoch, UTC. May step."""

    def monotonic_ns(self) -> int:
        """Nanoseconds since an arbitrary moment. Never steps."""


class SystemClock:
    """The machine's own clocks."""

    now_ns = staticmethod(time.time_ns)
    monotonic_ns = staticmethod(time.monotonic_ns)


SYSTEM_CLOCK = SystemClock()


def rfc3339(epoch_ns: int) -> str:
    """``2025-10-02T10:00:00.000000Z``: UTC with microseconds, the form of every record (RFC 3339)."""
    moment = _EPOCH + timedelta(microseconds=epoch_ns // 1000)
    return f"{moment:%Y-%m-%dT%H:%M:%S.%f}Z"


def parse_rfc3339(text: str) -> int:
    """Nanoseconds since the epoch of an RFC 3339 time. Raises ValueError where it is not one."""
    moment = datetime.fromisoformat(text)
    if moment.tzinfo is None:
        raise ValueError(f"{text!r} has no time zone")
    return (moment - _EPOCH) // timedelta(microseconds=1) * 1000
