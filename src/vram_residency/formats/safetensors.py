"""The safetensors header, read strictly (docs/format/models.md).

The format: u64 little-endian length of the header ‖ header, a JSON object ‖ the tensors, without holes.
https://github.com/huggingface/safetensors#format
"""

from __future__ import annotations

import math
import re
from functools import cache
from itertools import permutations
from typing import TYPE_CHECKING

from vram_residency.core.errors import MalformedModelError
from vram_residency.formats.cursor import shown
from vram_residency.formats.json_cursor import NUMBER_LIST, JsonCursor, object_pattern, whole_numbers
from vram_residency.formats.layout import Layout, TensorSpec, in_file_order
from vram_residency.formats.limits import DEFAULT_LIMITS

if TYPE_CHECKING:
    from vram_residency.formats.limits import Limits
    from vram_residency.formats.source import ByteSource

_LENGTH_BYTES = 8
_NOT_SPACE = re.compile(rb"[^ ]")

_MEMBERS = {"dtype": rb'"([A-Z0-9_]{1,16})"', "shape": NUMBER_LIST, "data_offsets": NUMBER_LIST}


@cache
def _usual_tensors() -> tuple[tuple[re.Pattern[bytes], tuple[int, ...]], ...]:
    """The forms that writers use, ten times faster than member by member; which group is which member."""
    return tuple(
        (
            object_pattern(**{key: _MEMBERS[key] for key in order}),
            tuple(order.index(key) + 1 for key in _MEMBERS),
        )
        for order in permutations(_MEMBERS)
    )


BITS: dict[str, int] = {
    "BOOL": 8,
    "F4": 4,
    "F6_E2M3": 6,
    "F6_E3M2": 6,
    "U8": 8,
    "I8": 8,
    "F8_E5M2": 8,
    "F8_E4M3": 8,
    "F8_E8M0": 8,
    "F8_E4M3FNUZ": 8,
    "F8_E5M2FNUZ": 8,
    "I16": 16,
    "U16": 16,
    "F16": 16,
    "BF16": 16,
    "I32": 32,
    "U32": 32,
    "F32": 32,
    "C64": 64,
    "F64": 64,
    "I64": 64,
    "U64": 64,
}


def parse_safetensors(source: ByteSource, *, name: str, limits: Limits = DEFAULT_LIMITS) -> Layout:
    """Read the layout of a safetensors file. Raises MalformedModelError."""
    # 1. The length of the header, against the limit and against the file, before anything is read.
    data_start = _data_start(source, name, limits)
    # 2. Its first byte, which the format fixes.
    if source.read(_LENGTH_BYTES, 1) != b"{":
        raise MalformedModelError(name, _LENGTH_BYTES, "the header must begin with '{'")
    cursor = JsonCursor(
        source, name=name, start=_LENGTH_BYTES, end=data_start, border="the header ends", limits=limits
    )
    # 3. Every entry, each against the size of the file.
    header = _Header(cursor, data_bytes=source.size_bytes - data_start)
    header.read()
    # 4. Behind the object only the padding that the format allows.
    _require_padding(cursor)
    # 5. The tensors cover the rest of the file exactly once.
    tensors = in_file_order(header.tensors)
    _require_tiling(tensors, cursor, source.size_bytes)
    return Layout("safetensors", tensors)


def _data_start(source: ByteSource, name: str, limits: Limits) -> int:
    if source.size_bytes < _LENGTH_BYTES:
        raise MalformedModelError(name, source.size_bytes, "the file ends inside the length of the header")
    length = int.from_bytes(source.read(0, _LENGTH_BYTES), "little")
    if length > limits.header_bytes:
        raise MalformedModelError(name, 0, f"the header is longer than {limits.header_bytes} bytes")
    if length == 0:
        raise MalformedModelError(name, 0, "the header is empty")
    if _LENGTH_BYTES + length > source.size_bytes:
        raise MalformedModelError(name, 0, "the header ends after the end of the file")
    return _LENGTH_BYTES + length


