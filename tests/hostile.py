"""A thousand and more hostile model files, the same ones every time.

Each is certainly malformed: where chance decides, it decides among changes that no reader may accept.
"""

from __future__ import annotations

import random
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from tests.model_files import (
    GGUF_ARRAY,
    GGUF_STRING,
    entry,
    gguf_array,
    gguf_file,
    gguf_info,
    gguf_pair,
    gguf_string,
    safetensors_file,
)

U64_MAX = 2**64 - 1
GIB = 2**30


class HostileFile(NamedTuple):
    """A name whose ending says what the file claims to be; ``size_bytes`` above the data makes it sparse."""

    name: str
    data: bytes
    size_bytes: int = 0

    def write(self, directory: Path) -> Path:
        """Put it on disk."""
        path = directory / self.name
        with path.open("wb") as file:
            file.write(self.data)
            file.truncate(max(self.size_bytes, len(self.data)))
        return path


def good_safetensors() -> bytes:
    """A valid file with metadata, three types and an empty tensor; its data is no white space."""
    header: dict[str, object] = {
        "__metadata__": {"format": "pt"},
        "encoder.weight": entry(0, 24, dtype="F32", shape=[2, 3]),
        "encoder.bias": entry(24, 30, dtype="F16", shape=[3]),
        "empty": entry(30, 30, dtype="I64", shape=[0, 4]),
        "mask": entry(30, 37, dtype="BOOL", shape=[7]),
    }
    return safetensors_file(header, bytes(range(100, 137)))


def good_gguf() -> bytes:
    """A valid file with values of several kinds; each tensor takes exactly 32 bytes: nothing is padding."""
    pairs = [
        gguf_pair("general.architecture", GGUF_STRING, gguf_string("llama")),
        gguf_pair("general.alignment", 4, struct.pack("<I", 32)),
        gguf_pair("llama.rope.freq_base", 6, struct.pack("<f", 10000.0)),
        gguf_pair("tokenizer.ggml.add_bos_token", 7, b"\x01"),
        gguf_pair(
            "tokenizer.ggml.tokens",
            GGUF_ARRAY,
            gguf_array(GGUF_STRING, 3, b"".join(map(gguf_string, ["<s>", "a", "b"]))),
        ),
    ]
    infos = [
        gguf_info("token_embd.weight", [8], 0, 0),
        gguf_info("output_norm.weight", [4, 4], 1, 32),
        gguf_info("output.weight", [8], 0, 64),
    ]
    return gguf_file(pairs, infos, bytes(range(100, 196)))


def corpus() -> Iterator[HostileFile]:
    """All of them, in a fixed order; names are unique."""
    yield from _numbered("cut", ".safetensors", _truncations(good_safetensors()))
    yield from _numbered("cut", ".gguf", _truncations(good_gguf()))
    yield from _numbered("flip", ".safetensors", _flipped_safetensors())
    yield from _numbered("flip", ".gguf", _flipped_gguf())
    yield from _numbered("tail", ".safetensors", (good_safetensors() + bytes(n) for n in range(1, 20)))
    yield from _numbered("tail", ".gguf", (good_gguf() + bytes(n) for n in range(1, 40)))
    yield from _numbered("header", ".safetensors", map(safetensors_file, _bad_headers()))
    yield from _numbered("value", ".safetensors", _bad_tensors())
    yield from _numbered("soup", ".safetensors", _token_soup(random.Random(1)))
    yield from _numbered("noise", ".safetensors", _noise(random.Random(2), b""))
    yield from _numbered("noise", ".gguf", _noise(random.Random(3), b"GGUF\x03\x00\x00\x00"))
    yield from _numbered("count", ".gguf", _bad_counts())
    yield from _numbered("pair", ".gguf", _bad_pairs())
    yield from _numbered("info", ".gguf", _bad_infos())
    yield HostileFile("empty.safetensors", b"")
    yield HostileFile("empty.gguf", b"")
    yield HostileFile("empty.bin", b"")
    yield HostileFile("magic.bin", b"GGUF")
    yield from _sparse()


def write_corpus(directory: Path) -> list[Path]:
    """Write the whole corpus."""
    return [file.write(directory) for file in corpus()]


def _numbered(kind: str, ending: str, files: Iterator[bytes]) -> Iterator[HostileFile]:
    for number, data in enumerate(files):
        yield HostileFile(f"{kind}-{number:04}{ending}", data)


def _truncations(good: bytes) -> Iterator[bytes]:
    return (good[:length] for length in range(1, len(good)))


