"""A quick look at an entry: accepts only what ``parse_entry`` accepts, and says no where it is not sure.

Verification is mostly ordinary entries. Their head is known beforehand up to three values, so one pattern
and one comparison of bytes do the work of a walk through the parsed object.
"""

from __future__ import annotations

import re
from typing import Final, NoReturn

import msgspec

from vram_residency.audit.entry import ENTRY_BYTES_MAX, INTEGER_MAX, MAC_SUFFIX_BYTES, Entry

_MAC: Final = re.compile(rb',"mac":"([0-9a-f]{64})"}\Z')
#: Values whose form cannot be wrong once the bytes are canonical. Others are left to parse_entry.
_PLAIN: Final = frozenset({str, bool, type(None)})
_TIMESTAMP: Final = rb"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}\.[0-9]{6}Z"
_encode = msgspec.json.Encoder().encode


class Glance:
    """Looks at the lines of one log under one log key."""

    def __init__(self, service_id: str, key_id: str) -> None:
        self._service_id = service_id
        self._key_id = key_id
        service, key = re.escape(service_id.encode()), re.escape(key_id.encode())
        self._head = re.compile(
            rb'\{"index":(?P<index>0|[1-9][0-9]{0,17}),"timestamp":"(?P<timestamp>'
            + _TIMESTAMP
            + rb')","event_type":"(?P<event_type>[a-z0-9_.]+)","service_id":"'
            + service
            + rb'","audit_id":"'
            + key
            + rb'-(?P<again>[0-9]+)"'
        )
        self._decode = msgspec.json.Decoder(dict[str, object], float_hook=_no_float).decode

    def look(self, line: bytes, index: int) -> Entry | None:
        """The entry without its fields, where the line surely is entry ``index`` of this log.

        None means: parse it in full. Nothing was said against the line yet.
        """
        head = self._head.match(line)
        mac = _MAC.match(line, max(len(line) - MAC_SUFFIX_BYTES, 0))
        if head is None or mac is None or len(line) > ENTRY_BYTES_MAX:
            return None
        if not head["index"] == head["again"] == str(index).encode():
            return None
        if not self._is_plain(line):
            return None
        return Entry(
            index=index,
            timestamp=head["timestamp"].decode("ascii"),
            event_type=head["event_type"].decode("ascii"),
            service_id=self._service_id,
            audit_id=f"{self._key_id}-{index}",
            fields={},
            sanitized=(),
            unverified_mac=bytes.fromhex(mac[1].decode("ascii")),
        )

    def _is_plain(self, line: bytes) -> bool:
        """Whether the line is canonical JSON without lists and objects in it."""
        try:
            keys = self._decode(line)
            # As in parse_entry: what is printed again gives the same bytes for the canonical form only.
            is_canonical = _encode(keys) == line
        except (ValueError, OverflowError, RecursionError):  # msgspec.DecodeError is a ValueError
            return False
        return is_canonical and all(
            type(value) in _PLAIN or (type(value) is int and -INTEGER_MAX <= value <= INTEGER_MAX)
            for value in keys.values()
        )


def _no_float(text: str) -> NoReturn:
    raise ValueError(f"{text} is a float")
