"""Each rule of the GGUF header, with the byte at which it is broken."""

from __future__ import annotations

import struct

import pytest
from tests.model_files import (
    GGUF_ARRAY,
    GGUF_STRING,
    gguf_array,
    gguf_file,
    gguf_info,
    gguf_pair,
    gguf_string,
)

from vram_residency.core.errors import MalformedModelError
from vram_residency.formats import Layout, Limits, MemorySource, parse
from vram_residency.formats.ggml import REMOVED, TYPES

# Magic, version and counts.
HEAD = 24
# A pair with the key "a" starts its type after 9 bytes, its value after 13.
VALUE = HEAD + 13


def read(data: bytes, limits: Limits | None = None) -> Layout:
    return parse(MemorySource(data), name="m.gguf", limits=limits or Limits())


def pair(kind: int, value: bytes) -> bytes:
    return gguf_file([gguf_pair("a", kind, value)])


def strings(*texts: str) -> bytes:
    return gguf_array(GGUF_STRING, len(texts), b"".join(map(gguf_string, texts)))


def one(dimensions: list[int], kind: int = 0, offset: int = 0, size: int = 32) -> bytes:
    return gguf_file([], [gguf_info("t", dimensions, kind, offset)], bytes(size))


@pytest.mark.parametrize("version", [2, 3])
def test_a_small_file_gives_shapes_in_c_order_and_spans_in_the_file(version: int) -> None:
    """GGUF stores the fastest dimension first and counts from the start of the data."""
    infos = [gguf_info("b", [8, 2], 0, 32), gguf_info("a", [2, 3], 1, 0)]
    data = gguf_file([gguf_pair("k", GGUF_ARRAY, strings("x", "yy"))], infos, bytes(96), version=version)
    layout = read(data)
    start = len(data) - 96
    assert [(t.name, t.dtype, t.shape, t.start, t.end) for t in layout.tensors] == [
        ("a", "F16", (3, 2), start, start + 12),
        ("b", "F32", (2, 8), start + 32, start + 96),
    ]


@pytest.mark.parametrize(
    ("kind", "value"),
    [
        *(
            (kind, bytes(size))
            for kind, size in [(0, 1), (1, 1), (2, 2), (3, 2), (4, 4), (5, 4), (6, 4), (7, 1)]
        ),
        *((kind, bytes(8)) for kind in (10, 11, 12)),
        (7, b"\x01"),
        (GGUF_STRING, gguf_string("ä")),
        (GGUF_STRING, gguf_string("y" * 65_536)),
        (GGUF_ARRAY, strings()),
        (GGUF_ARRAY, strings("", "x", "y" * 65_536, "z")),
        (GGUF_ARRAY, gguf_array(GGUF_STRING, 1, gguf_string(b"\xff"))),
        (GGUF_ARRAY, gguf_array(GGUF_STRING, 300_000, gguf_string("token") * 300_000)),
        (GGUF_ARRAY, gguf_array(12, 3, bytes(24))),
        (GGUF_ARRAY, gguf_array(7, 3_000_000, b"\1" * 3_000_000)),
        (GGUF_ARRAY, gguf_array(GGUF_ARRAY, 2, strings("x") + gguf_array(4, 1, bytes(4)))),
        (GGUF_ARRAY, gguf_array(GGUF_ARRAY, 1, b"") * 15 + gguf_array(0, 1, b"\0")),
    ],
)
def test_every_kind_of_value_is_stepped_over_exactly(kind: int, value: bytes) -> None:
    """What follows is found in its place, and one byte less is one too few."""
    following = gguf_pair("next", 0, b"\0")
    assert read(gguf_file([gguf_pair("a", kind, value), following])).tensors == ()
    with pytest.raises(MalformedModelError, match=r"the file ends inside|more tensors and pairs"):
        read(pair(kind, value)[:-1])


