"""What the worker itself records beside the manager: attempts from outside, and what a dead worker lost."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Final

import msgspec

from vram_residency import narration
from vram_residency.audit.events import (
    Actor,
    MalformedModelRejected,
    PathTraversalAttempt,
    ShardsLost,
    event_type_of,
)
from vram_residency.audit.events.base import Event
from vram_residency.audit.log import AuditLogger
from vram_residency.core import context
from vram_residency.core.errors import AuditError, MalformedModelError
from vram_residency.worker.lost import lost_shards
from vram_residency.worker.roots import PathEscapeError

Report = Callable[[Event], Any]

#: Shards named by one entry; an entry has a limited length.
_LOST_PER_ENTRY: Final = 100
_UNKNOWN: Final = {"user_id": "unknown", "auth_method": "internal"}


class Incidents:
    """Records what happened; an audit error never hides what is happening, and is narrated.

    ``report`` emits what strangers can cause as often as they like: the server gives one that counts
    repetitions instead of writing them all.
    """

    def __init__(self, audit_logger: AuditLogger, *, worker_id: str, report: Report | None) -> None:
        self._logger = audit_logger
        self._worker_id = worker_id
        self._report = report or audit_logger.emit

    @contextmanager
    def recording_paths(self, path: str, endpoint: str) -> Iterator[None]:
        """Record an attempt to leave the model roots."""
        try:
            yield
        except PathEscapeError:
            self._emit(PathTraversalAttempt(actor=actor(), attempted_path=path, endpoint=endpoint))
            raise

    @contextmanager
    def recording_models(self, model_ref: str) -> Iterator[None]:
        """Record a model that breaks a rule of its format, where the manager is not asked to seal it."""
        try:
            yield
        except MalformedModelError as error:
            event = MalformedModelRejected(
                model_ref=model_ref,
                validation_error=str(error),
                severity="HIGH",
                action_taken="request_rejected",
                worker_id=self._worker_id,
            )
            self._emit(event)
            raise

    def record_lost(self, held: Sequence[str]) -> list[str]:
        """Find and record what the last session of this worker lost; ``held`` are this session's own."""
        if self._logger.directory is None:
            return []
        found = lost_shards(self._logger.directory, self._worker_id)
        lost = [shard_id for shard_id in found if shard_id not in held]
        for start in range(0, len(lost), _LOST_PER_ENTRY):
            some = lost[start : start + _LOST_PER_ENTRY]
            self._logger.emit(
                ShardsLost(shard_ids=some, reason="the worker ended without giving them back"), durable=True
            )
        if lost:
            narration.narrate(
                action="shards_lost",
                target=self._worker_id,
                human=f"{len(lost)} shards were lost when worker '{self._worker_id}' ended last time",
            )
        return lost

    def _emit(self, event: Event) -> None:
        try:
            self._report(event)
        except AuditError as error:
            what = event_type_of(event)
            narration.narrate(
                action="audit_failed",
                target=what,
                human=f"Audit event '{what}' could not be recorded: {type(error).__name__}",
                level="error",
            )


def actor() -> Actor:
    """Who makes the request of this context, as far as anybody found out."""
    return msgspec.convert(context.actor.get() or _UNKNOWN, Actor)
