"""From a few facts to an event: made safe, put into words, given to captures and outputs."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final, TypedDict, cast

from vram_residency.core import context
from vram_residency.core.clock import rfc3339
from vram_residency.core.errors import InvalidInputError
from vram_residency.core.identifiers import is_correlation_id, new_correlation_id
from vram_residency.core.redaction import redact, safe_text
from vram_residency.narration import listeners, output
from vram_residency.narration.capture import stories
from vram_residency.narration.cute import CUTE
from vram_residency.narration.event import OPTIONAL_FIELDS, NarrationEvent, Value
from vram_residency.narration.gate import gate
from vram_residency.narration.sentences import HUMAN, Place, compose, sentence_of
from vram_residency.narration.trace import trace_fields
from vram_residency.narration.vocabulary import (
    LEVEL_NAMES,
    MUTE,
    OURSELVES,
    level_number,
    require_actor,
    usual_level,
)

REPLACED_CORRELATION: Final = "correlation_replaced"
#: Names that the event itself or its way through structlog needs.
_RESERVED: Final = frozenset({"details", "emitted_at", "emitted_by", "event", "sentence"})
_FIELD_NAME = re.compile(r"[a-z][a-z0-9_]{0,63}\Z")


class Context(TypedDict, total=False):
    """What every function takes besides its own; missing ids come from the context variables."""

    correlation_id: str | None
    worker_id: str | None
    model_ref: str | None


def narrate(
    *,
    action: str,
    target: str,
    human: str,
    level: str | None = None,
    actor: str = OURSELVES,
    cute: str | None = None,
    **fields: Value,
) -> None:
    """Tell of something that the thirteen functions do not cover.

    ``action`` and ``actor`` must be registered; ``level`` defaults to the action's own. ``fields`` are the
    optional fields of narration.md or any other in snake_case. Raises InvalidInputError for a word outside
    the vocabularies: that is a mistake in the program.
    """
    number = usual_level(action) if level is None else level_number(level)
    if number < gate.floor or not is_heard(number):
        return
    require_actor(actor)
    uuids = output.settings().uuids
    event_fields = _safe_fields(fields, uuids=uuids)
    words = {
        "human": sentence_of(human, uuids=uuids),
        "cute": None if cute is None else sentence_of(cute, uuids=uuids),
    }
    _deliver(number, {"actor": actor, "action": action, "target": target, **words, **event_fields})


def tell(
    action: str,
    level: int,
    *,
    target: str,
    place: Place | None,
    parts: Mapping[str, str],
    fields: Mapping[str, Value],
    shared: Context,
) -> None:
    """One of the thirteen: the action's sentences, filled with ``parts``, and its fields.

    The caller has asked `is_heard`.
    """
    current = output.settings()
    uuids = current.uuids
    words = {name: safe_text(str(part), uuids=uuids) for name, part in parts.items()}
    if place is not None:
        words |= place.words()
    ids = cast("Mapping[str, Value]", shared)
    said = {**ids, "device": place.label if place is not None else None, **fields}
    told: dict[str, Value] = {
        "actor": OURSELVES,
        "action": action,
        "target": target,
        "human": compose(HUMAN[action], words, uuids=uuids),
    }
    if current.mode == "cute" or stories():
        told["cute"] = compose(CUTE[action], words, uuids=uuids)
    _deliver(level, _safe_fields(said, uuids=uuids) | told)


def is_heard(level: int) -> bool:
    """Whether a capture of this context, a listener or the output wants an event of this level.

    Only asked where the gate's floor has let it pass: while something is captured, that lets everything.
    """
    return bool(stories()) or listeners.wanted(level) or (level >= gate.level and output.accepts(level))


def _safe_fields(fields: Mapping[str, Value], *, uuids: bool) -> dict[str, Value]:
    """Fields that say something, made safe; ids missing in them are taken from the context."""
    said = {
        "worker_id": context.worker_id.get(),
        "correlation_id": context.correlation_id.get(),
        **{name: value for name, value in fields.items() if value is not None},
    }
    safe: dict[str, Value] = {}
    for name, value in said.items():
        if not _FIELD_NAME.match(name) or name in _RESERVED:
            raise InvalidInputError("field", "must have a snake_case name that events do not have already")
        # A correlation id may be a UUID and stays readable: following it is what it is for.
        is_plain = value is None or isinstance(value, int | float) or name == "correlation_id"
        safe[name] = value if is_plain else safe_text(str(value), uuids=uuids)
    if safe["correlation_id"] is not None:
        safe["correlation_id"] = accepted_correlation_id(str(safe["correlation_id"]))
    return safe


def accepted_correlation_id(unverified: str) -> str:
    """The id, or a new one in place of an invalid one, which is narrated (narration.md, Correlation).

    An id that the redaction would touch is a secret in the wrong place: invalid too.
    """
    if is_correlation_id(unverified) and redact(unverified) == unverified:
        return unverified
    replacement = new_correlation_id()
    narrate(
        action=REPLACED_CORRELATION,
        target="correlation_id",
        human=f"Replaced an invalid correlation id by the new one {replacement}",
        correlation_id=replacement,
    )
    return replacement


def _deliver(level: int, told: Mapping[str, Value]) -> None:
    current = output.settings()
    known = {name: value for name, value in told.items() if name in _KNOWN}
    event = NarrationEvent(
        emitted_at=rfc3339(current.clock.now_ns()),
        level=LEVEL_NAMES[level],
        emitted_by=current.emitted_by,
        details={name: value for name, value in told.items() if name not in _KNOWN},
        **{**trace_fields(), **known, "target": safe_text(str(told["target"]), uuids=current.uuids)},  # type: ignore[arg-type]
    )
    for story in stories():
        story.record(event)
    output.note_lost(listeners.hear(level, event))
    if gate.level <= level < MUTE and output.accepts(level):
        output.put_out(event)


_KNOWN: Final = OPTIONAL_FIELDS | {"actor", "action", "target", "human", "cute"}
