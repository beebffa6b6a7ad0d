"""The safetensors parser against the library: never more is accepted, and never something else."""

from __future__ import annotations

import json

import numpy as np
import safetensors
from hypothesis import assume, example, given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from safetensors.numpy import save
from tests.hostile import good_safetensors
from tests.model_files import safetensors_file

from vram_residency.core.errors import MalformedModelError
from vram_residency.formats import Layout, MemorySource, parse
from vram_residency.formats.safetensors import BITS

DTYPES = ["bool", "uint8", "int8", "uint16", "int16", "uint32", "int32", "uint64", "int64"]
DTYPES += ["float16", "float32", "float64", "complex64"]

names = st.text(max_size=20).filter(lambda name: name != "__metadata__")
arrays = st.sampled_from(DTYPES).flatmap(
    lambda dtype: hnp.arrays(dtype, hnp.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=5))
)
Tensors = dict[str, tuple[str, tuple[int, ...], bytes]]


def read(data: bytes) -> Layout:
    return parse(MemorySource(data), name="m.safetensors")


def ours(data: bytes) -> Tensors:
    return {t.name: (t.dtype, t.shape, data[t.start : t.end]) for t in read(data).tensors}


def theirs(data: bytes) -> Tensors:
    return {
        name: (part["dtype"], tuple(part["shape"]), bytes(part["data"]))
        for name, part in safetensors.deserialize(data)
    }


@given(
    tensors=st.dictionaries(names, arrays, max_size=8),
    metadata=st.none() | st.dictionaries(st.text(max_size=9), st.text(max_size=9), max_size=4),
)
def test_what_the_library_writes_is_read_equally(
    tensors: dict[str, np.ndarray], metadata: dict[str, str] | None
) -> None:
    """Names, types, shapes and bytes."""
    data = save({name: np.ascontiguousarray(array) for name, array in tensors.items()}, metadata)
    try:
        expected = theirs(data)
    except safetensors.SafetensorError:
        # Version 0.8 writes `{},"__metadata__":{}}` where both are empty, and does not read it either.
        assert not tensors
        assert not metadata
        assume(False)
    found = ours(data)
    assert found == expected
    assert {name: part[2] for name, part in found.items()} == {n: a.tobytes() for n, a in tensors.items()}


blanks = st.text(" \t\n\r", max_size=3)


@st.composite
def loose_headers(draw: st.DrawFn) -> bytes:
    """Valid headers in unusual dress: any order, white space, escapes; then the data."""
    end = 0
    rows = []
    for name in draw(st.lists(names, unique=True, max_size=5)):
        dtype = draw(st.sampled_from(sorted(BITS)))
        shape = [*draw(st.lists(st.integers(0, 4), max_size=3)), draw(st.sampled_from([0, 8]))]
        start, end = end, end + int(np.prod(shape)) * BITS[dtype] // 8
        members = {"dtype": dtype, "shape": shape, "data_offsets": [start, end]}
        rows.append((name, {key: members[key] for key in draw(st.permutations(sorted(members)))}))
    header: dict[str, object] = dict(draw(st.permutations(rows)))
    if draw(st.booleans()):
        header["__metadata__"] = draw(st.dictionaries(st.text(max_size=5), st.text(max_size=5), max_size=3))
    comma, colon = (f"{draw(blanks)}{mark}{draw(blanks)}" for mark in ",:")
    text = json.dumps(header, separators=(comma, colon), ensure_ascii=draw(st.booleans()))
    return safetensors_file(text + " " * draw(st.integers(0, 9)), bytes(end))


@given(loose_headers())
def test_unusual_but_valid_headers_are_read_as_the_library_reads_them(data: bytes) -> None:
    """The grammar is that of JSON, not of one writer."""
    try:
        expected = theirs(data)
    except safetensors.SafetensorError:
        assume(False)
    assert ours(data) == expected


@st.composite
def mutations(draw: st.DrawFn) -> bytes:
    """A valid file with a few bytes of the header replaced, removed or inserted; the length is true."""
    good = draw(st.just(good_safetensors()) | loose_headers())
    length = int.from_bytes(good[:8], "little")
    header, data = bytearray(good[8 : 8 + length]), good[8 + length :]
    for _ in range(draw(st.integers(1, 4))):
        at = draw(st.integers(0, max(0, len(header) - 1)))
        piece = draw(
            st.sampled_from([b"0", b"1", b"9", b",", b'"', b"}", b"{", b" ", b"\\", b"-", b""])
            | st.binary(max_size=2)
        )
        header[at : at + draw(st.integers(0, 2))] = piece
    return safetensors_file(bytes(header), data)


@given(mutations())
@example(safetensors_file(b'{"__metadata__":null}'))
@example(safetensors_file(b'{"a":["U8",[1],[0,1]]}', b"x"))
def test_a_changed_header_is_refused_or_read_as_the_library_reads_it(data: bytes) -> None:
    """What we accept, the library accepts, and sees the same in it."""
    try:
        found = ours(data)
    except MalformedModelError:
        return
    assert found == theirs(data)


@given(st.binary(max_size=200))
def test_any_bytes_are_refused_or_read_as_the_library_reads_them(noise: bytes) -> None:
    """As header, and as a whole file."""
    for data in (safetensors_file(noise), safetensors_file(b"{" + noise), noise or b"-"):
        try:
            found = ours(data)
        except MalformedModelError:
            continue
        assert found == theirs(data)
