"""A path from outside opens something under a model root or nothing at all."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from vram_residency import ConfigurationError, InvalidInputError
from vram_residency.worker.roots import ModelRoots, PathEscapeError

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="openat2 is Linux's")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """models/{a.bin, inner/b.bin, inward -> inner, outward -> .., secret -> ../secret}, secret outside."""
    models = tmp_path / "models"
    (models / "inner").mkdir(parents=True)
    (models / "a.bin").write_bytes(b"a")
    (models / "inner" / "b.bin").write_bytes(b"b")
    (tmp_path / "secret").write_bytes(b"secret")
    (tmp_path / "models-evil").mkdir()
    (tmp_path / "models-evil" / "x").write_bytes(b"x")
    (models / "inward").symlink_to("inner")
    (models / "outward").symlink_to("..")
    (models / "secret").symlink_to("../secret")
    (models / "absolute").symlink_to(tmp_path / "secret")
    (models / "magic").symlink_to("/proc/self/root")
    os.mkfifo(models / "pipe")
    return models


@pytest.fixture
def roots(root: Path) -> Iterator[ModelRoots]:
    made = ModelRoots([root])
    yield made
    made.close()
    made.close()


@pytest.mark.parametrize(
    ("path", "content"), [("a.bin", b"a"), ("inner/b.bin", b"b"), ("inward/b.bin", b"b"), ("./a.bin", b"a")]
)
def test_what_lies_under_a_root_is_opened(path: str, content: bytes, roots: ModelRoots, root: Path):
    for spelling in (path, f"{root}/{path}"):
        with roots.open(spelling) as (opened, is_directory):
            assert (Path(opened).read_bytes(), is_directory) == (content, False)


def test_a_directory_is_told_as_one(roots: ModelRoots, root: Path):
    for spelling in ("inner", f"{root}/inner", str(root)):
        with roots.open(spelling) as (opened, is_directory):
            assert is_directory
            assert Path(opened).is_dir()


@pytest.mark.parametrize(
    "path",
    [
        "../secret",
        "inner/../../secret",
        "outward/secret",
        "secret",
        "absolute",
        "magic/etc/passwd",
        "/etc/passwd",
        "{root}/../secret",
        "{root}-evil/x",
        "/proc/self/root/etc/passwd",
        "..",
    ],
)
def test_what_leads_out_is_refused_as_an_escape(path: str, roots: ModelRoots, root: Path):
    with pytest.raises(PathEscapeError, match="model root"), roots.open(path.format(root=root)):
        pytest.fail("opened")


@pytest.mark.parametrize(
    ("path", "words"),
    [
        ("missing", "does not exist"),
        ("a.bin/x", "cannot be read"),
        ("pipe", "no regular file"),
        ("", "without a zero"),
        ("a\0b", "without a zero"),
        ("a" * 300, "cannot be read"),
    ],
)
def test_what_cannot_be_opened_is_refused_in_words(path: str, words: str, roots: ModelRoots):
    with pytest.raises(InvalidInputError, match=words) as refused, roots.open(path):
        pytest.fail("opened")
    assert not isinstance(refused.value, PathEscapeError)


def test_without_a_root_no_path_is_taken():
    with pytest.raises(InvalidInputError, match="no model root is configured"), ModelRoots([]).open("a"):
        pytest.fail("opened")


def test_a_root_that_is_none_is_refused_at_once(tmp_path: Path):
    with pytest.raises(ConfigurationError, match="model_roots"):
        ModelRoots([tmp_path, tmp_path / "missing"])


def test_the_second_root_is_asked_where_the_first_has_no_such_file(root: Path, tmp_path: Path):
    other = tmp_path / "other"
    other.mkdir()
    (other / "c.bin").write_bytes(b"c")
    roots = ModelRoots([root, other])
    with roots.open("c.bin") as (opened, _):
        assert Path(opened).read_bytes() == b"c"
    roots.close()


def test_nothing_stays_open(root: Path, roots: ModelRoots):
    before = set(Path("/proc/self/fd").iterdir())
    with roots.open("a.bin"):
        pass
    with pytest.raises(InvalidInputError, match="out of"), roots.open("../secret"):
        pytest.fail("opened")
    assert set(Path("/proc/self/fd").iterdir()) == before
    assert root.is_dir()
