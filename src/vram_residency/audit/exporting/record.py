"""One entry on its way out: what every format begins with. Pure.

A record is made from any line that has the form of an entry, whoever wrote it, so nothing in it is trusted:
texts go through ``visible`` before a format puts them where a line, a field or a terminal could be harmed.
"""

from __future__ import annotations

import re
from hashlib import sha256
from typing import Final

import msgspec

from vram_residency.audit.exporting.severity import Severity, severity_of
from vram_residency.audit.format.entry import EntryFormatError, parse_entry
from vram_residency.core.clock import parse_rfc3339
from vram_residency.core.text import clean, visible

#: Who made the log, in the words of every format that asks for a product.
PRODUCT: Final = "vram-residency"
#: The version of the log's format, which is what a receiver depends on.
LOG_VERSION: Final = "vram-residency/audit/v1"
#: The fields that name what an event is about, and what that is; the first that an event has counts.
SUBJECTS: Final = {
    "shard_id": "shard",
    "pool_id": "pool",
    "node_id": "node",
    "task_id": "task",
    "job_id": "job",
    "resource_id": "resource",
    "token_fingerprint": "token",
    "model_ref": "model",
    "customer_id": "customer",
}

_NOT_ASCII = re.compile(r"[^\x20-\x7e]")
_LAST_BASIC: Final = 0xFFFF


class Record(msgspec.Struct, frozen=True):
    """An entry with its place in the log. ``leaf_hash`` is 64 hex; ``time_ns`` since the epoch.

    ``text`` is the entry's line as it stands in the log: every character but those that no writer of ours
    leaves in it, which are escaped as JSON has it. ``fields`` are the entry's own, without the envelope.
    """

    origin: str
    index: int
    leaf_hash: str
    text: str
    timestamp: str
    time_ns: int
    event_type: str
    service_id: str
    audit_id: str
    correlation_id: str | None
    severity: Severity
    fields: dict[str, object]

    @property
    def subject(self) -> tuple[str, str] | None:
        """The name of the field that says what the event is about, and its value."""
        for name in SUBJECTS:
            if value := self.word(name):
                return name, value
        return None

    def word(self, name: str) -> str | None:
        """A field that is text, visible; None where there is none, or where it is empty."""
        value = self.fields.get(name)
        return visible(value) if isinstance(value, str) and value else None

    def actor(self, name: str) -> str | None:
        """A part of the event's actor that is text."""
        actor = self.fields.get("actor")
        value = actor.get(name) if isinstance(actor, dict) else None
        return visible(value) if isinstance(value, str) and value else None


def record_of(origin: str, line: bytes) -> Record:
    """The record of a line (without its newline). Raises EntryFormatError where it is no entry."""
    entry = parse_entry(line)
    try:
        time_ns = parse_rfc3339(entry.timestamp)
    except ValueError as error:
        raise EntryFormatError(0, "the timestamp is no time") from error
    fields = entry.fields
    correlation_id = fields.get("correlation_id")
    return Record(
        origin=origin,
        index=entry.index,
        leaf_hash=sha256(b"\x00" + line).hexdigest(),
        text=json_text(line),
        timestamp=entry.timestamp,
        time_ns=time_ns,
        event_type=visible(entry.event_type),
        service_id=visible(entry.service_id),
        audit_id=entry.audit_id,
        correlation_id=visible(correlation_id) if isinstance(correlation_id, str) else None,
        severity=severity_of(entry.event_type, fields),
        fields=fields,
    )


def json_text(data: bytes) -> str:
    """Compact JSON as text in which all can be seen: other characters are escaped as JSON has it.

    All that is not printable ASCII stands inside a string of it, so its value stays the same.
    """
    text = data.decode("utf-8")
    if text.isascii() and text.isprintable():
        return text
    return _NOT_ASCII.sub(lambda match: _as_json(match[0]), text)


def _as_json(character: str) -> str:
    if clean(character) == character:
        return character
    code_point = ord(character)
    if code_point <= _LAST_BASIC:
        return f"\\u{code_point:04x}"
    high, low = divmod(code_point - _LAST_BASIC - 1, 1 << 10)
    return f"\\u{0xD800 + high:04x}\\u{0xDC00 + low:04x}"
