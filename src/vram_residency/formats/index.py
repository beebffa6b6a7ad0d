"""A directory that holds one model in several safetensors files (residency.md section 2).

``model.safetensors.index.json`` says which file holds which tensor; one file becomes one shard.
"""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from vram_residency.core.canonical import canonical_json
from vram_residency.core.errors import InvalidInputError, MalformedModelError
from vram_residency.core.regular_file import printable_path, unreadable
from vram_residency.formats.cursor import shown
from vram_residency.formats.json_cursor import BLANKS, JsonCursor
from vram_residency.formats.limits import DEFAULT_LIMITS
from vram_residency.formats.source import FileSource

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from vram_residency.formats.layout import Layout
    from vram_residency.formats.limits import Limits

INDEX_NAME = "model.safetensors.index.json"
_ENDING = ".safetensors"
_HASH_STEP_BYTES = 2**20


class ModelFile(msgspec.Struct, frozen=True):
    """One file of a model: shard ``index`` (from 0, by sorted name) of ``total``."""

    path: str
    name: str
    index: int
    total: int


class Placement(msgspec.Struct, frozen=True, gc=False):
    """One line of the index: the file that holds a tensor, and where in the index that stands."""

    file: str
    offset: int


class ModelDirectory(msgspec.Struct, frozen=True):
    """What a directory declares. Without an index ``index_path`` and ``index_digest`` are None."""

    path: str
    files: tuple[ModelFile, ...]
    index_path: str | None = None
    index_digest: str | None = None
    placements: dict[str, Placement] = {}

    def require_layouts(self, layouts: Mapping[str, Layout]) -> None:
        """Compare the index with what the files hold; ``layouts`` maps file names to parsed layouts.

        Every tensor must be in the very file that the index names, and every tensor of a file must be in the
        index. Raises MalformedModelError.
        """
        if self.index_path is None:
            return
        held = {file.name: {tensor.name for tensor in layouts[file.name].tensors} for file in self.files}
        for name, placement in self.placements.items():
            if name not in held[placement.file]:
                rule = f"tensor {shown(name)} is not in {shown(placement.file)}, which the index names for it"
                raise MalformedModelError(self.index_path, placement.offset, rule)
        placed_in = {name: placement.file for name, placement in self.placements.items()}
        for file in self.files:
            for tensor in layouts[file.name].tensors:
                if file.name != placed_in.get(tensor.name):
                    rule = f"tensor {shown(tensor.name)} is not in the index as one of this file"
                    raise MalformedModelError(file.path, tensor.start, rule)

    def manifest_digest(self, digests: Mapping[str, str]) -> str:
        """One digest for the whole model; ``digests`` maps file names to the digests of their bytes.

        BLAKE3 over the canonical JSON of ``[[name, digest], …]``, sorted by name, of every file and of the
        index where there is one.
        """
        from blake3 import blake3

        entries = [[file.name, digests[file.name]] for file in self.files]
        if self.index_digest is not None:
            entries.append([INDEX_NAME, self.index_digest])
        return f"blake3:{blake3(canonical_json(sorted(entries))).hexdigest()}"


def read_model_directory(
    path: str | os.PathLike[str], *, follow_links: bool = False, limits: Limits = DEFAULT_LIMITS
) -> ModelDirectory:
    """Find the files of the model in a directory; nothing of them is read yet but the index.

    Accepted: a directory with ``model.safetensors.index.json``, or with exactly one ``*.safetensors`` file.
    Files that lie elsewhere, by a link, are refused unless ``follow_links``.
    Raises InvalidInputError (field "path") or MalformedModelError (the index is at fault).
    """
    names = _names_in(path)
    directory = Path(path)
    models = [name for name in names if name.lower().endswith(_ENDING)]
    has_index = INDEX_NAME in names
    if not has_index and len(models) != 1:
        raise _no_model(printable_path(path), len(models))
    first = INDEX_NAME if has_index else models[0]
    fault = _fault_of(directory, first, follow_links=follow_links)
    if fault is not None:
        raise InvalidInputError("path", f"{printable_path(directory / first)} {fault}")
    if has_index:
        return _indexed(directory, follow_links=follow_links, limits=limits)
    return ModelDirectory(printable_path(path), _numbered(directory, models))


def _no_model(text: str, count: int) -> InvalidInputError:
    if count == 0:
        return InvalidInputError(
            "path",
            f"{text} holds no {INDEX_NAME} and no *{_ENDING} file",
            hint="Name the directory that holds the model's files, or one file.",
        )
    return InvalidInputError(
        "path",
        f"{text} holds {count} *{_ENDING} files, and no {INDEX_NAME} says which belong together",
        hint="Name one of the files, or add the index.",
    )