@pytest.mark.parametrize("number", sorted(TYPES))
def test_every_type_has_its_size(number: int) -> None:
    """Two rows of one block each; a row of half a block is refused where blocks can be halved."""
    name, elements, size = TYPES[number]
    layout = read(one([elements, 2], number, size=2 * size))
    assert [(t.dtype, t.shape, t.end - t.start) for t in layout.tensors] == [(name, (2, elements), 2 * size)]
    with pytest.raises(MalformedModelError, match="ends after the end of the file"):
        read(one([elements, 2], number, size=2 * size - 1))
    if elements > 1:
        with pytest.raises(MalformedModelError, match=f"no multiple of {elements}, the block of {name}"):
            read(one([elements // 2, 2], number, size=2 * size))


@pytest.mark.parametrize("number", sorted(REMOVED))
def test_a_removed_type_is_called_by_its_name(number: int) -> None:
    """The file is old rather than hostile."""
    with pytest.raises(MalformedModelError, match=f"{REMOVED[number]}, which ggml has removed"):
        read(one([256], number, size=4096))


@pytest.mark.parametrize("cut", range(32))
def test_the_padding_of_the_last_tensor_may_be_missing_or_cut(cut: int) -> None:
    """Writers differ; a byte more is refused."""
    data = one([7, 1], size=28)
    assert len(read(data + bytes(4 - min(cut, 4))).tensors) == 1
    with pytest.raises(MalformedModelError, match="bytes follow the last tensor"):
        read(data + bytes(5 + cut))


def test_the_alignment_of_the_file_counts() -> None:
    """At 64 a tensor may not begin at 32."""
    align = gguf_pair("general.alignment", 4, struct.pack("<I", 64))
    infos = [gguf_info("a", [8], 0, 0), gguf_info("b", [8], 0, 64)]
    assert len(read(gguf_file([align], infos, bytes(96), alignment=64)).tensors) == 2
    infos = [gguf_info("a", [8], 0, 0), gguf_info("b", [8], 0, 32)]
    with pytest.raises(MalformedModelError, match="the offset of tensor 'b' is no multiple of 64"):
        read(gguf_file([align], infos, bytes(64), alignment=64))


@pytest.mark.parametrize(
    ("data", "offset", "rule"),
    [
        (b"GGU", 0, "the file ends inside the magic"),
        (b"GGUX" + bytes(20), 0, "the file must begin with 'GGUF'"),
        (gguf_file(version=1), 4, "GGUF version 1 is not supported, only 2 and 3"),
        (gguf_file(version=4), 4, "GGUF version 4 is not supported"),
        (gguf_file(version=0x03000000), 4, "big-endian GGUF is not supported"),
        (gguf_file(version=0x02000000), 4, "big-endian GGUF is not supported"),
        (gguf_file(counts=(100_001, 0)), 8, "more than 100000 tensors"),
        (gguf_file(counts=(2**64 - 1, 0)), 8, "more than 100000 tensors"),
        (gguf_file(counts=(0, 10_001)), 16, "more than 10000 metadata pairs"),
        (gguf_file(counts=(1, 1)), 8, "more tensors and pairs than the file has room for"),
        (pair(13, bytes(8)), HEAD + 9, "unknown value type 13"),
        (pair(7, b"\x02"), VALUE, "a bool must be 0 or 1"),
        (pair(GGUF_ARRAY, gguf_array(7, 3, b"\0\1\2")), VALUE + 14, "a bool must be 0 or 1"),
        (pair(GGUF_STRING, gguf_string(b"x\xff")), VALUE + 9, "a string is not UTF-8"),
        (pair(GGUF_STRING, gguf_string("y" * 65_537)), VALUE, "a string is longer than 65536 bytes"),
        (pair(GGUF_ARRAY, strings("x", "y" * 65_537)), VALUE + 21, "a string is longer than 65536 bytes"),
        (pair(GGUF_ARRAY, gguf_array(13, 0, b"")), VALUE, "unknown value type 13"),
        (pair(GGUF_ARRAY, gguf_array(12, 2**61, bytes(64))), VALUE + 12, "the file ends inside a value"),
        (
            pair(GGUF_ARRAY, gguf_array(GGUF_STRING, 4_000_001, b"")),
            VALUE + 4,
            "more than 4000000 strings in arrays",
        ),
        (
            pair(GGUF_ARRAY, gguf_array(GGUF_STRING, 9, bytes(8))),
            VALUE + 12,
            "the file ends inside an array of strings",
        ),
        (
            pair(GGUF_ARRAY, gguf_array(GGUF_ARRAY, 10_000, b"")),
            VALUE + 4,
            "more than 10000 metadata pairs and inner",
        ),
        (pair(GGUF_ARRAY, gguf_array(GGUF_ARRAY, 9, b"")), VALUE + 12, "the file ends inside an array"),
        (
            pair(GGUF_ARRAY, gguf_array(GGUF_ARRAY, 1, b"") * 17),
            VALUE + 16 * 12,
            "arrays nested deeper than 16",
        ),
        (gguf_file([gguf_pair("a", 0, b"\0")] * 2), HEAD + 14, "duplicate key 'a'"),
        (gguf_file([gguf_pair(b"\xc3", 0, b"\0")]), HEAD + 8, "a string is not UTF-8"),
        (gguf_file([gguf_pair("k" * 65_537, 0, b"\0")]), HEAD, "a string is longer than 65536 bytes"),
        (
            gguf_file([gguf_pair("general.alignment", 5, bytes(4))]),
            HEAD + 29,
            "general.alignment must be a u32",
        ),
        (gguf_file([gguf_pair("general.alignment", 4, bytes(4))]), HEAD + 29, "must be a power of two"),
        (gguf_file([gguf_pair("general.alignment", 4, b"\x30\0\0\0")]), HEAD + 29, "must be a power of two"),
        (one([1] * 5), HEAD, "tensor 't' has more than 4 dimensions"),
        (one([8], 99), HEAD, "tensor 't' has the type unknown number 99"),
        (one([2**32, 2**32]), HEAD, "the shape of tensor 't' overflows"),
        (one([0, 2**63]), HEAD, "the shape of tensor 't' overflows"),
        (one([8], offset=31), HEAD, "the offset of tensor 't' is no multiple of 32"),
        (one([8], offset=32), 64, "tensor 't' leaves a hole before it"),
        (one([8], size=31), 64, "tensor 't' ends after the end of the file"),
        (one([8], size=33), 96, "bytes follow the last tensor"),
        (gguf_file() + bytes(9), 32, "bytes follow the last tensor"),
        (
            gguf_file([], [gguf_info("t", [8], 0, n) for n in (0, 32)], bytes(64)),
            HEAD + 33,
            "duplicate tensor name",
        ),
        (
            gguf_file([], [gguf_info(n, [8], 0, 0) for n in "ab"], bytes(32)),
            96,
            "tensor 'b' overlaps another",
        ),
        (
            gguf_file([], [gguf_info(n, [8], 0, 64 * i) for i, n in enumerate("ab")], bytes(96)),
            128,
            "a hole before it",
        ),
    ],
)
def test_a_broken_rule_is_named_with_its_byte(data: bytes, offset: int, rule: str) -> None:
    """One broken rule per file."""
    with pytest.raises(MalformedModelError, match=rule) as caught:
        read(data)
    assert caught.value.offset == offset
    assert caught.value.path == "m.gguf"


@pytest.mark.parametrize(
    ("limits", "rule"),
    [
        (Limits(tensors=1), "more than 1 tensors"),
        (Limits(metadata_pairs=1), "more than 1 metadata pairs"),
        (Limits(header_bytes=100), "the header reaches its limit of 100 bytes"),
        (Limits(names_bytes=3), "names longer than 3 bytes together"),
        (Limits(array_strings=1), "more than 1 strings in arrays"),
        (Limits(string_bytes=2), "a string is longer than 2 bytes"),
        (Limits(file_bytes=100), "the file is larger than 100 bytes"),
    ],
)
def test_limits_are_arguments(limits: Limits, rule: str) -> None:
    """Two tensors, two pairs and two strings pass by default, and fail each lowered limit."""
    pairs = [gguf_pair("k", GGUF_ARRAY, strings("xyz", "")), gguf_pair("l", 0, b"\0")]
    infos = [gguf_info("a", [8], 0, 0), gguf_info("b", [8], 0, 32)]
    data = gguf_file(pairs, infos, bytes(64))
    assert len(read(data).tensors) == 2
    with pytest.raises(MalformedModelError, match=rule):
        read(data, limits)


def test_the_table_of_types_is_that_of_the_gguf_library() -> None:
    """Each type the library knows has the same number, name, block and size here."""
    from gguf.constants import GGML_QUANT_SIZES, GGMLQuantizationType

    theirs = {kind.value: (kind.name, *GGML_QUANT_SIZES[kind]) for kind in GGMLQuantizationType}
    assert {number: TYPES.get(number) for number in theirs} == theirs
    assert not REMOVED.keys() & theirs.keys()
