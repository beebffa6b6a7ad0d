"""Lines that are sure to be entries, recognised many at a time.

Most entries of a log look alike: same keys, other values. Their shapes are learned from lines that
``parse_entry`` accepted, and one pattern of bytes then knows whole blocks of lines of these shapes. A pattern
accepts only what ``parse_entry`` accepts; of what it does not know it says nothing.
"""

from __future__ import annotations

import re
from typing import Final

import msgspec

from vram_residency.audit.events.registry import LOG_OWN_TYPES
from vram_residency.audit.format.entry import Entry

#: More would make the pattern slow; lines of further shapes are parsed.
SHAPES_MAX: Final = 24

_PLAIN: Final = rb"[ !#-\[\]-~]*+"
#: The inside of a canonical string: ASCII, two of the escapes, and well-formed UTF-8 (RFC 3629 section 4).
_REST: Final = (
    rb'(?:\\["\\]|[\xc2-\xdf][\x80-\xbf]|\xe0[\xa0-\xbf][\x80-\xbf]|[\xe1-\xec\xee\xef][\x80-\xbf]{2}'
    rb"|\xed[\x80-\x9f][\x80-\xbf]|\xf0[\x90-\xbf][\x80-\xbf]{2}|[\xf1-\xf3][\x80-\xbf]{3}"
    rb"|\xf4[\x80-\x8f][\x80-\xbf]{2})"
)
_STRING: Final = rb'"' + _PLAIN + rb"(?:" + _REST + _PLAIN + rb')*+"'
_INTEGER: Final = rb"(?:0|-?[1-9][0-9]{0,17})"
_TIMESTAMP: Final = rb"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}\.[0-9]{6}Z"
_HEX_DIGITS: Final = b"0123456789abcdef"
_EVENT_TYPE = re.compile(r"[a-z0-9_.]+\Z")
_SCALARS: Final = {str: _STRING, int: _INTEGER, bool: rb"(?:true|false)", type(None): rb"null"}
_encode = msgspec.json.Encoder().encode


#: What is taken from a line that was recognised: index, timestamp, and the mac as 64 hex digits (unverified).
Row = tuple[bytes, bytes, bytes]


class Shapes:
    """Knows lines of one log under one log key; the log's own events are never among them."""

    def __init__(self, service_id: str, key_id: str) -> None:
        middle = f'","service_id":{_encode(service_id).decode()},"audit_id":"{key_id}-'
        self._middle = re.escape(middle.encode()) + rb'\1"'
        self._tails: dict[bytes, list[bytes]] = {}
        self._count = 0
        self._pattern: re.Pattern[bytes] | None = None

    def rows(self, data: bytes) -> list[Row]:
        """A Row for each line that is recognised; lines end in a newline.

        All lines of ``data`` are entries of this log exactly where there are as many rows as lines.
        """
        if self._pattern is None:
            if not self._count:
                return []
            self._pattern = self._compile()
        rows = self._pattern.findall(data)
        # Cheaper for all macs at once than digit by digit in the pattern.
        if b"".join([row[2] for row in rows]).translate(None, _HEX_DIGITS):
            rows = [row for row in rows if not row[2].translate(None, _HEX_DIGITS)]
        return rows

    def learn(self, entry: Entry) -> None:
        """Recognise lines like this one from now on."""
        if self._count >= SHAPES_MAX or entry.event_type in LOG_OWN_TYPES:
            return
        if _EVENT_TYPE.match(entry.event_type) is None:
            return
        tails = self._tails.setdefault(entry.event_type.encode(), [])
        tail = _tail(entry)
        if tail not in tails:
            tails.append(tail)
            self._count += 1
            self._pattern = None

    def _compile(self) -> re.Pattern[bytes]:
        types = (
            re.escape(name) + self._middle + rb"(?:" + rb"|".join(tails) + rb")"
            for name, tails in self._tails.items()
        )
        return re.compile(
            rb'(?m:^)\{"index":(0|[1-9][0-9]{0,17}),"timestamp":"('
            + _TIMESTAMP
            + rb')","event_type":"(?:'
            + rb"|".join(types)
            + rb'),"mac":"(.{64})"\}\n'
        )


def _tail(entry: Entry) -> bytes:
    """What may stand between ``audit_id`` and ``mac``."""
    tail = b"".join(b"," + _member(name, value) for name, value in entry.fields.items())
    if entry.sanitized:
        tail += rb',"sanitized":\[' + _STRING + rb"(?:," + _STRING + rb")*+\]"
    return tail


def _member(name: str, value: object) -> bytes:
    return re.escape(_encode(name)) + b":" + _value(value)


def _value(value: object) -> bytes:
    if isinstance(value, dict):
        return rb"\{" + b",".join(_member(name, inner) for name, inner in value.items()) + rb"\}"
    if isinstance(value, list):
        if all(type(item) is str for item in value):
            return rb"\[(?:" + _STRING + rb"(?:," + _STRING + rb")*+)?+\]"
        return rb"\[" + b",".join(map(_value, value)) + rb"\]"
    return _SCALARS[type(value)]
