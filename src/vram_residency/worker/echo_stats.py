"""The engine without a model: statistics of every tensor, computed straight from sealed memory."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from vram_residency.core.errors import ConfigurationError
from vram_residency.residency import TensorView, Views


class EchoStats:
    """Echoes the input, then gives one object a tensor. What cannot be computed with is counted in bytes."""

    def __init__(self) -> None:
        self._tensors: dict[str, Any] = {}

    def load(self, views: Views, metadata: Mapping[str, Any]) -> None:
        """Take arrays over the views; nothing is copied."""
        self._metadata = {name: value for name, value in metadata.items() if name != "directory"}
        self._tensors = {name: _array_of(views[name]) for name in views}
        if not self._tensors:
            self._tensors = {"": views.whole}

    def execute(self, request: Mapping[str, Any]) -> Iterator[Any]:
        """The input, then {tensor, count, min, max, mean} for each; ``params.tensors`` names some only."""
        yield {"echo": request.get("input"), **self._metadata}
        wanted = request.get("params", {}).get("tensors")
        for name, array in self._tensors.items():
            if wanted is None or name in wanted:
                yield {"tensor": name, **_statistics(array)}

    def close(self) -> None:
        """Let go of the arrays."""
        self._tensors = {}


def _array_of(view: TensorView) -> Any:
    try:
        return view.numpy()
    except (ConfigurationError, ImportError):
        return memoryview(view)  # a type that NumPy lacks, or no NumPy at all


def _statistics(array: Any) -> dict[str, Any]:
    if isinstance(array, memoryview):
        return {"bytes": array.nbytes}
    if array.size == 0:
        return {"count": 0}
    wide = array.astype("f8") if array.dtype.kind != "c" else abs(array).astype("f8")
    return {
        "count": int(array.size),
        "min": float(wide.min()),
        "max": float(wide.max()),
        "mean": float(wide.mean()),
    }
