"""Which kernels are launched over which bytes, with which tables (spec: gpu.md, "BLAKE3 on the GPU"). Pure.

The tables and kernels are those of ``kernels.cu``. A plan knows how much scratch memory it needs, what is
written there first, what is launched, and where the results then lie.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence

from msgspec import Struct

from vram_residency.core.errors import InvalidInputError
from vram_residency.digest.value import VALUE_BYTES, group_count

#: Where bytes on a device begin: a multiple of what a thread reads at a time.
ALIGNMENT_BYTES = 16
#: Chunks of a group, and values that one thread block reduces to one.
FAN_IN = 128
#: Groups that a thread block of the kernel ``tag_groups`` works on.
TAG_GROUPS = 4
# The most that a grid can have.
_BLOCKS_MAX = 2**31 - 1
_THREADS = {"blake3_groups": 128, "blake3_groups_tagged": 128, "blake3_parents": 128, "tag_groups": 256}
_ROW = struct.Struct("<5Q")


class Span(Struct, frozen=True):
    """Bytes of one shard on a device. The address is private: ``repr`` leaves it out.

    A part of a shard begins with group ``first_group`` and is not ``is_whole``; it ends with a group or with
    the shard.
    """

    address: int
    size_bytes: int
    first_group: int = 0
    is_whole: bool = True

    def __repr__(self) -> str:
        return f"Span(size_bytes={self.size_bytes}, first_group={self.first_group}, is_whole={self.is_whole})"

    @property
    def groups(self) -> int:
        """How many thread blocks it needs: the empty input has one empty group."""
        return max(group_count(self.size_bytes), 1)


class Launch(Struct, frozen=True):
    """One launch: the kernel's name, a grid of one dimension, and its arguments, each a u64."""

    kernel: str
    blocks: int
    arguments: tuple[int, ...]

    def __repr__(self) -> str:
        return f"Launch(kernel={self.kernel!r}, blocks={self.blocks})"

    @property
    def threads(self) -> int:
        """Threads of a thread block, as the kernel was compiled for."""
        return _THREADS[self.kernel]


class Row(Struct, frozen=True):
    """A row of a launch's table. ``source`` is an address, or an offset where its level is over values.

    As private as a span's.
    """

    source: int
    size: int
    first_block: int
    position: int = 0
    is_root: bool = False

    def __repr__(self) -> str:
        return f"Row(size={self.size}, first_block={self.first_block}, position={self.position})"


class Level(Struct, frozen=True):
    """One launch, over the bytes or the values of the level below; offsets are in the scratch memory."""

    rows: tuple[Row, ...]
    blocks: int
    table_offset: int
    values_offset: int
    is_over_values: bool

    def table(self, base: int) -> bytes:
        """The table as the kernel reads it."""
        shift = base if self.is_over_values else 0
        return b"".join(
            _ROW.pack(row.source + shift, row.size, row.first_block, row.position, row.is_root)
            for row in self.rows
        )


class Plan(Struct, frozen=True):
    """How some spans are digested in one go. Scratch memory: tables, then values, then tags."""

    spans: tuple[Span, ...]
    levels: tuple[Level, ...]
    #: Offset of the digest of each span; of its first value where it is but a part.
    digest_offsets: tuple[int, ...]
    tags_offset: int
    size_bytes: int

    @property
    def groups(self) -> int:
        """How many groups all spans have."""
        return self.levels[0].blocks

    def tables(self, base: int) -> bytes:
        """What is written at ``base``, where the scratch memory is, before the first launch."""
        return b"".join(level.table(base) for level in self.levels)

    def digest_launches(self, base: int, spread_key: int | None = None) -> tuple[Launch, ...]:
        """Groups, then the tree above them; with a key the tags as well."""
        first = self.levels[0]
        arguments = (base + first.table_offset, len(first.rows), base + first.values_offset)
        if spread_key is None:
            groups = Launch("blake3_groups", first.blocks, arguments)
        else:
            tagged = (*arguments, spread_key, base + self.tags_offset)
            groups = Launch("blake3_groups_tagged", first.blocks, tagged)
        parents = (
            Launch(
                "blake3_parents",
                level.blocks,
                (base + level.table_offset, len(level.rows), base + level.values_offset),
            )
            for level in self.levels[1:]
        )
        return (groups, *parents)

    def tag_launch(self, base: int, key: int) -> Launch:
        """The tags alone: the fast pass."""
        first = self.levels[0]
        arguments = (base, len(first.rows), first.blocks, key, base + self.tags_offset)
        return Launch("tag_groups", -(-first.blocks // TAG_GROUPS), arguments)

    def values_range(self, index: int) -> tuple[int, int]:
        """Offset and size of the group values of a span."""
        return self._range(self.levels[0].values_offset, index)

    def tags_range(self, index: int) -> tuple[int, int]:
        """Offset and size of the tag's group values of a span."""
        return self._range(self.tags_offset, index)

    def _range(self, start: int, index: int) -> tuple[int, int]:
        row = self.levels[0].rows[index]
        return start + row.first_block * VALUE_BYTES, self.spans[index].groups * VALUE_BYTES


def plan_digest(spans: Sequence[Span]) -> Plan:
    """The plan for some spans. Raises InvalidInputError for none, and for what no kernel can work on."""
    if not spans:
        raise InvalidInputError("spans", "are none")
    for span in spans:
        _require_sound(span)
    members = [*_members(spans)]
    table_offset, values_offset = 0, _aligned(_ROW.size * sum(map(len, members)))
    places = [span.address for span in spans]
    levels: list[Level] = []
    for level in members:
        rows: list[Row] = []
        block = 0
        for index, size, blocks in level:
            span = spans[index]
            is_root = span.is_whole and blocks == 1
            rows.append(Row(places[index], size, block, span.first_group * FAN_IN, is_root))
            places[index] = values_offset + block * VALUE_BYTES
            block += blocks
        levels.append(Level(tuple(rows), block, table_offset, values_offset, bool(levels)))
        table_offset += _ROW.size * len(rows)
        values_offset += block * VALUE_BYTES
    if levels[0].blocks > _BLOCKS_MAX:
        raise InvalidInputError("spans", f"have more than {_BLOCKS_MAX} groups")
    size_bytes = values_offset + levels[0].blocks * VALUE_BYTES
    return Plan(tuple(spans), tuple(levels), tuple(places), values_offset, size_bytes)


def _members(spans: Sequence[Span]) -> Iterator[list[tuple[int, int, int]]]:
    """For each level the spans that have a row: their index, size there, and thread blocks."""
    yield [(index, span.size_bytes, span.groups) for index, span in enumerate(spans)]
    counts = [(index, span.groups) for index, span in enumerate(spans) if span.is_whole]
    while counts := [(index, count) for index, count in counts if count > 1]:
        yield [(index, count, -(-count // FAN_IN)) for index, count in counts]
        counts = [(index, -(-count // FAN_IN)) for index, count in counts]


def _aligned(size_bytes: int) -> int:
    return -(-size_bytes // VALUE_BYTES) * VALUE_BYTES


def _require_sound(span: Span) -> None:
    if span.address % ALIGNMENT_BYTES or span.address <= 0:
        raise InvalidInputError("span", f"does not begin at a multiple of {ALIGNMENT_BYTES} bytes")
    if span.size_bytes < 0 or span.first_group < 0 or span.address + span.size_bytes > 2**64:
        raise InvalidInputError("span", "has a size or a place that no memory has")
    if span.first_group and span.is_whole:
        raise InvalidInputError("span", "is whole and yet begins with a later group")
