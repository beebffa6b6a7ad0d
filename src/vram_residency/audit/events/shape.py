"""Checks that an event's fields have their declared types, compiled once per class.

msgspec checks types when it decodes, not when a Struct is built, and emit() has a microsecond
(performance.md): each class gets one expression over its fields; the slow path only finds the words.
"""

from __future__ import annotations

from collections.abc import Callable
from types import NoneType, UnionType
from typing import NamedTuple, Union, get_args, get_origin, get_type_hints

import msgspec

from vram_residency.audit.events.base import (
    RISK_SCORE_MAX,
    UINT_MAX,
    Actor,
    Change,
    Failure,
    PartialSuccess,
    Resource,
    Result,
    RiskScore,
    Strings,
    Success,
    Time,
    Uint,
    Uints,
    is_time,
)

_SETTING_DEPTH_MAX = 16

Check = Callable[[object], bool]


class Kind(NamedTuple):
    """How a field of one type is checked: a Python expression over ``{v}``, and its name for people.

    ``texts`` is the number of texts in it at most, a list or map being one after cutting.
    """

    expression: str
    name: str
    texts: int = 1


def _is_strings(value: object) -> bool:
    return type(value) in {list, tuple} and all(type(item) is str for item in value)  # type: ignore[attr-defined]


def _is_uints(value: object) -> bool:
    return type(value) in {list, tuple} and all(
        type(item) is int and 0 <= item <= UINT_MAX
        for item in value  # type: ignore[attr-defined]
    )


def _is_result(value: object) -> bool:
    return isinstance(value, Success | Failure | PartialSuccess) and check_of(type(value))(value)


def _is_changes(value: object) -> bool:
    return type(value) is dict and all(
        type(key) is str and type(change) is Change and _is_setting(change.old) and _is_setting(change.new)
        for key, change in value.items()
    )


def _is_setting(value: object, depth: int = 0) -> bool:
    if value is None or type(value) in {str, bool}:
        return True
    if type(value) is int:
        return -UINT_MAX <= value <= UINT_MAX
    if depth >= _SETTING_DEPTH_MAX:
        return False
    if type(value) is list:
        return all(_is_setting(item, depth + 1) for item in value)
    if type(value) is dict:
        return all(type(key) is str and _is_setting(item, depth + 1) for key, item in value.items())
    return False


def _is_struct(value: object, struct: type[msgspec.Struct]) -> bool:
    return type(value) is struct and check_of(struct)(value)


_UINT = Kind(f"type({{v}}) is int and 0 <= {{v}} <= {UINT_MAX}", "a whole number from 0 to 2^63-1")
# A list of pairs: the aliases are compared by ==, not hashed.
_KINDS: list[tuple[object, Kind]] = [
    (str, Kind("type({v}) is str", "text")),
    (Uint, _UINT),
    (int, _UINT),
    (
        RiskScore,
        Kind(
            f"type({{v}}) is int and 0 <= {{v}} <= {RISK_SCORE_MAX}",
            f"a whole number from 0 to {RISK_SCORE_MAX}",
        ),
    ),
    (bool, Kind("type({v}) is bool", "true or false")),
    (Time, Kind("type({v}) is str and is_time({v})", "an RFC 3339 time")),
    (Strings, Kind("is_strings({v})", "a list of text")),
    (list[str], Kind("is_strings({v})", "a list of text")),
    (Uints, Kind("is_uints({v})", "a list of whole numbers from 0 to 2^63-1")),
    (list[int], Kind("is_uints({v})", "a list of whole numbers from 0 to 2^63-1")),
    (Actor, Kind("is_struct({v}, Actor)", "an Actor", 4)),
    (Resource, Kind("is_struct({v}, Resource)", "a Resource", 3)),
    (Result, Kind("is_result({v})", "a Success, Failure or PartialSuccess")),
    (dict[str, Change], Kind("is_changes({v})", "a map of Change(old, new) without floats")),
]
_NAMES = {
    "is_time": is_time,
    "is_strings": _is_strings,
    "is_uints": _is_uints,
    "is_struct": _is_struct,
    "is_result": _is_result,
    "is_changes": _is_changes,
    "Actor": Actor,
    "Resource": Resource,
}
_checks: dict[type, Check] = {}


def check_of(struct: type[msgspec.Struct]) -> Check:
    """A function that says whether an instance of ``struct`` holds what its fields declare.

    Raises TypeError where a field's type is not one of events.md.
    """
    check = _checks.get(struct)
    if check is None:
        check = _checks[struct] = _compile(" and ".join(_expressions(struct).values()) or "True")
    return check


def find_fault(value: msgspec.Struct) -> str:
    """The first field that is not what it should be, in words."""
    kinds = kinds_of(type(value))
    for name, expression in _expressions(type(value)).items():
        if not _compile(expression)(value):
            found = type(getattr(value, name)).__name__
            return f"{name} must be {kinds[name].name} (found {found})"
    return "a field has a wrong type"


def kinds_of(struct: type[msgspec.Struct]) -> dict[str, Kind]:
    """The kind of each field in declared order. Raises TypeError for a type that events.md does not know."""
    hints = get_type_hints(struct, include_extras=True)
    return {name: _kind(struct, name, hints[name]) for name in struct.__struct_fields__}


def _kind(struct: type, name: str, hint: object) -> Kind:
    alternatives = [hint]
    is_optional = False
    if get_origin(hint) in {UnionType, Union} and hint != Result:
        alternatives = [item for item in get_args(hint) if item is not NoneType]
        is_optional = NoneType in get_args(hint)
    wanted = alternatives[0] if len(alternatives) == 1 else Result
    for known, kind in _KINDS:
        if known == wanted:
            return (
                kind if not is_optional else kind._replace(expression=f"{{v}} is None or {kind.expression}")
            )
    raise TypeError(f"{struct.__name__}.{name}: {hint} is not a type of events.md")


def _expressions(struct: type[msgspec.Struct]) -> dict[str, str]:
    return {name: f"({kind.expression.format(v=f'e.{name}')})" for name, kind in kinds_of(struct).items()}


def _compile(expression: str) -> Check:
    # The source is made of this module's templates and of field names, which are Python identifiers.
    check: Check = eval(f"lambda e: {expression}", dict(_NAMES))  # noqa: S307
    return check
