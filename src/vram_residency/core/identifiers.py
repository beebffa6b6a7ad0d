"""Identifiers and their one form each. What is not yet checked is a plain ``str``."""

from __future__ import annotations

import re
import secrets
import uuid
from typing import NewType, TypeGuard

from vram_residency.core.errors import InvalidInputError

ShardId = NewType("ShardId", str)
WorkerId = NewType("WorkerId", str)
ServiceId = NewType("ServiceId", str)
CorrelationId = NewType("CorrelationId", str)

# \Z, not $: a trailing newline is not part of any identifier.
_SHARD_ID = re.compile(r"[A-Za-z0-9_-]{1,256}\Z")
_SERVICE_ID = re.compile(r"[A-Za-z0-9._-]{1,128}\Z")


def parse_shard_id(unverified: str, *, field: str = "shard_id") -> ShardId:
    """1 to 256 of ``[A-Za-z0-9_-]`` (residency.md section 4), else InvalidInputError."""
    _require(_SHARD_ID, unverified, field, "1 to 256 characters of A-Z a-z 0-9 _ -")
    return ShardId(unverified)


def parse_worker_id(unverified: str) -> WorkerId:
    """The character set of a shard id (residency.md section 4), else InvalidInputError."""
    return WorkerId(parse_shard_id(unverified, field="worker_id"))


def parse_service_id(unverified: str) -> ServiceId:
    """1 to 128 of ``[A-Za-z0-9._-]`` (audit-log.md section 1), else InvalidInputError."""
    _require(_SERVICE_ID, unverified, "service_id", "1 to 128 characters of A-Z a-z 0-9 . _ -")
    return ServiceId(unverified)


def is_correlation_id(text: str) -> bool:
    """Whether ``text`` is 1 to 128 of ``[A-Za-z0-9._-]`` (narration.md); every UUID is."""
    return _SERVICE_ID.match(text) is not None


def is_unicode(text: object) -> TypeGuard[str]:
    """Whether ``text`` is text that can be encoded: lone surrogates, as in odd file names, cannot."""
    return isinstance(text, str) and not any("\ud800" <= character <= "\udfff" for character in text)


def is_count(number: object, *, at_least: int = 0) -> bool:
    """Whether ``number`` is a whole number that every record can hold: ``at_least`` to 2**63 - 1."""
    return type(number) is int and at_least <= number < 1 << 63


def new_shard_id() -> ShardId:
    """``shard-`` and 32 random hex digits."""
    return ShardId(f"shard-{secrets.token_hex(16)}")


def new_correlation_id() -> CorrelationId:
    """A random UUID."""
    return CorrelationId(str(uuid.uuid4()))


def _require(pattern: re.Pattern[str], unverified: object, field: str, rule: str) -> None:
    if not isinstance(unverified, str) or pattern.match(unverified) is None:
        raise InvalidInputError(field, f"must be {rule}")
