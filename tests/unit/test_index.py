"""A model in several files: which directories are one model, and what their index may say."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from blake3 import blake3
from tests.model_files import entry, safetensors_file

from vram_residency.core.errors import InvalidInputError, MalformedModelError
from vram_residency.formats import FileSource, Layout, Limits, ModelDirectory, parse, read_model_directory
from vram_residency.formats.index import INDEX_NAME

FIRST, SECOND = "model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"


def write_file(path: Path, *names: str) -> Path:
    header: dict[str, object] = {name: entry(number, number + 1) for number, name in enumerate(names)}
    path.write_bytes(safetensors_file(header, bytes(len(names))))
    return path


def write_index(directory: Path, index: object) -> None:
    """Write the index; in a text FIRST and SECOND stand for the files."""
    text = (
        index.replace('"FIRST"', f'"{FIRST}"').replace('"SECOND"', f'"{SECOND}"')
        if isinstance(index, str)
        else json.dumps(index)
    )
    (directory / INDEX_NAME).write_text(text, "utf-8")


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """Two files and their index."""
    directory = tmp_path / "model"
    directory.mkdir()
    write_file(directory / FIRST, "a", "b")
    write_file(directory / SECOND, "c")
    write_index(
        directory, {"metadata": {"total_size": 3}, "weight_map": {"a": FIRST, "c": SECOND, "b": FIRST}}
    )
    return directory


def layouts_of(found: ModelDirectory) -> dict[str, Layout]:
    layouts = {}
    for file in found.files:
        with FileSource(file.path) as source:
            layouts[file.name] = parse(source, name=file.path)
    return layouts


def test_each_file_is_a_shard_numbered_by_its_sorted_name(model: Path) -> None:
    """From 0; files that the index does not name are no part of the model."""
    write_file(model / "another.safetensors", "z")
    found = read_model_directory(model)
    assert [(file.path, file.name, file.index, file.total) for file in found.files] == [
        (str(model / FIRST), FIRST, 0, 2),
        (str(model / SECOND), SECOND, 1, 2),
    ]
    found.require_layouts(layouts_of(found))


def test_the_manifest_digest_can_be_computed_by_anybody(model: Path) -> None:
    """BLAKE3 over the list of names and digests, the index among them."""
    found = read_model_directory(model)
    digests = {file.name: f"blake3:{blake3(file.read_bytes()).hexdigest()}" for file in model.iterdir()}
    text = json.dumps(sorted(map(list, digests.items())), separators=(",", ":")).encode()
    assert found.manifest_digest(digests) == f"blake3:{blake3(text).hexdigest()}"
    changed = {**digests, SECOND: digests[FIRST]}
    assert found.manifest_digest(changed) != found.manifest_digest(digests)


def test_a_directory_with_a_single_file_needs_no_index(tmp_path: Path) -> None:
    """As published for small models, among files of other kinds."""
    write_file(tmp_path / "model.safetensors", "a")
    (tmp_path / "config.json").write_text("{}", "utf-8")
    found = read_model_directory(tmp_path)
    assert [(file.name, file.index, file.total) for file in found.files] == [("model.safetensors", 0, 1)]
    found.require_layouts({})
    text = b'[["model.safetensors","blake3:00"]]'
    assert found.manifest_digest({"model.safetensors": "blake3:00"}) == f"blake3:{blake3(text).hexdigest()}"


def test_several_files_without_an_index_are_no_model(tmp_path: Path) -> None:
    """Nothing says which belong together; and an empty directory holds none."""
    with pytest.raises(
        InvalidInputError, match=r"holds no model.safetensors.index.json and no \*.safetensors"
    ):
        read_model_directory(tmp_path)
    write_file(tmp_path / "x.safetensors", "a")
    write_file(tmp_path / "y.safetensors", "b")
    with pytest.raises(InvalidInputError, match=r"holds 2 \*.safetensors files") as caught:
        read_model_directory(tmp_path)
    assert caught.value.hint == "Name one of the files, or add the index."


@pytest.mark.parametrize(("kind", "reason"), [("absent", "does not exist"), ("file", "Not a directory")])
def test_what_is_no_directory_is_refused(tmp_path: Path, kind: str, reason: str) -> None:
    """With the system's reason."""
    (tmp_path / "file").write_text("x", "utf-8")
    with pytest.raises(InvalidInputError, match=reason):
        read_model_directory(tmp_path / kind)


