"""Which events there are: the built-in ones and those a user registers (spec: events.md)."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import TypeVar

from vram_residency.audit.events import family as family_events
from vram_residency.audit.events import own as own_events
from vram_residency.audit.events import shape
from vram_residency.audit.events import vram as vram_events
from vram_residency.audit.events.base import Event
from vram_residency.audit.format import entry
from vram_residency.core.errors import InvalidEventError

#: What the entry itself carries: no user event may declare these (audit-log.md section 2).
#: ``correlation_id`` and ``actor`` it may: then the envelope leaves its own out.
ENVELOPE_NAMES = entry.ENVELOPE_NAMES | {"claimed_at"}
_NAME = re.compile(r"[a-z][a-z0-9_]*(\.[a-z][a-z0-9_]*)+\Z")
_NAME_CHARACTERS_MAX = 128
_FIELD_CHARACTERS_MAX = 64
#: So many texts of the shortest cut form always fit an entry (cleaning.py).
_TEXTS_MAX = 100

EventClass = TypeVar("EventClass", bound=type[Event])


def _snake(name: str) -> str:
    return re.sub(r"(?<!^)(?=[A-Z])", "_", name).lower()


#: Every built-in event class by its name on the wire.
BUILT_IN: Mapping[str, type[Event]] = {
    _snake(cls.__name__): cls for cls in (*vram_events.EVENTS, *family_events.EVENTS, *own_events.EVENTS)
}
#: Events that only the log's writer makes.
LOG_OWN_TYPES = frozenset(_snake(cls.__name__) for cls in own_events.EVENTS)

_by_type: dict[str, type[Event]] = dict(BUILT_IN)
_by_class: dict[type, str] = {cls: name for name, cls in BUILT_IN.items()}


def register(event_type: str) -> Callable[[EventClass], EventClass]:
    """Add an event of your own under a namespaced name; a class decorator.

    ::

        @register("acme.model_promoted")
        class ModelPromoted(Event, frozen=True, kw_only=True):
            model_ref: str
            approved_by: str

    Raises InvalidEventError where the name is not namespaced, is taken, or could be read as a built-in
    one, and where a field is an envelope name or has a type that events.md does not know.
    """

    def decorate(cls: EventClass) -> EventClass:
        _require_name(event_type, cls)
        _require_fields(event_type, cls)
        _by_type[event_type] = cls
        _by_class[cls] = event_type
        return cls

    return decorate


def event_type_of(event: object) -> str:
    """The event's name on the wire. Raises InvalidEventError for a class that is not registered."""
    try:
        return _by_class[type(event)]
    except KeyError:
        raise InvalidEventError(
            type(event).__name__,
            "its class is not registered",
            hint="Register the class: @register('yourname.event_name').",
        ) from None


def class_if_known(event_type: str) -> type[Event] | None:
    """The class of a name, or None where nobody registered it."""
    return _by_type.get(event_type)


def is_critical(event_type: str) -> bool:
    """Whether events of this type are flushed at once. False for a name that nobody registered."""
    cls = _by_type.get(event_type)
    return cls is not None and cls.critical


def declares(event_type: str, name: str) -> bool:
    """Whether the event carries ``actor`` or ``correlation_id`` itself: the envelope's is then left out."""
    cls = _by_type.get(event_type)
    return cls is not None and name in cls.__struct_fields__


def canonical_type(name: str) -> str:
    """A name as queries take it: ``vram.sealed`` is ``vram_sealed``; any other name stays as it is."""
    if name in _by_type:
        return name
    flat = name.replace(".", "_")
    return flat if flat in BUILT_IN else name


def class_of(event_type: str) -> type[Event]:
    """The class of a registered name. Raises InvalidEventError with the nearest known name as a hint."""
    cls = _by_type.get(event_type)
    if cls is not None:
        return cls
    known = canonical_type(event_type)
    hint = f"On the wire it is '{known}'." if known in _by_type else _nearest(event_type)
    raise InvalidEventError(event_type[:_NAME_CHARACTERS_MAX], "no such event is registered", hint=hint)


def _nearest(event_type: str) -> str | None:
    from difflib import get_close_matches

    if "." in event_type:
        return "An event of your own is known only to a program that registers its class."
    matches = get_close_matches(event_type[:_NAME_CHARACTERS_MAX], _by_type, n=1)
    return f"Did you mean '{matches[0]}'?" if matches else None


def _require_name(event_type: str, cls: type[Event]) -> None:
    def refuse(rule: str) -> InvalidEventError:
        return InvalidEventError(event_type, rule, hint="Choose a name such as 'acme.model_promoted'.")

    if _NAME.match(event_type) is None or len(event_type) > _NAME_CHARACTERS_MAX:
        raise refuse("a user's event needs a namespaced name of a-z 0-9 _ and dots")
    if event_type in _by_type:
        raise refuse("the name is taken")
    if canonical_type(event_type) in BUILT_IN:
        raise refuse("queries would read the name as a built-in event")
    if cls in _by_class:
        raise refuse(f"the class is registered as '{_by_class[cls]}'")


def _require_fields(event_type: str, cls: type) -> None:
    if not issubclass(cls, Event) or not cls.__struct_config__.frozen:
        raise InvalidEventError(event_type, "the class must be a frozen Event")
    fields = [name for name in cls.__struct_fields__ if name != "claimed_at"]
    if forbidden := sorted(ENVELOPE_NAMES.intersection(fields)):
        raise InvalidEventError(event_type, f"envelope names cannot be declared: {', '.join(forbidden)}")
    if any(len(name) > _FIELD_CHARACTERS_MAX for name in fields):
        raise InvalidEventError(event_type, f"a field's name is over {_FIELD_CHARACTERS_MAX} characters")
    try:
        texts = sum(kind.texts for kind in shape.kinds_of(cls).values())
    except TypeError as error:
        raise InvalidEventError(event_type, str(error)) from error
    if texts > _TEXTS_MAX:
        raise InvalidEventError(event_type, f"over {_TEXTS_MAX} fields, counted with the parts of an Actor")
