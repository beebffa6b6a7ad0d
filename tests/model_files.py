"""Tiny model files made by hand, right or wrong: the tests' own writers, which check nothing."""

from __future__ import annotations

import json
import struct
from collections.abc import Iterable

GGUF_STRING = 8
GGUF_ARRAY = 9


def safetensors_file(header: bytes | str | dict[str, object], data: bytes = b"") -> bytes:
    """Length ‖ header ‖ data; a dict becomes compact JSON."""
    if isinstance(header, dict):
        header = json.dumps(header, separators=(",", ":"))
    raw = header.encode() if isinstance(header, str) else header
    return struct.pack("<Q", len(raw)) + raw + data


def entry(
    start: int, end: int, *, dtype: str = "U8", shape: Iterable[int] | None = None
) -> dict[str, object]:
    """A tensor of a safetensors header; by default bytes in one dimension."""
    return {
        "dtype": dtype,
        "shape": [end - start] if shape is None else list(shape),
        "data_offsets": [start, end],
    }


def gguf_string(text: str | bytes) -> bytes:
    """u64 length ‖ bytes."""
    raw = text.encode() if isinstance(text, str) else text
    return struct.pack("<Q", len(raw)) + raw


def gguf_pair(key: str | bytes, kind: int, value: bytes) -> bytes:
    """A key, the number of its type, and the encoded value."""
    return gguf_string(key) + struct.pack("<I", kind) + value


def gguf_array(kind: int, count: int, items: bytes) -> bytes:
    """The value of an array: item type, count, items."""
    return struct.pack("<IQ", kind, count) + items


def gguf_info(name: str | bytes, dimensions: Iterable[int], kind: int, offset: int) -> bytes:
    """A tensor info; the fastest dimension comes first."""
    dims = list(dimensions)
    return gguf_string(name) + struct.pack(f"<I{len(dims)}QIQ", len(dims), *dims, kind, offset)


def gguf_file(
    pairs: Iterable[bytes] = (),
    infos: Iterable[bytes] = (),
    data: bytes = b"",
    *,
    version: int = 3,
    alignment: int = 32,
    counts: tuple[int, int] | None = None,
) -> bytes:
    """A whole file. ``counts`` (tensors, pairs) replaces the true counts; without infos nothing is padded."""
    pairs, infos = list(pairs), list(infos)
    tensors, pair_count = counts or (len(infos), len(pairs))
    head = b"GGUF" + struct.pack("<IQQ", version, tensors, pair_count) + b"".join(pairs) + b"".join(infos)
    padding = -len(head) % alignment if infos else 0
    return head + bytes(padding) + data
