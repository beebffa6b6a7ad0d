"""The GGUF parser against the gguf library: its writer's files are read equally, and so is what we accept."""

from __future__ import annotations

import logging
import struct
from pathlib import Path

import numpy as np
import pytest
from gguf import GGMLQuantizationType, GGUFReader, GGUFValueType, GGUFWriter
from gguf.constants import GGML_QUANT_SIZES
from hypothesis import example, given
from hypothesis import strategies as st
from tests.hostile import good_gguf
from tests.model_files import gguf_file, gguf_info

from vram_residency.core.errors import MalformedModelError
from vram_residency.formats import Layout, MemorySource, parse

Tensors = list[tuple[str, str, tuple[int, ...], int, int]]

SCALARS = {
    GGUFValueType.UINT8: st.integers(0, 2**8 - 1),
    GGUFValueType.INT16: st.integers(-(2**15), 2**15 - 1),
    GGUFValueType.UINT32: st.integers(0, 2**32 - 1),
    GGUFValueType.INT64: st.integers(-(2**63), 2**63 - 1),
    GGUFValueType.FLOAT32: st.floats(width=32),
    GGUFValueType.FLOAT64: st.floats(),
    GGUFValueType.BOOL: st.booleans(),
    GGUFValueType.STRING: st.text(max_size=20),
}
keys = st.text("abcdefghij._", min_size=1, max_size=12).map(lambda text: f"x.{text}")
scalars = st.sampled_from(list(SCALARS)).flatmap(lambda kind: st.tuples(st.just(kind), SCALARS[kind]))
lists = st.lists(st.integers(0, 99), min_size=1, max_size=9) | st.lists(
    st.text(max_size=9), min_size=1, max_size=9
)
pairs = st.dictionaries(keys, scalars | st.tuples(st.just(GGUFValueType.ARRAY), lists), max_size=6)
# From slow to fast; the rows of the writer are those of bytes for quantised types.
kinds = st.sampled_from(list(GGMLQuantizationType))
shapes = st.lists(st.integers(1, 3), min_size=1, max_size=4)
tensors = st.dictionaries(st.text("abc.", min_size=1, max_size=9), st.tuples(kinds, shapes), max_size=5)


@pytest.fixture(autouse=True, scope="module")
def _quiet_library() -> None:
    logging.getLogger("gguf").setLevel(logging.CRITICAL)


def write(
    path: Path,
    pairs: dict[str, tuple[GGUFValueType, object]],
    tensors: dict[str, tuple[GGMLQuantizationType, list[int]]],
) -> bytes:
    writer = GGUFWriter(path, "llama")
    for key, (kind, value) in pairs.items():
        if kind == GGUFValueType.ARRAY:
            writer.add_array(key, value)  # type: ignore[arg-type]
        else:
            writer.add_key_value(key, value, kind)
    for number, (name, (kind, shape)) in enumerate(tensors.items()):
        row_bytes = shape[-1] * GGML_QUANT_SIZES[kind][1]
        writer.add_tensor(name, np.full((*shape[:-1], row_bytes), number, np.uint8), raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path.read_bytes()


def read(data: bytes) -> Layout:
    return parse(MemorySource(data), name="m.gguf")


def ours(data: bytes) -> Tensors:
    return sorted((t.name, t.dtype, t.shape, t.start, t.end) for t in read(data).tensors)


def theirs(path: Path) -> Tensors:
    return sorted(
        (
            t.name,
            t.tensor_type.name,
            tuple(map(int, reversed(t.shape))),
            t.data_offset,
            t.data_offset + t.n_bytes,
        )
        for t in GGUFReader(path).tensors
    )


@given(pairs=pairs, tensors=tensors)
def test_what_the_library_writes_is_read_equally(
    tmp_path: Path,
    pairs: dict[str, tuple[GGUFValueType, object]],
    tensors: dict[str, tuple[GGMLQuantizationType, list[int]]],
) -> None:
    """Names, types, shapes and places; each tensor's bytes are its own."""
    path = tmp_path / "m.gguf"
    data = write(path, pairs, tensors)
    assert ours(data) == theirs(path)
    for tensor in read(data).tensors:
        number = list(tensors).index(tensor.name)
        assert set(data[tensor.start : tensor.end]) <= {number}


@st.composite
def mutations(draw: st.DrawFn) -> bytes:
    """A valid file with a few bytes changed, or a u32 or u64 replaced by one that means something."""
    data = bytearray(good_gguf())
    for _ in range(draw(st.integers(1, 3))):
        at = draw(st.integers(0, len(data) - 1))
        number = draw(
            st.sampled_from([0, 1, 2, 7, 8, 9, 31, 32, 64, 2**31, 2**32 - 1]) | st.integers(0, 2**32 - 1)
        )
        piece = draw(
            st.binary(min_size=1, max_size=2)
            | st.sampled_from(
                [struct.pack("<B", number & 255), struct.pack("<I", number), struct.pack("<Q", number)]
            )
        )
        data[at : at + len(piece)] = piece
    return bytes(data)


@given(mutations())
@example(good_gguf())
@example(good_gguf()[:4] + b"\x02" + good_gguf()[5:])
@example(gguf_file([], [gguf_info("scalar", [], 0, 0)], bytes(4)))
@example(gguf_file([], [gguf_info("empty", [0, 5], 0, 0), gguf_info("full", [8], 0, 0)], bytes(32)))
def test_a_changed_file_is_refused_or_read_as_the_library_reads_it(tmp_path: Path, data: bytes) -> None:
    """The library's reader can hang on hostile counts: it sees only what we accepted."""
    try:
        found = ours(data)
    except MalformedModelError:
        return
    path = tmp_path / "m.gguf"
    path.write_bytes(data)
    assert found == theirs(path)


@given(st.binary(max_size=300))
def test_any_bytes_are_refused_in_our_own_words(noise: bytes) -> None:
    """After magic and version, with small counts, and plain."""
    for start in (b"", b"GGUF\x03\0\0\0", b"GGUF\x03\0\0\0" + struct.pack("<QQ", 1, 1)):
        data = start + noise
        if not data:
            continue
        try:
            layout = read(data)
        except MalformedModelError:
            continue
        assert all(tensor.end <= len(data) for tensor in layout.tensors)
