"""Layouts: names by place, and the digest that goes into the seal."""

from __future__ import annotations

import json

import pytest
from blake3 import blake3
from tests.hostile import good_gguf, good_safetensors

from vram_residency.core.errors import InvalidInputError, MalformedModelError
from vram_residency.formats import Layout, MemorySource, TensorSpec, detect, parse

LAYOUT = Layout(
    "safetensors",
    (
        TensorSpec("a", "U8", (4,), 10, 14),
        TensorSpec("empty", "U8", (0,), 14, 14),
        TensorSpec("b", "U8", (6,), 14, 20),
    ),
)


@pytest.mark.parametrize(
    ("start", "end", "names"),
    [
        (0, 10, ()),
        (0, 11, ("a",)),
        (13, 14, ("a",)),
        (14, 15, ("b",)),
        (12, 16, ("a", "b")),
        (0, 99, ("a", "b")),
        (20, 99, ()),
        (14, 14, ()),
    ],
)
def test_a_range_belongs_to_the_tensors_that_own_a_byte_of_it(
    start: int, end: int, names: tuple[str, ...]
) -> None:
    """Ends are exclusive; a tensor without bytes owns none."""
    assert LAYOUT.names_in(start, end) == names


def test_the_digest_is_that_of_the_canonical_list() -> None:
    """Computed tensor by tensor, equal to the whole."""
    rows = [[t.name, t.dtype, list(t.shape), [t.start, t.end]] for t in LAYOUT.tensors]
    text = json.dumps(rows, separators=(",", ":")).encode()
    assert LAYOUT.digest() == f"blake3:{blake3(text).hexdigest()}"
    assert Layout("raw").digest() == f"blake3:{blake3(b'[]').hexdigest()}"


@pytest.mark.parametrize(
    ("name", "data", "kind"),
    [
        ("m.safetensors", good_safetensors(), "safetensors"),
        ("M.SafeTensors", good_safetensors(), "safetensors"),
        ("m.gguf", good_gguf(), "gguf"),
        ("blob", good_gguf(), "gguf"),
        ("m.bin", good_safetensors(), "raw"),
        ("m", b"x", "raw"),
        ("m.safetensors.bak", b"GGU", "raw"),
    ],
)
def test_the_format_follows_from_the_ending_or_from_the_magic(name: str, data: bytes, kind: str) -> None:
    """Anything else is raw, and has no tensors."""
    assert detect(MemorySource(data), name=name) == kind
    layout = parse(MemorySource(data), name=name)
    assert layout.format == kind
    assert bool(layout.tensors) == (kind != "raw")


@pytest.mark.parametrize(
    ("name", "data"), [("m.safetensors", good_gguf()), ("m.gguf", good_safetensors()), ("m", b"GGUF")]
)
def test_a_name_or_magic_that_promises_a_format_must_keep_it(name: str, data: bytes) -> None:
    """Nothing falls back to raw."""
    with pytest.raises(MalformedModelError, match="malformed model at byte"):
        parse(MemorySource(data), name=name)


def test_the_format_can_be_given() -> None:
    """It overrides name and magic, both ways."""
    assert (
        parse(MemorySource(good_safetensors()), name="m.gguf", format="safetensors").format == "safetensors"
    )
    assert parse(MemorySource(b"GGUF"), name="m.safetensors", format="raw") == Layout("raw")
    with pytest.raises(
        InvalidInputError, match="format: must be one of safetensors, gguf, raw, not 'pickle'"
    ):
        parse(MemorySource(b"x"), name="m", format="pickle")


@pytest.mark.parametrize("name", ["m.safetensors", "m.gguf", "m.bin"])
def test_an_empty_file_is_refused_whatever_its_name(name: str) -> None:
    """There is nothing to seal."""
    with pytest.raises(MalformedModelError, match="the file is empty"):
        parse(MemorySource(b""), name=name)