class _Header:
    """Collects the tensors of a header while it is walked."""

    def __init__(self, cursor: JsonCursor, *, data_bytes: int) -> None:
        self.tensors: list[TensorSpec] = []
        self._cursor = cursor
        self._limits = cursor.limits
        self._data_bytes = data_bytes
        self._names_left = cursor.limits.names_bytes

    def read(self) -> None:
        cursor = self._cursor
        for name in cursor.members("the header"):
            self._count_name(name)
            if name == "__metadata__":
                self._read_metadata()
                continue
            if len(self.tensors) == self._limits.tensors:
                raise cursor.refuse(f"more than {self._limits.tensors} tensors")
            self.tensors.append(self._tensor(name))

    def _count_name(self, name: str) -> None:
        self._names_left -= len(name.encode())
        if self._names_left < 0:
            raise self._cursor.refuse(f"names longer than {self._limits.names_bytes} bytes together")

    def _read_metadata(self) -> None:
        for count, key in enumerate(self._cursor.members("__metadata__")):
            if count == self._limits.metadata_pairs:
                raise self._cursor.refuse(f"more than {self._limits.metadata_pairs} metadata pairs")
            self._count_name(key)
            self._cursor.text("a string, the value in __metadata__")

    def _tensor(self, name: str) -> TensorSpec:
        at = self._cursor.offset
        dtype, shape, span = self._usual_members() or self._members_of(name, at)
        return self._checked(TensorSpec(name, dtype, shape, *self._offsets(span, at)), at)

    def _usual_members(self) -> tuple[str, tuple[int, ...], tuple[int, ...]] | None:
        for pattern, (dtype, shape, span) in _usual_tensors():
            found = self._cursor.match(pattern)
            if found is not None:
                return found[dtype].decode(), whole_numbers(found[shape]), whole_numbers(found[span])
        return None

    def _members_of(self, name: str, at: int) -> tuple[str, tuple[int, ...], tuple[int, ...]]:
        cursor = self._cursor
        dtype: str | None = None
        shape: tuple[int, ...] | None = None
        span: tuple[int, ...] | None = None
        for key in cursor.members("a tensor"):
            if key == "dtype":
                dtype = cursor.text("a string, the dtype")
            elif key == "shape":
                shape = cursor.numbers("shape")
            elif key == "data_offsets":
                span = cursor.numbers("data_offsets")
            else:
                raise cursor.refuse(f"unknown key {shown(key)} in a tensor")
        if dtype is None or shape is None or span is None:
            raise cursor.refuse(f"tensor {shown(name)} lacks dtype, shape or data_offsets", at=at)
        return dtype, shape, span

    def _offsets(self, span: tuple[int, ...], at: int) -> tuple[int, int]:
        if len(span) != len(("start", "end")):
            raise self._cursor.refuse("data_offsets must be two numbers", at=at)
        start, end = span
        if start > end:
            raise self._cursor.refuse("data_offsets end before they start", at=at)
        if end > self._data_bytes:
            raise self._cursor.refuse("data_offsets end after the end of the file", at=at)
        return self._cursor.end + start, self._cursor.end + end

    def _checked(self, tensor: TensorSpec, at: int) -> TensorSpec:
        bits = BITS.get(tensor.dtype)
        if bits is None:
            raise self._cursor.refuse(f"unknown dtype {shown(tensor.dtype)}", at=at)
        if len(tensor.shape) > self._limits.dimensions:
            raise self._cursor.refuse(f"more than {self._limits.dimensions} dimensions", at=at)
        # Bounded as if no dimension were 0: 0 x 2^63 would overflow in readers that multiply in order.
        nonempty_bits = bits * math.prod(filter(None, tensor.shape))
        if nonempty_bits > self._limits.product:
            raise self._cursor.refuse("the shape overflows", at=at)
        size_bits = 0 if 0 in tensor.shape else nonempty_bits
        if size_bits != 8 * (tensor.end - tensor.start):
            raise self._cursor.refuse(
                f"tensor {shown(tensor.name)} needs {size_bits} bits by its shape, "
                f"but has {tensor.end - tensor.start} bytes by its data_offsets",
                at=at,
            )
        return tensor


def _require_padding(cursor: JsonCursor) -> None:
    while cursor.remaining:
        window, at = cursor.look()
        found = _NOT_SPACE.search(window, at)
        if found is not None:
            raise cursor.refuse("only spaces may follow the header's object", at=cursor.place(found))
        cursor.advance(len(window) - at, "the padding")


def _require_tiling(tensors: tuple[TensorSpec, ...], cursor: JsonCursor, size_bytes: int) -> None:
    end = cursor.end
    for tensor in tensors:
        if tensor.start != end:
            fault = "overlaps another" if tensor.start < end else "leaves a hole before it"
            raise cursor.refuse(f"tensor {shown(tensor.name)} {fault}", at=min(tensor.start, end))
        end = tensor.end
    if end != size_bytes:
        raise cursor.refuse("bytes follow the last tensor", at=end)