def _flipped_safetensors() -> Iterator[bytes]:
    good = good_safetensors()
    header_end = 8 + int.from_bytes(good[:8], "little")
    # Any other length of the header moves the data; the highest bit makes text no UTF-8.
    places = [(byte, 1 << bit) for byte in range(8) for bit in range(8)]
    places += [(byte, 0x80) for byte in range(8, header_end)]
    return (_flip(good, byte, mask) for byte, mask in places)


def _flipped_gguf() -> Iterator[bytes]:
    good = good_gguf()
    # Magic, version (its lowest bit leads to 2, which is lawful) and counts.
    places = [(byte, 1 << bit) for byte in range(24) for bit in range(8) if (byte, bit) != (4, 0)]
    # The whole data offset of the last tensor, and its only dimension.
    last = good.index(b"output.weight") + len("output.weight")
    places += [(byte, 1 << bit) for byte in range(last + 4, last + 12) for bit in range(8)]
    places += [(byte, 1 << bit) for byte in range(last + 16, last + 24) for bit in range(8)]
    return (_flip(good, byte, mask) for byte, mask in places)


def _flip(data: bytes, byte: int, mask: int) -> bytes:
    return data[:byte] + bytes([data[byte] ^ mask]) + data[byte + 1 :]


def _bad_headers() -> Iterator[bytes]:
    yield from (
        b" {}",
        b"\xef\xbb\xbf{}",
        b"[]",
        b"null",
        b'"x"',
        b"{",
        b"}",
        b"{}}",
        b"{}x",
        b"{}\n",
        b"{}\t",
    )
    yield from (b"{,}", b"{}{}", b'{"a"}', b'{"a":}', b'{"a":1}', b'{"a":null}', b'{"a":[]}', b'{"a":{}}')
    yield from (b"{'a':{}}", b"{a:{}}", b'{"a":{},}', b'{"a" "b"}', b'{"__metadata__":null}', b"{/**/}")
    yield from (b'{"__metadata__":[]}', b'{"__metadata__":{"a":1}}', b'{"__metadata__":{"a":null}}')
    yield from (b'{"__metadata__":{"a":{}}}', b'{"__metadata__":{"a":"b","a":"c"}}')
    yield from (b'{"__metadata__":{},"__metadata__":{}}', b'{"__metadata__":{},"__metad\\u0061ta__":{}}')
    for text in (
        b"\xff",
        b"\xc0\x80",
        b"\xed\xa0\x80",
        b"\xf4\x90\x80\x80",
        b"\xe2\x82",
        b"\x00",
        b"\n",
        b"\x1f",
    ):
        yield b'{"__metadata__":{"a":"' + text + b'"}}'
        yield b'{"__metadata__":{"' + text + b'":"a"}}'
    for escape in (
        b"\\ud800",
        b"\\udc00",
        b"\\udc00\\ud800",
        b"\\ud800x",
        b"\\x41",
        b"\\u12g4",
        b"\\u12",
        b"\\",
        b"\\'",
    ):
        yield b'{"__metadata__":{"a":"' + escape + b'"}}'
    for depth in (4, 17, 1000, 100_000):
        yield b'{"a":' * depth + b"}" * depth
        yield b'{"a":' + b"[" * depth + b"]" * depth + b"}"
        yield b'{"__metadata__":' + b'{"a":' * depth
    yield b'{"' + b"a" * 70_000 + b'":{}}'
    yield b'{"__metadata__":{"a":"' + b"a" * 65_537 + b'"}}'
    yield b'{"__metadata__":{' + b",".join(b'"%d":""' % n for n in range(10_001)) + b"}}"
    yield b"{" + b" " * 1_000_000 + b"x"
    empty = b'{"dtype":"U8","shape":[0],"data_offsets":[0,0]}'
    yield b"{" + b",".join(b'"%d":%b' % (n, empty) for n in range(100_001)) + b"}"


def _bad_tensors() -> Iterator[bytes]:
    for number in _BAD_NUMBERS:
        yield safetensors_file(b'{"a":{"dtype":"U8","shape":[%b],"data_offsets":[0,1]}}' % number, b"x")
        yield safetensors_file(b'{"a":{"dtype":"U8","shape":[1],"data_offsets":[%b,1]}}' % number, b"x")
        yield safetensors_file(b'{"a":{"dtype":"U8","shape":[1],"data_offsets":[0,%b]}}' % number, b"x")
    for lines in _BAD_MEMBERS:
        yield safetensors_file(b'{"a":{%b}}' % lines, b"x")
    for spans in (
        [(0, 4), (3, 8)],
        [(0, 4), (5, 8)],
        [(0, 4), (0, 4)],
        [(1, 8)],
        [(0, 7)],
        [(0, 8), (2, 4)],
        [(4, 0)],
    ):
        header: dict[str, object] = {f"t{n}": entry(a, b) for n, (a, b) in enumerate(spans)}
        yield safetensors_file(header, b"12345678")
    twice = b'"a":{"dtype":"U8","shape":[4],"data_offsets":[0,4]}'
    yield safetensors_file(b"{" + twice + b"," + twice + b"}", b"1234")
    yield safetensors_file(b"{" + twice + b"," + twice.replace(b'"a"', b'"\\u0061"') + b"}", b"1234")
    for shape in ([2**32, 2**32], [0, 2**63], [2**63 - 1, 2**63 - 1, 0], [1] * 65):
        yield safetensors_file({"a": entry(0, 0, dtype="F64", shape=shape)})
    yield safetensors_file({"a": entry(0, 1, dtype="F4", shape=[3])}, b"x")
    yield struct.pack("<Q", 1 << 62) + good_safetensors()[8:]
    yield struct.pack("<Q", 100_000_001) + good_safetensors()[8:]


