"""What lies where in a model file: the common result of all parsers."""

from __future__ import annotations

from bisect import bisect_right
from operator import attrgetter
from typing import Literal

import msgspec

from vram_residency.core.canonical import canonical_json

Format = Literal["safetensors", "gguf", "raw"]

_end_of = attrgetter("end")
_place_of = attrgetter("start", "end", "name")


class TensorSpec(msgspec.Struct, frozen=True, gc=False):
    """One tensor: the bytes ``start`` to ``end`` (exclusive) of the file, counted from its first byte.

    ``dtype`` is the format's own name for it; ``shape`` is in C order, the slowest dimension first (GGUF
    stores it the other way round).
    """

    name: str
    dtype: str
    shape: tuple[int, ...]
    start: int
    end: int


class Layout(msgspec.Struct, frozen=True):
    """The tensors of one file, in the order of their bytes. Spans never overlap. Raw bytes have none."""

    format: Format
    tensors: tuple[TensorSpec, ...] = ()

    def digest(self) -> str:
        """``blake3:<64 hex>`` over the canonical JSON of ``[[name, dtype, shape, [start, end]], …]``."""
        from blake3 import blake3

        hasher = blake3()
        separator = b"["
        for tensor in self.tensors:
            hasher.update(separator)
            hasher.update(
                canonical_json([tensor.name, tensor.dtype, tensor.shape, [tensor.start, tensor.end]])
            )
            separator = b","
        hasher.update(b"]" if self.tensors else b"[]")
        return f"blake3:{hasher.hexdigest()}"

    def names_in(self, start: int, end: int) -> tuple[str, ...]:
        """Names of the tensors that own a byte of ``start`` to ``end`` (exclusive), in file order."""
        names = []
        for index in range(bisect_right(self.tensors, start, key=_end_of), len(self.tensors)):
            tensor = self.tensors[index]
            if tensor.start >= end:
                break
            if tensor.start < tensor.end:
                names.append(tensor.name)
        return tuple(names)


def in_file_order(tensors: list[TensorSpec]) -> tuple[TensorSpec, ...]:
    """Sort by place, tensors without bytes before the one that starts at the same byte."""
    return tuple(sorted(tensors, key=_place_of))
