"""An audit log that keeps its events in memory: the double for tests that ask what was recorded."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator
from copy import copy
from typing import Any

import msgspec

from vram_residency.audit import events
from vram_residency.audit.events.base import Event
from vram_residency.audit.log import AuditLogger
from vram_residency.audit.writing.stats import LogStats
from vram_residency.audit.writing.telling import WrittenHook
from vram_residency.core import context
from vram_residency.core.clock import SYSTEM_CLOCK, rfc3339
from vram_residency.core.errors import AuditError, AuditWriteError


class RecordedEvent(msgspec.Struct, frozen=True):
    """One accepted event, with the correlation id that was in force when it was emitted."""

    event_type: str
    fields: dict[str, Any]
    correlation_id: str | None


class MemoryLog(AuditLogger):
    """Validates like a real log and can be told to fail; nothing is chained, signed or written.

    ``fail_with(error)`` lets every later emit() raise ``error``, until ``fail_with(None)``.
    """

    def __init__(self) -> None:
        self._is_closed = False
        self._events: list[RecordedEvent] = []
        self._failure: AuditError | None = None
        self._failure_hooks: list[Callable[[AuditWriteError], object]] = []
        self._written_hooks: list[WrittenHook] = []
        self._events_lock = threading.Lock()  # guards _events

    @property
    def directory(self) -> None:
        """None: there is none."""
        return None

    @property
    def recorded(self) -> list[RecordedEvent]:
        """All events so far, in order."""
        with self._events_lock:
            return list(self._events)

    def of_type(self, event_type: str) -> list[dict[str, Any]]:
        """The fields of all events of one type, in order."""
        return [each.fields for each in self.recorded if each.event_type == event_type]

    def fail_with(self, error: AuditError | None) -> None:
        """Let every later emit() raise ``error``."""
        self._failure = error

    def on_failure(self, hook: Callable[[AuditWriteError], object]) -> None:
        """Nothing is written here, so nothing fails unasked: see ``fail_write``."""
        self._failure_hooks.append(hook)

    def fail_write(self, error: AuditWriteError) -> None:
        """Tell the hooks of a failed write, as a real log's background writer does."""
        for hook in self._failure_hooks:
            hook(error)

    def on_written(self, hook: WrittenHook) -> None:
        """Have ``hook`` told of every event at once, as a line of a log in which nothing is signed."""
        self._written_hooks.append(hook)

    def emit(self, event: Event, *, durable: bool = False) -> None:  # noqa: ARG002 - the interface's word
        """Keep the event. Raises InvalidEventError, or what ``fail_with`` said."""
        if self._failure is not None:
            # A copy: an error that lives on would keep its traceback, and that the caller's memory.
            raise copy(self._failure)
        events.validate(event)
        recorded = RecordedEvent(
            events.event_type_of(event), events.to_fields(event), context.correlation_id.get()
        )
        with self._events_lock:
            index = len(self._events)
            self._events.append(recorded)
        for hook in self._written_hooks:
            hook([_line(index, recorded)], 0.0)

    def emit_all(self, events: Iterable[Event]) -> list[Any]:
        """Keep them all; there are no receipts."""
        for event in events:
            self.emit(event)
        return []

    def flush(self, timeout_s: float | None = None) -> None:
        """Nothing waits here."""

    def tick(self) -> None:
        """Nothing is due."""

    def stats(self) -> LogStats:
        """How many events were kept; all else is zero."""
        return msgspec.structs.replace(AuditLogger.disabled().stats(), accepted=len(self.recorded))

    def close(self) -> None:
        """Nothing is held."""

    def query(self, **filters: Any) -> Iterator[bytes]:  # noqa: ARG002 - no lines are kept
        """No lines: ask ``recorded`` or ``of_type``."""
        return iter(())


def _line(index: int, recorded: RecordedEvent) -> bytes:
    envelope = {
        "index": index,
        "timestamp": rfc3339(SYSTEM_CLOCK.now_ns()),
        "event_type": recorded.event_type,
    }
    return msgspec.json.encode(envelope | recorded.fields)
