"""What emit() takes from an event, and what the writer later makes of it (spec: audit-log.md sections 4, 5).

An event is encoded at once: what the caller does to its lists afterwards changes nothing, and the buffer
holds flat bytes of bounded size. The costly cleaning waits until the event is written, except where the
event cannot be encoded as it is (lone surrogates) or is so large that it must be cut first.
"""

from __future__ import annotations

from typing import Final

import msgspec

from vram_residency.audit.cleaning import Pseudonymize, clean_fields
from vram_residency.audit.event_base import Event
from vram_residency.audit.events import to_fields, validate
from vram_residency.audit.registry import LOG_OWN_TYPES, declares, event_type_of, is_critical
from vram_residency.core import context
from vram_residency.core.errors import InvalidEventError

#: Events whose own fields take more are cleaned, and thereby cut, at emit().
PAYLOAD_BYTES_MAX: Final = 16_384

_RESERVED_TYPES: Final = frozenset({"policy_violation", "integrity_violation"})
_RESERVED_PREFIX: Final = "seal_"

_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(dict[str, object]).decode


class Content(msgspec.Struct, frozen=True, kw_only=True):
    """An accepted event as flat data. ``payload`` is the JSON object of its own fields.

    ``sanitized`` is None while the cleaning (audit-log.md section 5) is still to be done; else the payload
    is clean, holds the context's fields too, and these are the names of what was changed.
    """

    event_type: str
    payload: bytes
    correlation_id: str | None = None
    actor: dict[str, str] | None = None
    sanitized: tuple[str, ...] | None = None
    is_critical: bool = False
    is_reserved: bool = False


class _Kind(msgspec.Struct, frozen=True):
    """What is true of every event of a class."""

    event_type: str
    is_critical: bool
    is_reserved: bool
    declares_actor: bool
    declares_correlation_id: bool


_kinds: dict[type, _Kind] = {}


def accept(event: Event, pseudonymize: Pseudonymize | None = None) -> Content:
    """Check an event and take its content. Raises InvalidEventError; then nothing was accepted."""
    kind = _kinds.get(type(event)) or _learn(event)
    validate(event)
    correlation_id = None if kind.declares_correlation_id else context.correlation_id.get()
    actor = None if kind.declares_actor else context.actor.get()
    try:
        # The encoder writes claimed_at first, an entry has it last.
        payload = _encode(event if event.claimed_at is None else to_fields(event))
    except UnicodeEncodeError:
        payload = b""
    content = Content(
        event_type=kind.event_type,
        payload=payload,
        correlation_id=None if correlation_id is None else str(correlation_id),
        actor=None if actor is None else {str(name): str(value) for name, value in actor.items()},
        is_critical=kind.is_critical,
        is_reserved=kind.is_reserved,
    )
    if payload and len(payload) <= PAYLOAD_BYTES_MAX and _is_encodable(content):
        return content
    return _clean_now(content, to_fields(event), pseudonymize)


def fields_of(
    content: Content, pseudonymize: Pseudonymize | None = None
) -> tuple[dict[str, object], tuple[str, ...]]:
    """The clean fields of an entry in their order, and the dotted names of those that were changed."""
    fields = _decode(content.payload)
    if content.sanitized is not None:
        return fields, content.sanitized
    return clean_fields(_with_context(content, fields), pseudonymize=pseudonymize)


def _learn(event: Event) -> _Kind:
    event_type = event_type_of(event)
    if event_type in LOG_OWN_TYPES:
        raise InvalidEventError(event_type, "only the log itself makes this event")
    kind = _Kind(
        event_type,
        is_critical(event_type),
        event_type in _RESERVED_TYPES or event_type.startswith(_RESERVED_PREFIX),
        declares(event_type, "actor"),
        declares(event_type, "correlation_id"),
    )
    _kinds[type(event)] = kind
    return kind


def _with_context(content: Content, fields: dict[str, object]) -> dict[str, object]:
    whole: dict[str, object] = {}
    if content.correlation_id is not None:
        whole["correlation_id"] = content.correlation_id
    if content.actor is not None:
        whole["actor"] = content.actor
    whole.update(fields)
    return whole


def _is_encodable(content: Content) -> bool:
    if content.correlation_id is None and content.actor is None:
        return True
    try:
        size = len(_encode((content.correlation_id, content.actor)))
    except UnicodeEncodeError:
        return False
    return size <= PAYLOAD_BYTES_MAX


def _clean_now(content: Content, fields: dict[str, object], pseudonymize: Pseudonymize | None) -> Content:
    cleaned, names = clean_fields(_with_context(content, fields), pseudonymize=pseudonymize)
    return msgspec.structs.replace(
        content, payload=_encode(cleaned), correlation_id=None, actor=None, sanitized=names
    )