_BAD_NUMBERS = (
    *(
        b"-1",
        b"-0",
        b"1.0",
        b"1e0",
        b"01",
        b"+1",
        b"0x1",
        b"NaN",
        b"Infinity",
        b"-Infinity",
        b"null",
        b"true",
    ),
    *(
        b'"1"',
        b"[1]",
        b"{}",
        b"1 1",
        b",",
        b"1,",
        b"99999999999999999999",
        b"9" * 10_000,
        b"18446744073709551616",
    ),
)
_BAD_MEMBERS = (
    b"",
    b'"dtype":"U8"',
    b'"dtype":"U8","shape":[1]',
    b'"shape":[1],"data_offsets":[0,1]',
    b'"dtype":"U8","dtype":"U8","shape":[1],"data_offsets":[0,1]',
    b'"dtype":"U8","shape":[1],"shape":[1],"data_offsets":[0,1]',
    b'"dtype":"U8","shape":[1],"data_offsets":[0,1],"data_offsets":[0,1]',
    b'"dtype":"U8","shape":[1],"data_offsets":[0,1],"more":1',
    b'"dtype":"U8","shape":[1],"data_offsets":[0,1],',
    b'"dtype":"U8","shape":[1],"data_offsets":[0]',
    b'"dtype":"U8","shape":[1],"data_offsets":[0,1,1]',
    b'"dtype":"U8","shape":1,"data_offsets":[0,1]',
    b'"dtype":8,"shape":[1],"data_offsets":[0,1]',
    b'"dtype":"u8","shape":[1],"data_offsets":[0,1]',
    b'"dtype":"","shape":[1],"data_offsets":[0,1]',
    b'"dtype":"F128","shape":[1],"data_offsets":[0,1]',
    b'"Dtype":"U8","shape":[1],"data_offsets":[0,1]',
    b'"dtype":"U8";"shape":[1],"data_offsets":[0,1]',
)


def _token_soup(chance: random.Random) -> Iterator[bytes]:
    tokens = [
        b"{",
        b"}",
        b"[",
        b"]",
        b",",
        b":",
        b'"a"',
        b'"dtype"',
        b'"shape"',
        b'"data_offsets"',
        b'"U8"',
        b"0",
        b"1",
    ]
    tokens += [b"-", b"1e9", b"null", b" ", b'"__metadata__"', b'"\\ud83d"', b"\xff"]
    for _ in range(120):
        soup = b"".join(chance.choices(tokens, k=chance.randint(4, 200)))
        yield safetensors_file(b'{"a":' + soup, b"x")


def _noise(chance: random.Random, start: bytes) -> Iterator[bytes]:
    return (start + chance.randbytes(chance.randint(16, 4096)) for _ in range(60))


def _bad_counts() -> Iterator[bytes]:
    good = good_gguf()
    for count in (4, 100_000, 100_001, 2**31, 2**32, 2**63, U64_MAX):
        yield good[:8] + struct.pack("<Q", count) + good[16:]
        yield good[:16] + struct.pack("<Q", count) + good[24:]
        yield good[:8] + struct.pack("<QQ", count, count) + good[24:]
    for version in (0, 1, 4, 2**31, 0x02000000, 0x03000000):
        yield good[:4] + struct.pack("<I", version) + good[8:]
    yield from (b"gguf" + good[4:], b"FUGG" + good[4:], b"GGML" + good[4:])