@pytest.mark.parametrize(
    ("index", "rule"),
    [
        ("", "the index ends where the '{' of the index should stand"),
        ("[]", "expected the '{' of the index, found a list"),
        ("{}", "the index names no tensor"),
        ({"weight_map": {}}, "the index names no tensor"),
        ({"weight_map": {"a": 1}}, "expected a string, the name of a file, found '1'"),
        ({"weight_map": {"a": FIRST}, "more": 1}, "unknown key 'more' in the index"),
        (
            {"weight_map": {"a": FIRST}, "metadata": [[[[[[[[[[[[[[[[[1]]]]]]]]]]]]]]]]]},
            "nested deeper than 16",
        ),
        (json.dumps({"weight_map": {"a": FIRST}}) + "x", "text follows the index"),
        ('{"weight_map":{"a":"FIRST","a":"SECOND"}}', "duplicate key 'a' in weight_map"),
        ('{"weight_map":{"a":"FIRST"},"weight_map":{}}', "duplicate key 'weight_map' in the index"),
        ('{"metadata":{"a":1,"a":2},"weight_map":{"a":"FIRST"}}', "duplicate key 'a' in metadata"),
        ('{"metadata":{"a":01},"weight_map":{"a":"FIRST"}}', "expected metadata, found '0'"),
        ('{"metadata":[1,],"weight_map":{"a":"FIRST"}}', r"expected metadata, found '\]'"),
        (
            '{"metadata":[1 2],"weight_map":{"a":"FIRST"}}',
            r"expected ',' or '\]' in metadata, found '2'",
        ),
    ],
)
def test_an_index_that_breaks_a_rule_is_refused(model: Path, index: object, rule: str) -> None:
    """The path of the index is named."""
    write_index(model, index)
    with pytest.raises(MalformedModelError, match=rule) as caught:
        read_model_directory(model)
    assert caught.value.path == str(model / INDEX_NAME)


def test_metadata_may_hold_any_json(model: Path) -> None:
    """Nothing in it counts."""
    metadata = {
        "total_size": 1.5e9,
        "x": [None, True, False, -1, "y", {}, [], {"z": [{}]}],
        "deep": [[[[[[[[]]]]]]]],
    }
    write_index(model, {"metadata": metadata, "weight_map": {"a": FIRST, "b": FIRST, "c": SECOND}})
    assert len(read_model_directory(model).files) == 2
    write_index(model, '{"weight_map":{"a":"FIRST"},"metadata":null}\n\t ')
    assert len(read_model_directory(model).files) == 1


@pytest.mark.parametrize(
    "name",
    [
        "../out.safetensors",
        "/etc/passwd",
        "sub/x.safetensors",
        "..",
        ".",
        "",
        "a\\b.safetensors",
        "a\0.safetensors",
    ],
)
def test_an_index_names_only_plain_files(model: Path, name: str) -> None:
    """No traversal, wherever it would lead."""
    write_file(model.parent / "out.safetensors", "a")
    write_index(model, {"weight_map": {"a": name}})
    with pytest.raises(MalformedModelError, match=r"is no plain name of a \*.safetensors file") as caught:
        read_model_directory(model)
    assert caught.value.offset == 20


def test_an_index_names_only_files_that_are_there(model: Path) -> None:
    """A missing one, a directory, and a pipe, which is not opened."""
    (model / "d.safetensors").mkdir()
    os.mkfifo(model / "p.safetensors")
    for name, rule in {
        "absent": "is not in the directory",
        "d": "is no regular file",
        "p": "is no regular file",
    }.items():
        write_index(model, {"weight_map": {"a": f"{name}.safetensors"}})
        with pytest.raises(MalformedModelError, match=rule):
            read_model_directory(model)


