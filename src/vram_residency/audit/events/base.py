"""The types that events are made of (spec: events.md, first paragraph).

A vocabulary (severity, reason, violation, auth_method) is what we write ourselves; any string is
accepted, since an event must not be lost over a word. Shapes and numbers are strict.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Annotated, Any, ClassVar, Literal

import msgspec

from vram_residency.core.clock import parse_rfc3339

UINT_MAX = 2**63 - 1
RISK_SCORE_MAX = 100

_RFC3339 = r"^\d{4}-\d{2}-\d{2}T\d{2}:\d{2}:\d{2}(\.\d{1,9})?(Z|[+-]\d{2}:\d{2})$"
_RFC3339_WHOLE = re.compile(_RFC3339.removesuffix("$") + r"\Z", re.ASCII)

#: 0 … 2^63-1.
Uint = Annotated[int, msgspec.Meta(ge=0, le=UINT_MAX)]
#: 0 … 100.
RiskScore = Annotated[int, msgspec.Meta(ge=0, le=RISK_SCORE_MAX)]
Strings = Sequence[str]
Uints = Sequence[Uint]
#: An RFC 3339 time with its zone.
Time = Annotated[str, msgspec.Meta(pattern=_RFC3339, description="RFC 3339")]
#: What a changed setting may hold: JSON without floats, checked by shape.py.
Setting = Any

Severity = Literal["CRITICAL", "HIGH", "MEDIUM", "LOW"]
SEVERITIES: tuple[Severity, ...] = ("CRITICAL", "HIGH", "MEDIUM", "LOW")
AuthMethod = Literal["bearer_token", "api_key", "m_tls", "peer_uid", "internal"]


class Event(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True):
    """What every event has. Subclasses are frozen, keyword-only, and hold their fields in wire order."""

    #: Critical events are flushed at once.
    critical: ClassVar[bool] = False
    #: The caller's own time; the entry's ``timestamp`` is always the logger's (audit-log.md section 2).
    claimed_at: Time | None = None


class Actor(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True):
    """Who acted. ``auth_method`` is one of AuthMethod."""

    user_id: str
    ip: str | None = None
    auth_method: str
    session_id: str | None = None


class Resource(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True):
    """What was acted upon."""

    resource_type: str
    resource_id: str
    parent_id: str | None = None


class Change(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One setting before and after."""

    old: Setting
    new: Setting


class Success(
    msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag_field="status", tag="success"
):
    """It worked."""


class Failure(
    msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag_field="status", tag="failure"
):
    """It did not work."""

    reason: str


class PartialSuccess(
    msgspec.Struct,
    frozen=True,
    kw_only=True,
    forbid_unknown_fields=True,
    tag_field="status",
    tag="partial_success",
):
    """Some of it worked."""

    details: str


Result = Success | Failure | PartialSuccess


def is_time(text: str) -> bool:
    """Whether ``text`` is an RFC 3339 time that exists."""
    if _RFC3339_WHOLE.match(text) is None:
        return False
    try:
        parse_rfc3339(text)
    except (ValueError, OverflowError):
        return False
    return True
