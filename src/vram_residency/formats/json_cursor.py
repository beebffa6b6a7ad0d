"""JSON tokens (RFC 8259), strictly: no duplicate keys, no bad UTF-8, nothing deeper than the format has."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import msgspec

from vram_residency.core.errors import MalformedModelError
from vram_residency.formats.cursor import Cursor, shown

if TYPE_CHECKING:
    from collections.abc import Iterator

# The possessive quantifiers (*+) keep every match linear.
_BLANKS = rb"[ \t\n\r]*+"
_INSIDE = rb'(?:[^"\\\x00-\x1f]++|\\(?:["\\/bfnrt]|u[0-9A-Fa-f]{4}))*+'
_TEXT = _BLANKS + rb'"(' + _INSIDE + rb')"'
# 19 digits hold every size; longer runs must not reach int(), which is slow on them.
_WHOLE = rb"(?:0|[1-9][0-9]{0,18}+)(?![0-9.eE])"
_ITEM = _WHOLE + _BLANKS

BLANKS = re.compile(_BLANKS)
_OPENING = re.compile(_BLANKS + rb"\{" + _BLANKS + rb"(\}?+)")
_KEY = re.compile(_TEXT + _BLANKS + rb":")
_STRING = re.compile(_TEXT)
_STRING_START = re.compile(_BLANKS + rb'(")' + _INSIDE)
_AFTER_MEMBER = re.compile(_BLANKS + rb"([,}])")
NUMBER_LIST = rb"\[" + _BLANKS + rb"((?:" + _ITEM + rb"(?:," + _BLANKS + _ITEM + rb")*+)?+)\]"
_NUMBERS = re.compile(_BLANKS + NUMBER_LIST)
_NUMBERS_START = re.compile(
    _BLANKS + rb"\[" + _BLANKS + rb"(?:" + _ITEM + rb"," + _BLANKS + rb")*+" + _BLANKS
)
_SCALAR = re.compile(
    _BLANKS
    + rb"(?:true|false|null|-?(?:0|[1-9][0-9]*+)(?:\.[0-9]++)?+(?:[eE][-+]?[0-9]++)?+)(?![0-9A-Za-z.+-])"
)
_BRACKET = re.compile(_BLANKS + rb"([\[{])")
_LIST_CLOSING = re.compile(_BLANKS + rb"\]")
_AFTER_ITEM = re.compile(_BLANKS + rb"([,\]])")

# Ten times faster than int() on each; the patterns above have let through nothing else.
_NUMBER_LIST_DECODER = msgspec.json.Decoder(tuple[int, ...])

_NAMES_OF_BYTES = {
    b'"': "a string",
    b"{": "an object",
    b"[": "a list",
    b"-": "a negative number",
    b"t": "true",
    b"f": "false",
    b"n": "null",
    b"N": "NaN",
    b"I": "Infinity",
    b" ": "too much white space",
    b"\t": "too much white space",
    b"\n": "too much white space",
    b"\r": "too much white space",
}


def whole_numbers(items: bytes) -> tuple[int, ...]:
    """Read what stands between the brackets of a list that one of the patterns has matched."""
    return _NUMBER_LIST_DECODER.decode(b"[" + items + b"]")


def object_pattern(**values: bytes) -> re.Pattern[bytes]:
    """Make a pattern for an object with these keys in this order, each value a pattern with one group.

    It serves as a short cut where objects repeat many times: what it does not match may still be right, and
    is read by ``members()``.
    """
    members = (
        rb'"%s"' % key.encode() + _BLANKS + rb":" + _BLANKS + value + _BLANKS for key, value in values.items()
    )
    return re.compile(_BLANKS + rb"\{" + _BLANKS + (rb"," + _BLANKS).join(members) + rb"\}")


class JsonCursor(Cursor):
    """A cursor that takes JSON tokens. The grammar above it decides what may follow what."""

    # Values that skip_value() has stepped over so far.
    _skipped = 0

    def members(self, what: str) -> Iterator[str]:
        """Walk an object: yields each key, the caller takes its value. Refuses a key that comes twice."""
        opening = self.match(_OPENING)
        if opening is None:
            raise self.unexpected(f"the '{{' of {what}")
        if opening[1]:
            return
        seen: set[str] = set()
        separator = b","
        while separator == b",":
            at, key = self._text(_KEY, f"a key of {what}")
            if key in seen:
                raise self.refuse(f"duplicate key {shown(key)} in {what}", at=at)
            seen.add(key)
            yield key
            separator = self._separator(_AFTER_MEMBER, f"',' or '}}' in {what}")

    def text(self, what: str) -> str:
        """Take a string value."""
        return self._text(_STRING, what)[1]

    def numbers(self, what: str) -> tuple[int, ...]:
        """Take a list of whole numbers, none of them negative, at most 19 digits each."""
        found = self.match(_NUMBERS)
        if found is None:
            raise self._bad_numbers(what)
        return whole_numbers(found[1])

    def skip_value(self, what: str, depth: int = 1) -> None:
        """Step over any value: no deeper than the limit, and no more values than there may be pairs."""
        self._skipped += 1
        if self._skipped > self.limits.metadata_pairs:
            raise self.refuse(f"more than {self.limits.metadata_pairs} values in {what}")
        if self.match(_SCALAR) is not None:
            return
        window, at = self.look()
        bracket = _BRACKET.match(window, at, at + self.lookahead)
        if bracket is None:
            self.text(what)
        elif depth >= self.limits.nesting:
            raise self.refuse(f"nested deeper than {self.limits.nesting} in {what}", at=self.place(bracket))
        elif bracket[1] == b"{":
            for _ in self.members(what):
                self.skip_value(what, depth + 1)
        else:
            self._skip_list(what, depth)

    def unexpected(self, wanted: str) -> MalformedModelError:
        """Make the error for whatever stands here instead of what is wanted."""
        self.match(BLANKS)
        if not self.remaining:
            return self.refuse(f"{self.border} where {wanted} should stand")
        window, at = self.look()
        byte = window[at : at + 1]
        found = _NAMES_OF_BYTES.get(byte) or (
            shown(byte.decode()) if byte.isascii() else f"byte 0x{byte.hex()}"
        )
        return self.refuse(f"expected {wanted}, found {found}")

    def _separator(self, pattern: re.Pattern[bytes], wanted: str) -> bytes:
        found = self.match(pattern)
        if found is None:
            raise self.unexpected(wanted)
        return found[1]

    def _skip_list(self, what: str, depth: int) -> None:
        self.match(_BRACKET)
        if self.match(_LIST_CLOSING) is not None:
            return
        separator = b","
        while separator == b",":
            self.skip_value(what, depth + 1)
            separator = self._separator(_AFTER_ITEM, f"',' or ']' in {what}")

    def _text(self, pattern: re.Pattern[bytes], what: str) -> tuple[int, str]:
        found = self.match(pattern)
        if found is None:
            raise self._bad_text(what)
        raw = found[1]
        at = self.place(found, 1) - 1
        text = self._unescaped(raw, at) if b"\\" in raw else self._decoded(raw, at)
        if len(raw) > self.limits.string_bytes and len(text.encode()) > self.limits.string_bytes:
            raise self._too_long(at)
        return at, text

    def _decoded(self, raw: bytes, at: int) -> str:
        try:
            return raw.decode()
        except UnicodeDecodeError as error:
            raise self.refuse("a string is not UTF-8", at=at + 1 + error.start) from None

    def _unescaped(self, raw: bytes, at: int) -> str:
        try:
            return msgspec.json.decode(b'"' + raw + b'"', type=str)
        except (msgspec.DecodeError, UnicodeDecodeError):
            raise self.refuse("a string is not UTF-8, or escapes half a surrogate pair", at=at) from None

    def _too_long(self, at: int) -> MalformedModelError:
        return self.refuse(f"a string is longer than {self.limits.string_bytes} bytes", at=at)

    def _bad_text(self, what: str) -> MalformedModelError:
        self.match(BLANKS)
        opened = self.match(_STRING_START)
        if opened is None:
            return self.unexpected(what)
        at = self.place(opened, 1)
        if self.offset - at > self.limits.string_bytes:
            return self._too_long(at)
        if not self.remaining:
            return self.refuse(f"{self.border} inside a string ({what})", at=at)
        window, here = self.look()
        if window[here] == ord('"'):
            self.advance(1, what)
            return self.unexpected(f"':' after {what}")
        fault = "an unknown escape" if window[here] == ord("\\") else "a raw control character"
        return self.refuse(f"{fault} in a string ({what})")

    def _bad_numbers(self, what: str) -> MalformedModelError:
        opened = self.match(_NUMBERS_START)
        window, at = self.look()
        if opened is None or not window[at : at + 1].isdigit():
            return self.unexpected(f"{what}, a list of whole numbers")
        return self.refuse(
            f"a number in {what} is no whole number, has leading zeros, or is followed by no ',' or ']'"
        )
