"""Models that people use: read by us and by the libraries, alike."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.models import MINILM, REAL_MODELS, SMOLLM2, RealModel, split_model

from vram_residency.formats import FileSource, Layout, MemorySource, parse, read_model_directory


def read(path: Path) -> Layout:
    with FileSource(path) as source:
        layout = parse(source, name=str(path))
        source.require_unchanged()
    return layout


@pytest.mark.parametrize("model", REAL_MODELS, ids=lambda model: model.distribution)
def test_a_real_model_is_read_and_the_same_from_memory(model: RealModel) -> None:
    """Format and number of tensors are known; spans cover the data; memory gives an equal layout."""
    layout = read(model.path)
    assert (layout.format, len(layout.tensors)) == (model.format, model.tensors)
    with MemorySource(model.path.read_bytes()) as source:
        again = parse(source, name=str(model.path))
    assert again == layout
    assert again.digest() == layout.digest()
    assert layout.tensors[-1].end == model.path.stat().st_size


@pytest.mark.parametrize(
    "model", [m for m in REAL_MODELS if m.format == "safetensors"], ids=lambda m: m.distribution
)
def test_a_safetensors_model_is_what_the_library_sees(model: RealModel) -> None:
    """Names, shapes and bytes of every tensor."""
    from safetensors.numpy import load_file

    theirs = load_file(model.path)
    data = model.path.read_bytes()
    ours = {t.name: (t.shape, data[t.start : t.end]) for t in read(model.path).tensors}
    assert ours == {name: (array.shape, array.tobytes()) for name, array in theirs.items()}


def test_the_gguf_model_is_what_the_library_sees() -> None:
    """Names, types, shapes and places of every tensor."""
    from gguf import GGUFReader

    theirs = {
        t.name: (
            t.tensor_type.name,
            tuple(map(int, reversed(t.shape))),
            t.data_offset,
            t.data_offset + t.n_bytes,
        )
        for t in GGUFReader(SMOLLM2.path).tensors
    }
    ours = {t.name: (t.dtype, t.shape, t.start, t.end) for t in read(SMOLLM2.path).tensors}
    assert ours == theirs


def test_a_split_model_is_one_model(tmp_path: Path) -> None:
    """MiniLM in three files with an index holds the tensors of MiniLM in one."""
    found = read_model_directory(split_model(MINILM.path, tmp_path))
    layouts = {file.name: read(Path(file.path)) for file in found.files}
    found.require_layouts(layouts)
    assert [(file.index, file.total) for file in found.files] == [(0, 3), (1, 3), (2, 3)]
    parts = {(t.name, t.dtype, t.shape) for layout in layouts.values() for t in layout.tensors}
    assert parts == {(t.name, t.dtype, t.shape) for t in read(MINILM.path).tensors}
