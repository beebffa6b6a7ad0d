"""Each rule of the safetensors header, with the byte at which it is broken."""

from __future__ import annotations

import struct
from itertools import permutations

import pytest
from tests.model_files import entry, safetensors_file

from vram_residency.core.errors import MalformedModelError
from vram_residency.formats import Layout, Limits, MemorySource, TensorSpec, parse
from vram_residency.formats.safetensors import BITS

ONE = b'"dtype":"U8","shape":[1],"data_offsets":[0,1]'


def read(data: bytes, limits: Limits | None = None) -> Layout:
    return parse(MemorySource(data), name="m.safetensors", limits=limits or Limits())


def tensor(members: bytes) -> bytes:
    return safetensors_file(b'{"a":{' + members + b"}}", b"x")


def metadata(members: bytes) -> bytes:
    return safetensors_file(b'{"__metadata__":{' + members + b"}}")


def test_a_small_file_gives_its_tensors_in_the_order_of_their_bytes() -> None:
    """Spans are counted from the first byte of the file, whatever the order in the header."""
    header: dict[str, object] = {
        "second": entry(4, 8, dtype="F32", shape=[]),
        "first": entry(0, 4, dtype="F16", shape=[2, 1]),
    }
    data = safetensors_file(header, bytes(8))
    start = len(data) - 8
    assert read(data) == Layout(
        "safetensors",
        (
            TensorSpec("first", "F16", (2, 1), start, start + 4),
            TensorSpec("second", "F32", (), start + 4, start + 8),
        ),
    )


@pytest.mark.parametrize(
    ("header", "data"),
    [
        (b"{}", b""),
        (b"{}" + b" " * 3_000_000, b""),
        (b'{ "a" :\t{"shape":[ 1 , 1 ],\r\n"data_offsets":[0,1] , "dtype":"U8"} }', b"x"),
        (b'{"":{' + ONE + b"}}", b"x"),
        (b'{"a":{' + ONE + b'},"__metadata__":{}}', b"x"),
        (b'{"__metadata__":{"\\ud83d\\ude00\\n":"\xf0\x9f\x98\x80","b":""}}', b""),
        (b'{"a":{"\\u0064type":"U8","shape":[1],"data_offsets":[0,1]}}', b"x"),
        (b'{"z":{"dtype":"F64","shape":[0,9],"data_offsets":[1,1]},"a":{' + ONE + b"}}", b"x"),
    ],
)
def test_what_the_format_allows_is_accepted(header: bytes, data: bytes) -> None:
    """White space, escapes, any order of keys, empty tensors and names, padding with spaces."""
    assert read(safetensors_file(header, data)).format == "safetensors"


