"""GGUF metadata values: every type is checked and stepped over; none is kept, but the alignment elsewhere."""

from __future__ import annotations

import re
import struct
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from vram_residency.formats.cursor import Cursor

UINT32 = 4
_BOOL = 7
_STRING = 8
_ARRAY = 9
# Value type -> bytes: u8 i8 u16 i16 u32 i32 f32 bool, then u64 i64 f64.
_SIZES = {0: 1, 1: 1, 2: 2, 3: 2, UINT32: 4, 5: 4, 6: 4, _BOOL: 1, 10: 8, 11: 8, 12: 8}
_LENGTH_BYTES = 8
# An inner array takes at least its item type and its count.
_INNER_ARRAY_BYTES = 4 + 8

_NOT_BOOL = re.compile(rb"[^\x00\x01]")
_read_length = struct.Struct("<Q").unpack_from


class ValueSkipper:
    """Steps over values, within limits that hold for the whole file.

    Arrays inside arrays count as pairs: they cost a reader as much.
    """

    def __init__(self, cursor: Cursor, *, pairs: int) -> None:
        self._cursor = cursor
        self._limits = cursor.limits
        self._pairs_left = cursor.limits.metadata_pairs - pairs
        self._strings_left = cursor.limits.array_strings

    def skip(self, kind: int) -> None:
        """Step over one value of the type ``kind``."""
        if kind == _STRING:
            self._skip_string()
        elif kind == _ARRAY:
            self._skip_array(depth=1)
        else:
            self._skip_fixed(kind, 1)

    def _skip_fixed(self, kind: int, count: int) -> None:
        size = _SIZES.get(kind)
        if size is None:
            raise self._cursor.refuse(f"unknown value type {kind}", at=self._cursor.offset - 4)
        if kind == _BOOL:
            self._skip_bools(count)
        else:
            self._cursor.advance(size * count, "a value")

    def _skip_bools(self, count: int) -> None:
        self._cursor.require(count, "a value")
        while count:
            window, at = self._cursor.look()
            length = min(count, len(window) - at)
            found = _NOT_BOOL.search(window, at, at + length)
            if found is not None:
                raise self._cursor.refuse("a bool must be 0 or 1", at=self._cursor.place(found))
            self._cursor.advance(length, "a value")
            count -= length

    def _skip_string(self) -> None:
        at = self._cursor.offset
        length = int.from_bytes(self._cursor.take(_LENGTH_BYTES, "the length of a string"), "little")
        if length > self._limits.string_bytes:
            raise self._too_long(at)
        try:
            self._cursor.take(length, "a string").decode()
        except UnicodeDecodeError as error:
            raise self._cursor.refuse("a string is not UTF-8", at=at + _LENGTH_BYTES + error.start) from None

    def _too_long(self, at: int) -> Exception:
        return self._cursor.refuse(f"a string is longer than {self._limits.string_bytes} bytes", at=at)

    def _skip_array(self, *, depth: int) -> None:
        cursor = self._cursor
        if depth > self._limits.nesting:
            raise cursor.refuse(f"arrays nested deeper than {self._limits.nesting}")
        kind = int.from_bytes(cursor.take(4, "the item type of an array"), "little")
        count_at = cursor.offset
        count = int.from_bytes(cursor.take(8, "the length of an array"), "little")
        if kind == _STRING:
            self._skip_strings(count, count_at)
        elif kind == _ARRAY:
            self._skip_arrays(count, count_at, depth=depth + 1)
        elif kind in _SIZES:
            self._skip_fixed(kind, count)
        else:
            raise cursor.refuse(f"unknown value type {kind}", at=count_at - 4)

    def _skip_arrays(self, count: int, count_at: int, *, depth: int) -> None:
        self._pairs_left -= count
        if self._pairs_left < 0:
            limit = self._limits.metadata_pairs
            raise self._cursor.refuse(f"more than {limit} metadata pairs and inner arrays", at=count_at)
        self._cursor.require(count * _INNER_ARRAY_BYTES, "an array")
        for _ in range(count):
            self._skip_array(depth=depth)

    def _skip_strings(self, count: int, count_at: int) -> None:
        """Vocabularies have hundreds of thousands of strings: only their lengths are looked at."""
        self._strings_left -= count
        if self._strings_left < 0:
            limit = self._limits.array_strings
            raise self._cursor.refuse(f"more than {limit} strings in arrays", at=count_at)
        while count:
            self._cursor.require(count * _LENGTH_BYTES, "an array of strings")
            window, start = self._cursor.look()
            at = start
            last = len(window) - _LENGTH_BYTES
            while count and at <= last:
                length = _read_length(window, at)[0]
                if length > self._limits.string_bytes:
                    raise self._too_long(self._cursor.offset + at - start)
                at += _LENGTH_BYTES + length
                count -= 1
            self._cursor.advance(at - start, "an array of strings")