def _names_in(path: str | os.PathLike[str]) -> list[str]:
    endings = (_ENDING, f"{_ENDING}.index.json")
    try:
        with os.scandir(path) as entries:
            return [entry.name for entry in entries if entry.name.lower().endswith(endings)]
    except (OSError, ValueError) as error:
        raise unreadable(printable_path(path), error) from error


def _numbered(directory: Path, names: Iterable[str]) -> tuple[ModelFile, ...]:
    ordered = sorted(names)
    return tuple(
        ModelFile(str(directory / name), printable_path(name), place, len(ordered))
        for place, name in enumerate(ordered)
    )


def _indexed(directory: Path, *, follow_links: bool, limits: Limits) -> ModelDirectory:
    with FileSource(directory / INDEX_NAME) as source:
        index = _Index(source, directory, follow_links=follow_links, limits=limits)
        index.read()
        digest = _digest_of(source)
        source.require_unchanged()
    files = _numbered(directory, index.files)
    return ModelDirectory(printable_path(directory), files, source.path, digest, index.placements)


def _digest_of(source: FileSource) -> str:
    from blake3 import blake3

    hasher = blake3()
    for start in range(0, source.size_bytes, _HASH_STEP_BYTES):
        hasher.update(source.read(start, min(_HASH_STEP_BYTES, source.size_bytes - start)))
    return f"blake3:{hasher.hexdigest()}"


class _Index:
    """Reads an index: ``{"metadata": {anything}, "weight_map": {tensor: file}}``."""

    def __init__(self, source: FileSource, directory: Path, *, follow_links: bool, limits: Limits) -> None:
        # Names of tensors, and as much again for the names of files and the rest.
        longest = 2 * limits.names_bytes
        if source.size_bytes > longest:
            raise MalformedModelError(source.path, longest, f"the index is longer than {longest} bytes")
        self.files: dict[str, str] = {}
        self.placements: dict[str, Placement] = {}
        self._directory = directory
        self._follow_links = follow_links
        self._limits = limits
        self._names_left = limits.names_bytes
        self._cursor = JsonCursor(
            source, name=source.path, start=0, end=source.size_bytes, border="the index ends", limits=limits
        )

    def read(self) -> None:
        cursor = self._cursor
        for key in cursor.members("the index"):
            if key == "weight_map":
                self._read_weight_map()
            elif key == "metadata":
                cursor.skip_value("metadata")
            else:
                raise cursor.refuse(f"unknown key {shown(key)} in the index")
        while cursor.match(BLANKS) and cursor.remaining:
            window, at = cursor.look()
            if window[at] not in b" \t\r\n":
                raise cursor.refuse("text follows the index")
        if not self.placements:
            raise cursor.refuse("the index names no tensor")

    def _read_weight_map(self) -> None:
        cursor = self._cursor
        for name in cursor.members("weight_map"):
            if len(self.placements) == self._limits.tensors:
                raise cursor.refuse(f"more than {self._limits.tensors} tensors")
            self._names_left -= len(name.encode())
            if self._names_left < 0:
                raise cursor.refuse(f"names longer than {self._limits.names_bytes} bytes together")
            at = cursor.offset
            file = cursor.text("a string, the name of a file")
            if file not in self.files:
                self._require_file(file, at)
            # One string object per file, not one per tensor.
            self.placements[name] = Placement(self.files.setdefault(file, file), at)

    def _require_file(self, file: str, at: int) -> None:
        if "/" in file or "\\" in file or "\0" in file or not file.lower().endswith(_ENDING):
            raise self._cursor.refuse(f"{shown(file)} is no plain name of a *{_ENDING} file", at=at)
        fault = _fault_of(self._directory, file, follow_links=self._follow_links)
        if fault is not None:
            raise self._cursor.refuse(f"{shown(file)} {fault}", at=at)


def _fault_of(directory: Path, name: str, *, follow_links: bool) -> str | None:
    """Say what is wrong with a file of the model, None if nothing is."""
    path = directory / name
    try:
        mode = path.stat().st_mode
        is_inside = path.resolve().parent == directory.resolve()
    except (OSError, ValueError):
        return "is not in the directory, or cannot be reached"
    if not stat.S_ISREG(mode):
        return "is no regular file"
    if not (is_inside or follow_links):
        return "is a link to a file outside of the directory"
    return None