@pytest.mark.parametrize("order", sorted(permutations(("dtype", "shape", "data_offsets"))))
def test_each_order_of_the_keys_is_read_by_the_short_cut(
    order: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A writer that sorts its keys must not make a header with 100,000 tensors many times slower to read."""
    values = {"dtype": b'"F32"', "shape": b"[2 , 0,3]", "data_offsets": b"[0,0]"}
    members = b",".join(b'"%s": %s' % (key.encode(), values[key]) for key in order)
    monkeypatch.delattr("vram_residency.formats.safetensors._Header._members_of")
    layout = read(safetensors_file(b'{"a":{' + members + b"}}"))
    assert layout.tensors[0].shape == (2, 0, 3)


def test_the_order_of_the_keys_changes_nothing() -> None:
    """The short cut for the usual order and the long way agree."""
    usual = tensor(ONE)
    other = tensor(b'"data_offsets":[0,1],"shape":[1],"dtype":"U8"')
    assert read(usual) == read(other)


@pytest.mark.parametrize("dtype", sorted(BITS))
def test_every_type_has_its_size(dtype: str) -> None:
    """Eight elements take as many bytes as one has bits; one byte less is refused."""
    size = BITS[dtype]
    good = safetensors_file({"a": entry(0, size, dtype=dtype, shape=[8])}, bytes(size))
    assert [spec.dtype for spec in read(good).tensors] == [dtype]
    bad = safetensors_file({"a": entry(0, size - 1, dtype=dtype, shape=[8])}, bytes(size - 1))
    with pytest.raises(MalformedModelError, match=f"needs {size * 8} bits by its shape"):
        read(bad)


@pytest.mark.parametrize(
    ("data", "offset", "rule"),
    [
        (b"1234567", 7, "the file ends inside the length of the header"),
        (struct.pack("<Q", 0) + b"{}", 0, "the header is empty"),
        (struct.pack("<Q", 3) + b"{}", 0, "the header ends after the end of the file"),
        (struct.pack("<Q", 100_000_001) + b"{}", 0, "the header is longer than 100000000 bytes"),
        (safetensors_file(b" {}"), 8, "the header must begin with '{'"),
        (safetensors_file(b"{}\n"), 10, "only spaces may follow the header's object"),
        (safetensors_file(b"{}  x"), 12, "only spaces may follow the header's object"),
        (safetensors_file(b"{"), 9, "the header ends where a key of the header should stand"),
        (safetensors_file(b'{"a'), 9, r"the header ends inside a string \(a key of the header\)"),
        (safetensors_file(b'{"a" 1'), 13, "expected ':' after a key of the header, found '1'"),
        (safetensors_file(b'{"a":['), 13, "expected the '{' of a tensor, found a list"),
        (safetensors_file(b'{"__metadata__":{};'), 8 + 18, "expected ',' or '}' in the header, found ';'"),
        (
            safetensors_file(b'{"a":{' + ONE + b'},"a":{' + ONE + b"}}", b"x"),
            8 + 53,
            "duplicate key 'a' in the header",
        ),
        (tensor(b'"dtype":"U8","dtype":"U8"'), 8 + 19, "duplicate key 'dtype' in a tensor"),
        (tensor(ONE + b',"x":1'), 8 + 56, "unknown key 'x' in a tensor"),
        (tensor(b'"dtype":"U8","shape":[1]'), 8 + 5, "tensor 'a' lacks dtype, shape or data_offsets"),
        (tensor(ONE.replace(b"U8", b"U9")), 8 + 5, "unknown dtype 'U9'"),
        (tensor(b'"dtype":1'), 8 + 14, "expected a string, the dtype, found '1'"),
        (tensor(b'"shape":1'), 8 + 14, "expected shape, a list of whole numbers, found '1'"),
        (tensor(b'"shape":[-1]'), 8 + 15, "expected shape, a list of whole numbers, found a negative number"),
        (tensor(b'"shape":[1,NaN]'), 8 + 17, "found NaN"),
        (tensor(b'"shape":[1.0]'), 8 + 15, "a number in shape is no whole number"),
        (tensor(b'"shape":[1e9]'), 8 + 15, "a number in shape is no whole number"),
        (tensor(b'"shape":[01]'), 8 + 15, "has leading zeros"),
        (tensor(b'"shape":[12345678901234567890]'), 8 + 15, "a number in shape is no whole number"),
        (tensor(b'"shape":[1,]'), 8 + 17, "expected shape, a list of whole numbers, found ']'"),
        (tensor(b'"shape":[[1]]'), 8 + 15, "found a list"),
        (tensor(ONE.replace(b"[0,1]", b"[0]")), 8 + 5, "data_offsets must be two numbers"),
        (tensor(ONE.replace(b"[0,1]", b"[1,0]")), 8 + 5, "data_offsets end before they start"),
        (tensor(ONE.replace(b"[0,1]", b"[0,2]")), 8 + 5, "data_offsets end after the end of the file"),
        (
            tensor(ONE.replace(b"[1]", b"[2]")),
            8 + 5,
            "tensor 'a' needs 16 bits by its shape, but has 1 bytes",
        ),
        (tensor(ONE.replace(b"[1]", b"[4294967296,4294967296]")), 8 + 5, "the shape overflows"),
        (tensor(ONE.replace(b"[1]", b"[0,9223372036854775807]")), 8 + 5, "the shape overflows"),
        (tensor(ONE.replace(b"[1]", b"[" + b"1," * 64 + b"1]")), 8 + 5, "more than 64 dimensions"),
        (metadata(b'"a":1'), 8 + 21, "expected a string, the value in __metadata__, found '1'"),
        (metadata(b'"a":"","a":""'), 8 + 24, "duplicate key 'a' in __metadata__"),
        (metadata(b'"a":"x\xff"'), 8 + 23, "a string is not UTF-8"),
        (metadata(b'"a":"x\x0a"'), 8 + 23, "a raw control character in a string"),
        (metadata(b'"a":"x\\q"'), 8 + 23, "an unknown escape in a string"),
        (metadata(b'"a":"\\ud800"'), 8 + 21, "escapes half a surrogate pair"),
        (metadata(b'"a":"' + b"y" * 65_537 + b'"'), 8 + 21, "a string is longer than 65536 bytes"),
        (metadata(b'"a":"' + b"\xc3\xa4" * 32_769 + b'"'), 8 + 21, "a string is longer than 65536 bytes"),
        (metadata(b'"a":"' + b"y" * 9_000_000 + b'"'), 8 + 21, "a string is longer than 65536 bytes"),
        (safetensors_file(b'{"__metadata__":null}'), 8 + 16, "expected the '{' of __metadata__, found null"),
    ],
)
def test_a_broken_rule_is_named_with_its_byte(data: bytes, offset: int, rule: str) -> None:
    """One broken rule per file."""
    with pytest.raises(MalformedModelError, match=rule) as caught:
        read(data)
    assert caught.value.offset == offset
    assert caught.value.path == "m.safetensors"


@pytest.mark.parametrize(
    ("spans", "size", "place", "rule"),
    [
        ([(0, 4), (3, 8)], 8, 3, "tensor 't1' overlaps another"),
        ([(0, 4), (5, 8)], 8, 4, "tensor 't1' leaves a hole before it"),
        ([(1, 8)], 8, 0, "tensor 't0' leaves a hole before it"),
        ([(0, 7)], 8, 7, "bytes follow the last tensor"),
        ([], 1, 0, "bytes follow the last tensor"),
        ([(0, 8), (2, 4)], 8, 2, "tensor 't1' overlaps another"),
    ],
)
def test_tensors_cover_the_data_exactly_once(
    spans: list[tuple[int, int]], size: int, place: int, rule: str
) -> None:
    """The byte named lies in the data, where the hole or the overlap begins."""
    header: dict[str, object] = {f"t{n}": entry(start, end) for n, (start, end) in enumerate(spans)}
    data = safetensors_file(header, bytes(size))
    with pytest.raises(MalformedModelError, match=rule) as caught:
        read(data)
    assert caught.value.offset == len(data) - size + place


@pytest.mark.parametrize("length", [65_535, 65_536])
def test_a_string_of_the_longest_length_is_accepted_even_if_all_escaped(length: int) -> None:
    """The limit counts the bytes that are meant, not those that are written."""
    read(metadata(b'"a":"' + b"\\u0061" * length + b'"'))
    read(metadata(b'"' + b"y" * length + b'":""'))


@pytest.mark.parametrize(
    ("limits", "rule"),
    [
        (Limits(tensors=1), "more than 1 tensors"),
        (Limits(metadata_pairs=1), "more than 1 metadata pairs"),
        (Limits(header_bytes=40), "the header is longer than 40 bytes"),
        (Limits(names_bytes=16), "names longer than 16 bytes together"),
        (Limits(dimensions=0), "more than 0 dimensions"),
        (Limits(file_bytes=100), "the file is larger than 100 bytes"),
    ],
)
def test_limits_are_arguments(limits: Limits, rule: str) -> None:
    """Two tensors and two pairs pass by default, and fail each lowered limit."""
    header: dict[str, object] = {
        "__metadata__": {"k": "", "l": ""},
        "first": entry(0, 1),
        "second": entry(1, 2),
    }
    data = safetensors_file(header, b"xy")
    assert len(read(data).tensors) == 2
    with pytest.raises(MalformedModelError, match=rule):
        read(data, limits)


def test_hostile_names_appear_in_errors_as_short_printable_text() -> None:
    """A name cannot forge a line of a log, or fill it."""
    name = '"\\u001b[2J\\n' + "ä" * 200 + '"'
    data = safetensors_file("{" + name + ':{"dtype":"U8","shape":[],"data_offsets":[0,1],"shape":[]}}', b"x")
    data = data.replace(
        b'"shape":[],"data_offsets":[0,1],"shape":[]', b'"shape":[3],"data_offsets":[0,1]          '
    )
    with pytest.raises(MalformedModelError, match=r"\\x1b\[2J\\n") as caught:
        read(data)
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 250