def _bad_pairs() -> Iterator[bytes]:
    for length in (65_537, 2**31, 2**32, 2**63, U64_MAX, U64_MAX - 7):
        raw = struct.pack("<Q", length) + b"a" * 70_000
        yield gguf_file([raw])
        yield gguf_file([gguf_pair("a", GGUF_STRING, raw)])
        yield gguf_file([gguf_pair("a", GGUF_ARRAY, gguf_array(GGUF_STRING, 1, raw))])
        for kind in (*range(10), 10, 11, 12):
            yield gguf_file([gguf_pair("a", GGUF_ARRAY, gguf_array(kind, length, b"\0" * 1000))])
    for kind in (13, 14, 255, 2**31, 2**32 - 1):
        yield gguf_file([gguf_pair("a", kind, bytes(64))])
        yield gguf_file([gguf_pair("a", GGUF_ARRAY, gguf_array(kind, 0, b""))])
    for depth in (17, 100, 10_000, 100_000):
        yield gguf_file(
            [gguf_pair("a", GGUF_ARRAY, gguf_array(GGUF_ARRAY, 1, b"") * depth + gguf_array(0, 0, b""))]
        )
    yield gguf_file(
        [gguf_pair("a", GGUF_ARRAY, gguf_array(GGUF_ARRAY, 10_001, gguf_array(0, 0, b"") * 10_001))]
    )
    yield gguf_file([gguf_pair("a", 0, b"\0"), gguf_pair("a", 0, b"\0")])
    yield from (gguf_file([gguf_pair("a", 7, bytes([value]))]) for value in (2, 128, 255))
    yield from (gguf_file([gguf_pair(raw, 0, b"\0")]) for raw in (b"\xff", b"\xed\xa0\x80", b"\xc0\xaf"))
    yield gguf_file([gguf_pair("a", GGUF_STRING, gguf_string(b"\xff\xfe"))])
    for alignment in (0, 3, 24, 33, 2**32 - 1):
        yield gguf_file([gguf_pair("general.alignment", 4, struct.pack("<I", alignment))])
    yield from (
        gguf_file([gguf_pair("general.alignment", kind, bytes(7) + b"\x20")]) for kind in (5, 10, 11, 12)
    )
    yield gguf_file([gguf_pair("general.alignment", GGUF_STRING, gguf_string("32"))])


def _bad_infos() -> Iterator[bytes]:
    eight = bytes(32)
    for kind in (4, 5, 31, 32, 33, 36, 37, 38, 42, 255, 2**32 - 1):
        yield gguf_file([], [gguf_info("a", [8], kind, 0)], eight)
    for kind, row in ((2, 31), (8, 33), (12, 255), (2, 1), (39, 16), (40, 32), (41, 64)):
        yield gguf_file([], [gguf_info("a", [row], kind, 0)], bytes(1024))
    for dims in ([8] * 5, [2**63], [2**32, 2**32], [2**62, 4, 0], [U64_MAX] * 4, [0, U64_MAX], [1] * 1000):
        yield gguf_file([], [gguf_info("a", dims, 0, 0)], eight)
    for offset in (1, 31, 32, 64, 2**32, 2**63, U64_MAX, U64_MAX - 31):
        yield gguf_file([], [gguf_info("a", [8], 0, offset)], eight)
    for first, second in ((0, 0), (32, 32), (0, 96), (64, 0), (32, 64)):
        yield gguf_file([], [gguf_info("a", [8], 0, first), gguf_info("b", [8], 0, second)], bytes(64))
    yield gguf_file([], [gguf_info("a", [16], 0, 0), gguf_info("b", [8], 0, 32)], bytes(64))
    yield gguf_file([], [gguf_info("a", [8], 0, 0), gguf_info("a", [8], 0, 32)], bytes(64))
    yield gguf_file([], [gguf_info("a", [8], 0, 0)], bytes(31))
    yield gguf_file([], [gguf_info("a", [2**40], 0, 0)], eight)
    yield gguf_file([], [gguf_info(b"\xff", [8], 0, 0)], eight)
    yield gguf_file([], [gguf_info("a" * 65_537, [8], 0, 0)], eight)
    yield gguf_file([], [struct.pack("<Q", U64_MAX) + b"a" * 64], eight)


def _sparse() -> Iterator[HostileFile]:
    """Files whose claims a reader could believe, since their size allows it."""
    yield HostileFile("vast.safetensors", good_safetensors(), 101 * GIB)
    yield HostileFile("vast.gguf", good_gguf(), 101 * GIB)
    yield HostileFile("vast.bin", b"raw", 101 * GIB)
    yield HostileFile("hollow.safetensors", struct.pack("<Q", 100_000_000), GIB)
    yield HostileFile("hollow-object.safetensors", struct.pack("<Q", 99_999_999) + b"{", GIB)
    yield HostileFile("hollow.gguf", b"GGUF" + struct.pack("<IQQ", 3, 100_000, 10_000), GIB)
    for kind in (0, 8, 9, 12):
        raw = gguf_file([gguf_pair("a", GGUF_ARRAY, gguf_array(kind, 100_000_000, b""))])
        yield HostileFile(f"hollow-array-{kind}.gguf", raw, GIB)
