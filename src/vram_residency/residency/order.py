"""What a caller asks of one seal."""

from __future__ import annotations

from typing import TypedDict, get_args

from msgspec import Struct

from vram_residency.core.errors import InvalidInputError
from vram_residency.core.identifiers import is_count, is_unicode
from vram_residency.device.base import Progress
from vram_residency.digest.value import Algorithm, Digest
from vram_residency.formats import Format


class SealChoices(TypedDict, total=False):
    """The keyword arguments of ``seal_file`` and ``seal_model``.

    shard_id: None has one made. expect: ``blake3:…`` or ``sha256:…``, compared with the memory before
    anything is signed. algorithm: of the seal's digest. format: overrides what name and magic say.
    model_ref: what the model is called in records. shard_index, total_shards: its place in a larger model.
    on_progress: called with (bytes done, bytes in all); an exception that it raises cancels the load and
    leaves nothing behind.
    """

    shard_id: str | None
    expect: str | None
    algorithm: Algorithm
    format: Format | None
    model_ref: str | None
    shard_index: int | None
    total_shards: int | None
    on_progress: Progress | None


class Order(Struct, frozen=True, kw_only=True):
    """SealChoices with their defaults. ``name``: the file's name, or what stands for it in errors."""

    name: str
    shard_id: str | None = None
    expect: str | None = None
    algorithm: Algorithm = "blake3"
    format: Format | None = None
    model_ref: str | None = None
    shard_index: int | None = None
    total_shards: int | None = None
    on_progress: Progress | None = None

    @property
    def reference(self) -> str:
        """How records name the model."""
        return self.model_ref or self.name

    def approved(self) -> Digest | None:
        """The approved digest, once every choice is sound. Raises InvalidInputError."""
        if self.algorithm not in get_args(Algorithm):
            raise InvalidInputError("algorithm", f"must be blake3 or sha256, not {self.algorithm!r}")
        if self.model_ref is not None and not is_unicode(self.model_ref):
            raise InvalidInputError("model_ref", "must be valid Unicode text")
        self._require_place()
        return None if self.expect is None else Digest.parse(self.expect)

    def _require_place(self) -> None:
        index, total = self.shard_index, self.total_shards
        if total is not None and not is_count(total, at_least=1):
            raise InvalidInputError("total_shards", "must be at least 1")
        if index is None:
            return
        if not is_count(index) or (total is not None and index >= total):
            raise InvalidInputError("shard_index", "must be at least 0 and below total_shards")
