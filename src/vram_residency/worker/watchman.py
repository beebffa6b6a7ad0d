"""Keeps the worker's conditions, and records and narrates every change of state."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import msgspec

from vram_residency import narration
from vram_residency.audit.events import WorkerStateChanged
from vram_residency.audit.log import AuditLogger
from vram_residency.core.errors import AuditError
from vram_residency.worker.states import Change, Conditions, State, step


class Watchman:
    """Thread-safe. Changes are recorded in the order in which they happened."""

    def __init__(self, audit_logger: AuditLogger, *, worker_id: str, may_be_empty: bool) -> None:
        self._logger = audit_logger
        self._worker_id = worker_id
        # Guards the conditions; reentrant, for a hook may ask for the state while one is recorded.
        self._lock = threading.RLock()
        self._conditions = Conditions(may_be_empty=may_be_empty)

    @property
    def conditions(self) -> Conditions:
        """What holds now."""
        return self._conditions

    @property
    def state(self) -> State:
        """The state now."""
        return self._conditions.state

    def note(self, reason: str, **changed: Any) -> None:
        """Take note of what holds now. ``changed`` are fields of Conditions."""
        with self._lock:
            self._become(msgspec.structs.replace(self._conditions, **changed), reason)

    def stop(self, reason: str) -> None:
        """Stop for good; the first reason stays."""
        with self._lock:
            if self._conditions.stopped_by is None:
                self.note(reason, stopped_by=reason)

    @contextmanager
    def executing(self) -> Iterator[None]:
        """One execution under way."""
        self._count(1, "an execution began")
        try:
            yield
        finally:
            self._count(-1, "the last execution ended")

    def _count(self, by: int, reason: str) -> None:
        with self._lock:
            self.note(reason, executions=self._conditions.executions + by)

    def _become(self, conditions: Conditions, reason: str) -> None:
        change = step(self._conditions, conditions, reason)
        self._conditions = conditions
        if change is not None:
            self._tell(change)

    def _tell(self, change: Change) -> None:
        event = WorkerStateChanged(
            worker_id=self._worker_id,
            from_state=change.from_state.value,
            to_state=change.to_state.value,
            reason=change.reason,
        )
        try:
            self._logger.emit(event)
        except AuditError as error:
            narration.narrate(
                action="audit_failed",
                target="worker_state_changed",
                human=f"Audit event 'worker_state_changed' could not be recorded: {type(error).__name__}",
                level="error",
            )
        narration.narrate(
            action="worker_state",
            target=self._worker_id,
            human=f"Worker is {change.to_state} (was {change.from_state}): {change.reason}",
            level="error" if self._conditions.stopped_by is not None else "info",
        )
