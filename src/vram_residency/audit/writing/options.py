"""The settings of a log's writer, with the defaults of audit-log.md section 4."""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from vram_residency.audit.store.directory import EPOCH_INTERVAL_S
from vram_residency.audit.store.files import SYSTEM_FILES, Files
from vram_residency.core.clock import SYSTEM_CLOCK, Clock
from vram_residency.core.errors import AuditWriteError, ConfigurationError

MIB = 1 << 20


class LogOptions(msgspec.Struct, frozen=True, kw_only=True):
    """How a log is written. Raises ConfigurationError for values that make no sense."""

    #: Events that may wait for the disk, and further slots for the most important ones.
    capacity: int = 1000
    reserved: int = 64
    #: The writer writes this long after an event at the latest, or once so many wait.
    max_delay_s: float = 1.0
    max_events: int = 100
    #: A checkpoint is signed at most this often while entries are written.
    checkpoint_interval_s: float = 1.0
    #: Seconds between two keys; used when a log is created, then log.json rules.
    epoch_interval_s: int = EPOCH_INTERVAL_S
    #: A new segment begins once the newest has so many bytes, and at midnight UTC.
    rotate_bytes: int = 100_000_000
    #: Closed segments are compressed so many seconds after their last entry; None: never.
    archive_after_s: float | None = 90 * 86_400.0
    #: With less room on the disk nothing is written.
    free_bytes_min: int = 10 * MIB
    #: Queries through this logger become entries themselves: audit_log_accessed.
    audit_queries: bool = False
    #: Without the background thread, events are written by flush(), tick() and durable emits alone.
    background: bool = True
    #: Told of every failed write, outside all locks; what it raises is passed over.
    on_failure: Callable[[AuditWriteError], object] | None = None
    clock: Clock = SYSTEM_CLOCK
    files: Files = SYSTEM_FILES

    def __post_init__(self) -> None:
        for name in ("capacity", "max_events", "epoch_interval_s", "rotate_bytes"):
            if getattr(self, name) < 1:
                raise ConfigurationError(name, "must be at least 1")
        for name in ("reserved", "max_delay_s", "checkpoint_interval_s", "free_bytes_min"):
            if getattr(self, name) < 0:
                raise ConfigurationError(name, "must not be negative")
        if self.archive_after_s is not None and self.archive_after_s < 0:
            raise ConfigurationError("archive_after_s", "must not be negative")


DEFAULT_OPTIONS = LogOptions()
