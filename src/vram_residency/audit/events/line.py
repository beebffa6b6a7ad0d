"""Events as lines of JSON from other programs (spec: cli.md, `vram audit emit`; events.md)."""

from __future__ import annotations

import json
from typing import Any, Final, NoReturn

import msgspec

from vram_residency.audit.events import from_mapping
from vram_residency.audit.events.base import Actor, Event
from vram_residency.audit.events.registry import LOG_OWN_TYPES, class_of, declares
from vram_residency.core.errors import InvalidEventError
from vram_residency.core.identifiers import is_correlation_id

#: A line that cannot become an entry of 65,535 bytes even after cutting is still taken, up to here.
LINE_BYTES_MAX: Final = 16 * 1024 * 1024
_UNKNOWN: Final = "(unknown)"
_EXAMPLE: Final = 'A line is such as {"event_type":"seal_verified","shard_id":"s-1","worker_id":"w-0"}.'


class EventLine(msgspec.Struct, frozen=True):
    """An event, and what its line says for the envelope."""

    event: Event
    correlation_id: str | None = None
    actor: dict[str, str] | None = None


def parse_event_line(line: bytes) -> EventLine:
    """One JSON object ``{"event_type": …, fields…}``, types strict, no duplicate keys, no floats.

    Besides the event's fields it may hold ``correlation_id`` and ``actor`` for the envelope, and the
    caller's own time as ``timestamp`` (or ``claimed_at``), which becomes ``claimed_at``. The log's own
    events are refused: only its writer makes them. Raises InvalidEventError.
    """
    # 1. JSON in one meaning only.
    fields = _parse_object(line)
    # 2. The name.
    event_type = fields.pop("event_type", None)
    if not isinstance(event_type, str):
        raise InvalidEventError(_UNKNOWN, "event_type is missing or not text", hint=_EXAMPLE)
    class_of(event_type)
    if event_type in LOG_OWN_TYPES:
        raise InvalidEventError(event_type, "only the log's writer makes this event")
    # 3. What belongs to the envelope.
    correlation_id = _take_correlation_id(event_type, fields)
    actor = _take_actor(event_type, fields)
    if "timestamp" in fields:
        if "claimed_at" in fields:
            raise InvalidEventError(event_type, "timestamp and claimed_at are the same thing; give one")
        fields["claimed_at"] = fields.pop("timestamp")
    # 4. The event's own fields.
    return EventLine(from_mapping(event_type, fields), correlation_id, actor)


def _parse_object(line: bytes) -> dict[str, object]:
    if len(line) > LINE_BYTES_MAX:
        raise InvalidEventError(_UNKNOWN, f"the line is over {LINE_BYTES_MAX} bytes")
    try:
        value = json.loads(
            line.decode("utf-8"), object_pairs_hook=_unique, parse_float=_no_float, parse_constant=_no_float
        )
    except (ValueError, RecursionError) as error:
        rule = f"the line is not JSON: {_words(error)}"
        raise InvalidEventError(_UNKNOWN, rule, hint=_EXAMPLE) from None
    if not isinstance(value, dict):
        raise InvalidEventError(_UNKNOWN, "the line is not a JSON object", hint=_EXAMPLE)
    return value


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a key appears twice")
    return found


def _no_float(text: str) -> NoReturn:
    raise ValueError(f"{text[:32]} is not a whole number")


def _words(error: Exception) -> str:
    match error:
        case RecursionError():
            return "nested too deep"
        case UnicodeDecodeError():
            return f"not UTF-8 at byte {error.start}"
        case json.JSONDecodeError():
            return f"{error.msg} at character {error.pos}"
    return str(error)[:100]


def _take_correlation_id(event_type: str, fields: dict[str, object]) -> str | None:
    if declares(event_type, "correlation_id"):
        return None
    value = fields.pop("correlation_id", None)
    if value is None:
        return None
    if not isinstance(value, str) or not is_correlation_id(value):
        raise InvalidEventError(event_type, "correlation_id must be 1 to 128 of A-Z a-z 0-9 . _ -")
    return value


def _take_actor(event_type: str, fields: dict[str, object]) -> dict[str, str] | None:
    if declares(event_type, "actor"):
        return None
    value = fields.pop("actor", None)
    if value is None:
        return None
    try:
        actor = msgspec.convert(value, Actor, strict=True)
    except msgspec.ValidationError:
        raise InvalidEventError(event_type, "actor is not {user_id, ip?, auth_method, session_id?}") from None
    plain: dict[str, str] = msgspec.to_builtins(actor)
    return plain
