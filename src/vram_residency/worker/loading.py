"""Plan and commit: from what a request names to sealed shards, or to a refusal."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from vram_residency import formats
from vram_residency.core.errors import InvalidInputError
from vram_residency.device.base import Progress
from vram_residency.formats import ByteSource, FileSource
from vram_residency.residency import SealedShard, VramManager
from vram_residency.worker import wire
from vram_residency.worker.roots import ModelRoots


class Loading:
    """Reads under the model roots alone; what it seals belongs to the manager."""

    def __init__(self, manager: VramManager, roots: ModelRoots) -> None:
        self._manager = manager
        self._roots = roots
        #: Shard → the folder that its file came from, as the request named it.
        self._folders: dict[str, str] = {}

    def plan(self, request: wire.PlanRequest) -> wire.Plan:
        """Whether a model would fit; never reserves anything.

        A tensor-parallel layout is planned by even shares of the bytes: how an engine splits is its own.
        """
        sizes = self._sizes(request.path)
        if request.shard_layout == "tensor_parallel":
            sizes = _shares(sizes, request.tp_degree)
        required = sum(size for _, size in sizes)
        available = self._manager.available_vram()
        shards = [wire.PlannedShard(name, size) for name, size in sizes]
        return wire.Plan(required <= available, required, available, shards)

    def commit_path(
        self, request: wire.CommitRequest, on_progress: Progress | None = None
    ) -> list[SealedShard]:
        """Seal a file (one shard) or an indexed directory (one shard a file)."""
        with self._roots.open(request.path) as (path, is_directory):
            if is_directory:
                _require_no_place(request)
                model = self._manager.seal_directory(
                    path, expect=request.expected_digest, on_progress=on_progress
                )
                shards, folder = list(model.shards), request.path
            else:
                with FileSource(path, name=request.path) as source:
                    shards = [self._commit(source, request, name=request.path, on_progress=on_progress)]
                folder = str(Path(request.path).parent)
        self._folders.update(dict.fromkeys((shard.shard_id for shard in shards), folder))
        return shards

    @contextmanager
    def folder_of(self, shard_id: str) -> Iterator[str | None]:
        """The folder that a shard's file came from, open for as long as the block lasts; None for a body."""
        folder = self._folders.get(shard_id)
        if folder is None:
            yield None
            return
        with self._roots.open(folder) as (path, _):
            yield path

    def forget(self, shard_id: str) -> None:
        """A shard is gone."""
        self._folders.pop(shard_id, None)

    def commit_source(
        self, source: ByteSource, request: wire.CommitRequest, on_progress: Progress | None = None
    ) -> SealedShard:
        """Seal the bytes of a request's body; ``request.path`` is only its name."""
        return self._commit(source, request, name=request.path, on_progress=on_progress)

    def _commit(
        self, source: ByteSource, request: wire.CommitRequest, *, name: str, on_progress: Progress | None
    ) -> SealedShard:
        return self._manager.seal_source(
            source,
            name=name,
            shard_id=request.shard_id,
            expect=request.expected_digest,
            model_ref=request.model_ref or Path(name).name,
            shard_index=request.shard_index,
            total_shards=request.total_shards,
            on_progress=on_progress,
        )

    def _sizes(self, path: str) -> list[tuple[str, int]]:
        with self._roots.open(path) as (opened, is_directory):
            if not is_directory:
                with FileSource(opened, name=path) as source:
                    formats.parse(source, name=path)
                    return [(Path(path).name, source.size_bytes)]
            directory = formats.read_model_directory(opened)
            return [(file.name, Path(file.path).stat().st_size) for file in directory.files]


def _require_no_place(request: wire.CommitRequest) -> None:
    if request.shard_id or request.shard_index is not None or request.total_shards is not None:
        raise InvalidInputError("path", "is a directory: its files get shard ids and places of their own")


def _shares(sizes: list[tuple[str, int]], count: int) -> list[tuple[str, int]]:
    total = sum(size for _, size in sizes)
    ends = [total * rank // count for rank in range(count + 1)]
    return [(f"rank-{rank}", ends[rank + 1] - ends[rank]) for rank in range(count)]
