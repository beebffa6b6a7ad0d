"""What emit() takes from an event, and what the writer later makes of it (spec: audit-log.md sections 4, 5).

An event is encoded at once: what the caller does to its lists afterwards changes nothing, and the buffer
holds flat bytes of bounded size. The costly cleaning waits until the event is written, except where the
event cannot be encoded as it is (lone surrogates) or is so large that it must be cut first.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

import msgspec

from vram_residency.audit.events import shape, to_fields
from vram_residency.audit.events.base import Event
from vram_residency.audit.events.cleaning import SPECIAL_FIELDS, Pseudonymize, clean_fields
from vram_residency.audit.events.registry import LOG_OWN_TYPES, class_if_known, event_type_of
from vram_residency.core import context
from vram_residency.core.errors import InvalidEventError
from vram_residency.core.redaction import redact
from vram_residency.core.text import TEXT_BYTES_MAX

#: Events whose own fields take more are cleaned, and thereby cut, at emit().
PAYLOAD_BYTES_MAX: Final = 16_384

_RESERVED_TYPES: Final = frozenset({"policy_violation", "integrity_violation"}) | LOG_OWN_TYPES
_RESERVED_PREFIX: Final = "seal_"

_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(dict[str, object]).decode
_correlation_id_of = context.correlation_id.get
_actor_of = context.actor.get


class Kind(msgspec.Struct, frozen=True, kw_only=True):
    """What is true of every event of a type. ``prefix`` begins its records in the journal.

    ``is_plain``: none of its fields has a rule of its own in cleaning.
    """

    event_type: str
    check: Callable[[object], bool]
    prefix: bytes
    is_critical: bool = False
    is_reserved: bool = False
    is_plain: bool = False
    declares_actor: bool = False
    declares_correlation_id: bool = False


class Content(msgspec.Struct, frozen=True, gc=False):
    """An accepted event as flat data. ``payload`` is the JSON object of its own fields.

    ``prefix`` stands before it in the journal: a line of the event's type, one of envelope or ``sanitized``.
    ``sanitized`` is None while the cleaning (audit-log.md section 5) is still to be done, and ``envelope``
    then is the JSON object of the context's fields, or empty. Afterwards the payload is clean and holds those
    fields too, and ``sanitized`` are the names of what was changed.
    """

    kind: Kind
    payload: bytes
    prefix: bytes
    envelope: bytes = b""
    sanitized: tuple[str, ...] | None = None


_kinds: dict[type, Kind] = {}


def accept(event: Event, pseudonymize: Pseudonymize | None = None) -> Content:
    """Check an event and take its content. Raises InvalidEventError; then nothing was accepted."""
    try:
        kind = _kinds[type(event)]
    except KeyError:
        kind = _learn(event)
    if not kind.check(event):
        raise InvalidEventError(kind.event_type, shape.find_fault(event))
    try:
        # The encoder writes claimed_at first, an entry has it last.
        payload = _encode(event if event.claimed_at is None else to_fields(event))
        if len(payload) <= PAYLOAD_BYTES_MAX:
            if _correlation_id_of() is None and _actor_of() is None:
                return Content(kind, payload, kind.prefix)
            envelope = _envelope(kind)
            if len(envelope) <= PAYLOAD_BYTES_MAX:
                return Content(kind, payload, kind.prefix[:-1] + envelope + b"\n", envelope)
    except UnicodeEncodeError:
        pass
    return _clean_now(kind, to_fields(event), pseudonymize)


def accept_own(event: Event) -> Content:
    """accept() for an event of the log's own that tells what others wrote: cleaned at once."""
    return _clean_now(_kind_of(event_type_of(event), type(event)), to_fields(event), None)


def recover(body: bytes) -> Content:
    """The content of a journal's record, as another process's accept() gave it. Raises ValueError."""
    event_type, envelope, payload = body.split(b"\n", 2)
    sanitized = msgspec.json.decode(envelope, type=tuple[str, ...]) if envelope.startswith(b"[") else None
    kind = _kind_named(event_type.decode())
    prefix = event_type + b"\n" + envelope + b"\n"
    return Content(kind, payload, prefix, envelope if sanitized is None else b"", sanitized)


def fields_of(
    content: Content, pseudonymize: Pseudonymize | None = None
) -> tuple[dict[str, object], tuple[str, ...]]:
    """The clean fields of an entry in their order, and the dotted names of those that were changed."""
    fields = _decode(content.payload)
    if content.sanitized is not None:
        return fields, content.sanitized
    if content.envelope:
        fields = _decode(content.envelope) | fields
    return clean_fields(fields, pseudonymize=pseudonymize)


def are_plain(contents: Sequence[Content]) -> bool:
    """Whether the payloads are surely clean as they are, envelopes included. False where unsure.

    Looks at many at once, which costs little more than one: nothing clean is made unclean by a neighbour.
    """
    if not all(content.kind.is_plain and content.sanitized is None for content in contents):
        return False
    texts = [content.payload for content in contents]
    texts.extend([content.envelope for content in contents if content.envelope])
    if min(map(len, texts)) <= len(b"{}"):
        return False
    # Nothing longer holds, by one text or all together, what would have to be cut.
    if max(map(len, texts)) > TEXT_BYTES_MAX:
        return False
    joined = b"\n".join(texts)
    # No backslash: no escapes, every text stands here as it is. No bracket: no list that could be too long.
    if not joined.isascii() or b"\\" in joined or b"[" in joined or b"\x7f" in joined:
        return False
    text = joined.decode("ascii")
    return redact(text) is text


def _learn(event: Event) -> Kind:
    event_type = event_type_of(event)
    if event_type in LOG_OWN_TYPES:
        raise InvalidEventError(event_type, "only the log itself makes this event")
    kind = _kinds[type(event)] = _kind_of(event_type, type(event))
    return kind


def _kind_of(event_type: str, cls: type[Event]) -> Kind:
    fields = frozenset(cls.__struct_fields__)
    return Kind(
        event_type=event_type,
        check=shape.check_of(cls),
        prefix=f"{event_type}\n\n".encode(),
        is_critical=cls.critical,
        is_reserved=event_type in _RESERVED_TYPES or event_type.startswith(_RESERVED_PREFIX),
        is_plain=SPECIAL_FIELDS.isdisjoint(fields),
        declares_actor="actor" in fields,
        declares_correlation_id="correlation_id" in fields,
    )


def _kind_named(event_type: str) -> Kind:
    """The kind of an event that an earlier process accepted, whose class this one need not know."""
    cls = class_if_known(event_type)
    if cls is not None:
        return _kinds.get(cls) or _kind_of(event_type, cls)
    return Kind(event_type=event_type, check=lambda _: False, prefix=f"{event_type}\n\n".encode())


def _context_fields(kind: Kind) -> dict[str, object]:
    fields: dict[str, object] = {}
    correlation_id = None if kind.declares_correlation_id else _correlation_id_of()
    if correlation_id is not None:
        fields["correlation_id"] = str(correlation_id)
    actor = None if kind.declares_actor else _actor_of()
    if actor is not None:
        fields["actor"] = {str(name): str(value) for name, value in actor.items()}
    return fields


def _envelope(kind: Kind) -> bytes:
    fields = _context_fields(kind)
    return _encode(fields) if fields else b""


def _clean_now(kind: Kind, fields: dict[str, object], pseudonymize: Pseudonymize | None) -> Content:
    cleaned, names = clean_fields(_context_fields(kind) | fields, pseudonymize=pseudonymize)
    prefix = kind.prefix[:-1] + _encode(names) + b"\n"
    return Content(kind, _encode(cleaned), prefix, b"", names)
