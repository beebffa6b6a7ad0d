"""What strangers do, on the record and within bounds: incidents through a coalescer into the audit log."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from typing import Any, Final

from vram_residency.audit.events import Actor, AuthSuccess, SuspiciousActivity, event_type_of
from vram_residency.audit.events.base import Event
from vram_residency.audit.log import AuditLogger
from vram_residency.core import context
from vram_residency.core.errors import AuditError
from vram_residency.worker.caller import Caller
from vram_residency.worker.coalescing import Coalescer, Summary

_RISK_SCORE: Final = 50


class Reporter:
    """Thread-safe. An event that the log refuses is counted by the log; no request fails for it."""

    def __init__(
        self, audit_logger: AuditLogger, *, monotonic_s: Callable[[], float] = time.monotonic
    ) -> None:
        self._logger = audit_logger
        self._now_s = monotonic_s
        self._lock = threading.Lock()  # guards both coalescers
        self._incidents = Coalescer()
        self._successes = Coalescer()

    def report(self, event: Event, address: str | None = None) -> None:
        """Record an incident, or count it. ``address`` None: that of the caller whose request this is."""
        if address is None:
            actor = context.actor.get() or {}
            address = actor.get("ip") or actor.get("user_id") or "local"
        kind = event_type_of(event)
        with self._lock:
            now_s = self._now_s()
            ended = self._incidents.due(now_s)
            is_first = self._incidents.admit(kind, address, now_s)
        self._record(_event_of(summary) for summary in ended)
        if is_first:
            self._record([event])

    def succeeded(self, caller: Caller, address: str, path: str) -> None:
        """Record that somebody was recognised: the first time in each window."""
        with self._lock:
            now_s = self._now_s()
            self._successes.due(now_s)
            is_first = self._successes.admit(caller.user_id, address, now_s)
        if is_first:
            self._record([AuthSuccess(actor=Actor(**caller.actor), method=caller.auth_method, path=path)])

    def tick(self) -> None:
        """Record the counts of windows that have ended."""
        with self._lock:
            ended = self._incidents.due(self._now_s())
        self._record(_event_of(summary) for summary in ended)

    def close(self) -> None:
        """Record all counts: the worker ends."""
        with self._lock:
            rest = self._incidents.rest(self._now_s())
        self._record(_event_of(summary) for summary in rest)

    def _record(self, events: Iterable[Any]) -> None:
        for event in events:
            with suppress(AuditError):
                self._logger.emit(event)


def _event_of(summary: Summary) -> SuspiciousActivity:
    return SuspiciousActivity(
        actor=Actor(user_id="unknown", ip=summary.address, auth_method="internal"),
        activity_type=summary.event_type,
        details=f"{summary.count} more within {summary.duration_s:.0f} s, from {summary.address}",
        risk_score=_RISK_SCORE,
    )
