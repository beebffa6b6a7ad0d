"""The GGUF header, versions 2 and 3, little-endian, read strictly (docs/format/models.md).

The format: magic ‖ u32 version ‖ u64 tensors ‖ u64 pairs ‖ pairs ‖ tensor infos ‖ padding ‖ tensors.
https://github.com/ggml-org/ggml/blob/master/docs/gguf.md
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from vram_residency.core.errors import MalformedModelError
from vram_residency.formats.cursor import Cursor, shown
from vram_residency.formats.ggml import REMOVED, TYPES
from vram_residency.formats.gguf_values import UINT32, ValueSkipper
from vram_residency.formats.layout import Layout, TensorSpec, in_file_order
from vram_residency.formats.limits import DEFAULT_LIMITS

if TYPE_CHECKING:
    from vram_residency.formats.limits import Limits
    from vram_residency.formats.source import ByteSource

MAGIC = b"GGUF"
_VERSIONS = (2, 3)
_DEFAULT_ALIGNMENT = 32
_MAX_DIMENSIONS = 4
# The least that a pair and a tensor info take: empty key, type, one byte; empty name, rank, type, offset.
_PAIR_BYTES = 8 + 4 + 1
_INFO_BYTES = 8 + 4 + 4 + 8


def parse_gguf(source: ByteSource, *, name: str, limits: Limits = DEFAULT_LIMITS) -> Layout:
    """Read the layout of a GGUF file. Raises MalformedModelError."""
    end = min(source.size_bytes, limits.header_bytes)
    border = (
        "the file ends"
        if end == source.size_bytes
        else f"the header reaches its limit of {limits.header_bytes} bytes"
    )
    cursor = Cursor(source, name=name, start=0, end=end, border=border, limits=limits)
    # 1. Magic and version.
    _require_version(cursor)
    # 2. The counts, against the limits and against the bytes that are left, before any loop.
    tensor_count, pair_count = _counts(cursor)
    # 3. Every pair, every tensor info.
    header = _Header(cursor)
    header.read_pairs(pair_count)
    header.read_infos(tensor_count)
    # 4. The tensors cover the rest of the file, with no gap but the padding.
    return Layout("gguf", _placed(header, cursor.offset, name=name, size_bytes=source.size_bytes))


def _require_version(cursor: Cursor) -> None:
    if cursor.take(4, "the magic") != MAGIC:
        raise cursor.refuse("the file must begin with 'GGUF'", at=0)
    raw = cursor.take(4, "the version")
    version = int.from_bytes(raw, "little")
    if int.from_bytes(raw, "big") in _VERSIONS:
        raise cursor.refuse("big-endian GGUF is not supported", at=4)
    if version not in _VERSIONS:
        raise cursor.refuse(f"GGUF version {version} is not supported, only 2 and 3", at=4)


def _counts(cursor: Cursor) -> tuple[int, int]:
    at = cursor.offset
    tensors = _number(cursor, 8, "the number of tensors")
    pairs = _number(cursor, 8, "the number of pairs")
    if tensors > cursor.limits.tensors:
        raise cursor.refuse(f"more than {cursor.limits.tensors} tensors", at=at)
    if pairs > cursor.limits.metadata_pairs:
        raise cursor.refuse(f"more than {cursor.limits.metadata_pairs} metadata pairs", at=at + 8)
    if tensors * _INFO_BYTES + pairs * _PAIR_BYTES > cursor.remaining:
        raise cursor.refuse("more tensors and pairs than the file has room for", at=at)
    return tensors, pairs


def _number(cursor: Cursor, size_bytes: int, what: str) -> int:
    return int.from_bytes(cursor.take(size_bytes, what), "little")


class _Header:
    """Collects tensors (their spans still counted from the start of the data) and the alignment."""

    def __init__(self, cursor: Cursor) -> None:
        self.alignment = _DEFAULT_ALIGNMENT
        self.tensors: list[TensorSpec] = []
        self._cursor = cursor
        self._limits = cursor.limits
        self._names_left = cursor.limits.names_bytes

    def read_pairs(self, count: int) -> None:
        cursor = self._cursor
        skipper = ValueSkipper(cursor, pairs=count)
        seen: set[str] = set()
        for _ in range(count):
            key = self._name(seen, "key")
            kind = _number(cursor, 4, "the type of a value")
            if key == "general.alignment":
                self._read_alignment(kind)
            else:
                skipper.skip(kind)

    def read_infos(self, count: int) -> None:
        seen: set[str] = set()
        self.tensors.extend(self._info(seen) for _ in range(count))

    def _name(self, seen: set[str], what: str) -> str:
        cursor = self._cursor
        at = cursor.offset
        length = _number(cursor, 8, f"the length of a {what}")
        if length > self._limits.string_bytes:
            raise cursor.refuse(f"a string is longer than {self._limits.string_bytes} bytes", at=at)
        self._names_left -= length
        if self._names_left < 0:
            raise cursor.refuse(f"names longer than {self._limits.names_bytes} bytes together", at=at)
        try:
            name = cursor.take(length, f"a {what}").decode()
        except UnicodeDecodeError as error:
            raise cursor.refuse("a string is not UTF-8", at=at + 8 + error.start) from None
        if name in seen:
            raise cursor.refuse(f"duplicate {what} {shown(name)}", at=at)
        seen.add(name)
        return name

    def _read_alignment(self, kind: int) -> None:
        if kind != UINT32:
            raise self._cursor.refuse("general.alignment must be a u32")
        at = self._cursor.offset
        self.alignment = _number(self._cursor, 4, "general.alignment")
        if self.alignment.bit_count() != 1:
            raise self._cursor.refuse("general.alignment must be a power of two", at=at)

    def _info(self, seen: set[str]) -> TensorSpec:
        cursor = self._cursor
        at = cursor.offset
        name = self._name(seen, "tensor name")
        rank = _number(cursor, 4, "the rank of a tensor")
        if rank > _MAX_DIMENSIONS:
            raise cursor.refuse(f"tensor {shown(name)} has more than {_MAX_DIMENSIONS} dimensions", at=at)
        dimensions = [_number(cursor, 8, "a dimension") for _ in range(rank)]
        kind = _number(cursor, 4, "the type of a tensor")
        start = _number(cursor, 8, "the offset of a tensor")
        if start % self.alignment:
            raise cursor.refuse(
                f"the offset of tensor {shown(name)} is no multiple of {self.alignment}", at=at
            )
        dtype, size_bytes = self._size(name, dimensions, kind, at)
        return TensorSpec(name, dtype, tuple(reversed(dimensions)), start, start + size_bytes)

    def _size(self, name: str, dimensions: list[int], kind: int, at: int) -> tuple[str, int]:
        refuse = self._cursor.refuse
        if kind not in TYPES:
            fate = f"{REMOVED[kind]}, which ggml has removed" if kind in REMOVED else f"unknown number {kind}"
            raise refuse(f"tensor {shown(name)} has the type {fate}", at=at)
        dtype, block_elements, block_bytes = TYPES[kind]
        elements = nonempty = 1
        for dimension in dimensions:
            elements *= dimension
            nonempty *= dimension or 1
        if nonempty * block_bytes > self._limits.product:
            raise refuse(f"the shape of tensor {shown(name)} overflows", at=at)
        row = dimensions[0] if dimensions else 1
        if row % block_elements:
            raise refuse(
                f"the rows of tensor {shown(name)} are no multiple of {block_elements}, the block of {dtype}",
                at=at,
            )
        return dtype, elements // block_elements * block_bytes


def _padded(offset: int, alignment: int) -> int:
    return -(-offset // alignment) * alignment


def _placed(header: _Header, header_end: int, *, name: str, size_bytes: int) -> tuple[TensorSpec, ...]:
    """Count the spans from the start of the file; refuse overlaps, holes and bytes that nothing owns."""
    data_start = _padded(header_end, header.alignment)
    end = header_end
    placed = []
    for tensor in in_file_order(header.tensors):
        start = data_start + tensor.start
        expected = _padded(end, header.alignment)
        if start != expected:
            fault = "overlaps another" if start < expected else "leaves a hole before it"
            raise MalformedModelError(name, min(start, expected), f"tensor {shown(tensor.name)} {fault}")
        end = data_start + tensor.end
        if end > size_bytes:
            rule = f"tensor {shown(tensor.name)} ends after the end of the file"
            raise MalformedModelError(name, start, rule)
        placed.append(TensorSpec(tensor.name, tensor.dtype, tensor.shape, start, end))
    # The padding of the last tensor may be missing or cut, as some writers leave it out.
    if size_bytes > _padded(end, header.alignment):
        raise MalformedModelError(name, _padded(end, header.alignment), "bytes follow the last tensor")
    return tuple(placed)