def test_links_out_of_the_directory_are_followed_only_on_request(model: Path) -> None:
    """Caches of model hubs are made of such links; a link inside is harmless."""
    outside = model / FIRST
    outside.rename(model.parent / "blob")
    outside.symlink_to(model.parent / "blob")
    with pytest.raises(MalformedModelError, match="is a link to a file outside of the directory"):
        read_model_directory(model)
    assert len(read_model_directory(model, follow_links=True).files) == 2
    (model / INDEX_NAME).rename(model.parent / "index")
    (model / INDEX_NAME).symlink_to(model.parent / "index")
    with pytest.raises(InvalidInputError, match="is a link to a file outside of the directory"):
        read_model_directory(model)
    assert len(read_model_directory(model, follow_links=True).files) == 2
    (model / INDEX_NAME).unlink()
    (model.parent / "index").rename(model / INDEX_NAME)
    outside.unlink()
    outside.symlink_to(SECOND)
    assert len(read_model_directory(model).files) == 2


def test_a_single_file_that_is_a_link_out_of_the_directory_is_refused(tmp_path: Path) -> None:
    """The rule is the same without an index."""
    blob = write_file(tmp_path / "blob", "a")
    (tmp_path / "d").mkdir()
    (tmp_path / "d" / "model.safetensors").symlink_to(blob)
    with pytest.raises(InvalidInputError, match="is a link to a file outside of the directory"):
        read_model_directory(tmp_path / "d")
    assert len(read_model_directory(tmp_path / "d", follow_links=True).files) == 1


@pytest.mark.parametrize(
    ("weight_map", "path", "rule"),
    [
        (
            {"a": FIRST, "b": FIRST, "c": SECOND, "d": SECOND},
            INDEX_NAME,
            "tensor 'd' is not in 'model-00002-of",
        ),
        ({"a": FIRST, "b": SECOND, "c": SECOND}, INDEX_NAME, "tensor 'b' is not in 'model-00002-of-00002"),
        ({"a": FIRST, "c": SECOND}, FIRST, "tensor 'b' is not in the index as one of this file"),
    ],
)
def test_the_index_and_the_files_must_agree(
    model: Path, weight_map: dict[str, str], path: str, rule: str
) -> None:
    """No tensor too many, too few, or elsewhere."""
    write_index(model, {"weight_map": weight_map})
    found = read_model_directory(model)
    with pytest.raises(MalformedModelError, match=rule) as caught:
        found.require_layouts(layouts_of(found))
    assert caught.value.path == str(model / path)


def test_a_tensor_in_two_files_is_refused(model: Path) -> None:
    """The index can name only one of them."""
    write_file(model / SECOND, "c", "a")
    found = read_model_directory(model)
    with pytest.raises(MalformedModelError, match="tensor 'a' is not in the index as one of this file"):
        found.require_layouts(layouts_of(found))


@pytest.mark.parametrize(
    ("limits", "rule"),
    [
        (Limits(names_bytes=10), "the index is longer than 20 bytes"),
        (Limits(metadata_pairs=1), "more than 1 values in metadata"),
        (Limits(tensors=2), "more than 2 tensors"),
    ],
)
def test_limits_hold_for_the_index_as_well(model: Path, limits: Limits, rule: str) -> None:
    """It is as hostile as a header."""
    with pytest.raises(MalformedModelError, match=rule):
        read_model_directory(model, limits=limits)


def test_long_names_are_refused_before_they_fill_the_memory(model: Path) -> None:
    """All names of tensors together have a bound of their own."""
    write_index(model, {"weight_map": {"y" * 101: FIRST}})
    with pytest.raises(MalformedModelError, match="names longer than 100 bytes together"):
        read_model_directory(model, limits=Limits(names_bytes=100))
