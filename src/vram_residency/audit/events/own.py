"""Events that only the log's writer makes; verification recomputes their numbers (events.md)."""

from __future__ import annotations

from typing import ClassVar

from vram_residency.audit.events.base import Event, Time, Uint


class LogOpened(Event, frozen=True, kw_only=True):
    """The log was opened; ``clean``: the last writer had closed it."""

    clean: bool
    recovered_events: Uint
    recovered_first_index: Uint | None = None
    torn_bytes: Uint
    writer: str
    log_json_sha256: str
    host_id: str
    boot_id: str
    version: str


class LogClosed(Event, frozen=True, kw_only=True):
    """The log was closed in order."""

    reason: str


class EpochClosed(Event, frozen=True, kw_only=True):
    """The last entry under this key; ``tree_size`` is its own index, ``root_hash`` (hex) the root before."""

    epoch: Uint
    tree_size: Uint
    root_hash: str


class SegmentRotated(Event, frozen=True, kw_only=True):
    """A segment ended: its name, the SHA-256 (hex) of its bytes, its entries."""

    closed_segment: str
    sha256: str
    entries: Uint


class EventsDropped(Event, frozen=True, kw_only=True):
    """Events were refused for want of room, from ``first_timestamp`` to ``last_timestamp``."""

    critical: ClassVar[bool] = True

    count: Uint
    critical_count: Uint
    first_timestamp: Time
    last_timestamp: Time


class AuditLogAccessed(Event, frozen=True, kw_only=True):
    """Somebody read the log."""

    accessor: str
    query: str


class SegmentsPruned(Event, frozen=True, kw_only=True):
    """Entries ``first_index`` to ``next_index`` (exclusive) were removed as ``policy`` asks."""

    first_index: Uint
    next_index: Uint
    next_epoch: Uint
    last_mac: str
    root_hash: str
    policy: str


class ClockSteppedBack(Event, frozen=True, kw_only=True):
    """The machine's clock went back by this many microseconds."""

    critical: ClassVar[bool] = True

    by_us: Uint


class KeyRotated(Event, frozen=True, kw_only=True):
    """The log signs with another key from here on."""

    critical: ClassVar[bool] = True

    old_vkey: str
    new_vkey: str
    signature_by_old: str


EVENTS: tuple[type[Event], ...] = (
    LogOpened,
    LogClosed,
    EpochClosed,
    SegmentRotated,
    EventsDropped,
    AuditLogAccessed,
    SegmentsPruned,
    ClockSteppedBack,
    KeyRotated,
)
