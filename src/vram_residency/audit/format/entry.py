"""An entry: one canonical JSON object on one line (spec: audit-log.md section 2).

``line`` everywhere means the entry without its newline, which is also the tree's leaf data::

    {"index":41,"timestamp":"…","event_type":"…","service_id":"…","audit_id":"…",…,"mac":"<64 hex>"}
    |------------------------------ body ------------------------------------------|---- suffix ----|
"""

from __future__ import annotations

import re
from binascii import hexlify
from collections.abc import Mapping, Sequence
from typing import Final, cast

import msgspec

MAC_SUFFIX_BYTES: Final = 74
#: The longest line, without its newline.
ENTRY_BYTES_MAX: Final = 65_535
INTEGER_MAX: Final = 2**63 - 1
#: Objects and lists within each other; a value of an event lies at most 20 deep.
NESTING_MAX: Final = 32

#: The keys that every entry begins with, in this order.
LEADING_KEYS: Final = ("index", "timestamp", "event_type", "service_id", "audit_id")
#: Names of the envelope, which no event may declare. ``correlation_id`` and ``actor`` are not among them.
ENVELOPE_NAMES: Final = frozenset((*LEADING_KEYS, "sanitized", "mac"))

_MAC_PREFIX: Final = b',"mac":"'
_MAC_SUFFIX = re.compile(rb',"mac":"([0-9a-f]{64})"}\Z')
_TIMESTAMP = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z\Z", re.ASCII)
_AUDIT_ID = re.compile(r"[0-9a-f]{8}-(0|[1-9][0-9]*)\Z")

_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder().decode


class EntryFormatError(ValueError):
    """A line is not an entry. ``offset`` is the byte in the line, ``rule`` the rule it breaks."""

    def __init__(self, offset: int, rule: str) -> None:
        super().__init__(offset, rule)
        self.offset = offset
        self.rule = rule

    def __str__(self) -> str:
        return f"byte {self.offset}: {self.rule}"


class Entry(msgspec.Struct, frozen=True):
    """A line whose form was checked; its mac was not.

    ``fields`` holds everything between ``audit_id`` and ``sanitized``/``mac`` in the order of the line:
    correlation_id and actor where there are such, then the event's own fields.
    """

    index: int
    timestamp: str
    event_type: str
    service_id: str
    audit_id: str
    fields: dict[str, object]
    sanitized: tuple[str, ...]
    unverified_mac: bytes


def encode_body(
    *,
    index: int,
    timestamp: str,
    event_type: str,
    service_id: str,
    audit_id: str,
    fields: Mapping[str, object],
    sanitized: Sequence[str] = (),
) -> bytes:
    """The bytes of an entry up to, not including, its mac suffix.

    ``fields`` begins with correlation_id and actor where the envelope has them. Raises EntryFormatError where
    the line would be longer than ENTRY_BYTES_MAX.
    """
    keys: dict[str, object] = {
        "index": index,
        "timestamp": timestamp,
        "event_type": event_type,
        "service_id": service_id,
        "audit_id": audit_id,
    }
    keys.update(fields)
    if sanitized:
        keys["sanitized"] = sanitized
    body = _encode(keys)[:-1]
    if len(body) + MAC_SUFFIX_BYTES > ENTRY_BYTES_MAX:
        raise EntryFormatError(ENTRY_BYTES_MAX, f"an entry is at most {ENTRY_BYTES_MAX} bytes")
    return body


def join_line(body: bytes, mac: bytes) -> bytes:
    """The line of ``body`` and its raw mac of 32 bytes."""
    return b"".join((body, _MAC_PREFIX, hexlify(mac), b'"}'))


def split_line(line: bytes) -> tuple[bytes, bytes]:
    """The body and the raw mac (32 bytes, unverified) of a line. Raises EntryFormatError."""
    if len(line) > ENTRY_BYTES_MAX:
        raise EntryFormatError(ENTRY_BYTES_MAX, f"an entry is at most {ENTRY_BYTES_MAX} bytes")
    cut = max(len(line) - MAC_SUFFIX_BYTES, 0)
    match = _MAC_SUFFIX.match(line, cut)
    if match is None:
        raise EntryFormatError(cut, 'the line does not end in ,"mac":" with 64 lower-case hex digits and "}')
    return line[:cut], bytes.fromhex(match[1].decode("ascii"))


def parse_entry(line: bytes) -> Entry:
    """Check the whole form of a line: canonical bytes, key order, no floats. Raises EntryFormatError.

    Types of events that are not known are fine. Whether the mac is right is not looked at.
    """
    _, mac = split_line(line)
    keys = _parse_canonical_object(line)
    if tuple(keys)[: len(LEADING_KEYS)] != LEADING_KEYS:
        raise EntryFormatError(0, f"the keys do not begin with {', '.join(LEADING_KEYS)}")
    index, *texts = (keys.pop(name) for name in LEADING_KEYS)
    timestamp, event_type, service_id, audit_id = _require_texts(texts)
    del keys["mac"]  # split_line saw it, the bytes are canonical: it is there, and last
    sanitized = _pop_sanitized(keys)
    _require_leading_values(index, timestamp, audit_id)
    return Entry(cast("int", index), timestamp, event_type, service_id, audit_id, keys, sanitized, mac)


def _parse_canonical_object(line: bytes) -> dict[str, object]:
    try:
        value = _decode(line)
        _require_canonical_values(value)
        again = _encode(value)
    except msgspec.DecodeError as error:
        raise EntryFormatError(0, f"not JSON: {error}") from error
    except EntryFormatError:
        raise
    except (ValueError, RecursionError) as error:  # not UTF-8, absurd numbers, absurd nesting
        raise EntryFormatError(0, f"not JSON: {type(error).__name__}") from error
    # Printing what was parsed gives the same bytes for one form only: this refuses spaces, other
    # escapes, other numbers, and duplicate keys (the parser keeps one of them).
    if again != line:
        raise EntryFormatError(_first_difference(again, line), "not in canonical form")
    if not isinstance(value, dict):
        raise EntryFormatError(0, "not a JSON object")
    return value


def _require_canonical_values(value: object) -> None:
    # A limit of our own: the interpreter's differs from version to version.
    waiting: list[tuple[object, int]] = [(value, 1)]
    while waiting:
        item, depth = waiting.pop()
        if depth > NESTING_MAX:
            raise EntryFormatError(0, f"nested over {NESTING_MAX} deep")
        if isinstance(item, dict):
            waiting.extend((inner, depth + 1) for inner in item.values())
        elif isinstance(item, list):
            waiting.extend((inner, depth + 1) for inner in item)
        elif isinstance(item, float):
            raise EntryFormatError(0, "floats have no place in an entry")
        elif isinstance(item, int) and not -INTEGER_MAX - 1 <= item <= INTEGER_MAX:
            raise EntryFormatError(0, "an integer is outside 64 bits")


def _require_texts(values: Sequence[object]) -> list[str]:
    if not all(isinstance(value, str) for value in values):
        raise EntryFormatError(0, f"{', '.join(LEADING_KEYS[1:])} must be strings")
    return cast("list[str]", values)


def _require_leading_values(index: object, timestamp: str, audit_id: str) -> None:
    if type(index) is not int or index < 0:
        raise EntryFormatError(0, "index must be an integer from 0 up")
    if _TIMESTAMP.match(timestamp) is None:
        raise EntryFormatError(0, "timestamp must be UTC with six decimals and Z")
    match = _AUDIT_ID.match(audit_id)
    if match is None or match[1] != str(index):
        raise EntryFormatError(0, "audit_id must be 8 hex digits, a dash and the index")


def _pop_sanitized(keys: dict[str, object]) -> tuple[str, ...]:
    """Take ``sanitized`` off, which stands last if it is there at all."""
    if "sanitized" not in keys:
        return ()
    if next(reversed(keys)) != "sanitized":
        raise EntryFormatError(0, "sanitized must be the last key before mac")
    names = keys.pop("sanitized")
    if not isinstance(names, list) or not names or not all(isinstance(name, str) for name in names):
        raise EntryFormatError(0, "sanitized must be a list of names")
    return tuple(names)


def _first_difference(left: bytes, right: bytes) -> int:
    for offset, (a, b) in enumerate(zip(left, right, strict=False)):
        if a != b:
            return offset
    return min(len(left), len(right))


def event_type_in(line: bytes) -> str:
    """The event's type in a line that a writer of ours wrote; no text of an event stands before it."""
    return line.partition(b'"event_type":"')[2].partition(b'"')[0].decode()
