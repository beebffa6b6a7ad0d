"""Read-only views of a sealed shard's tensors, valid inside one block of ``execution()``."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, Protocol

from vram_residency.core.errors import ConfigurationError, InvalidInputError
from vram_residency.device import dlpack
from vram_residency.formats.layout import Layout, TensorSpec
from vram_residency.residency.buffer import BufferBase

if TYPE_CHECKING:
    import numpy as np

_NUMPY_DTYPES = {
    "BOOL": "?", "U8": "u1", "I8": "i1", "U16": "<u2", "I16": "<i2", "U32": "<u4", "I32": "<i4",
    "U64": "<u8", "I64": "<i8", "F16": "<f2", "F32": "<f4", "F64": "<f8", "C64": "<c8",
}  # fmt: skip
_TORCH_DTYPES = {
    "BOOL": "bool", "U8": "uint8", "I8": "int8", "U16": "uint16", "I16": "int16", "U32": "uint32",
    "I32": "int32", "U64": "uint64", "I64": "int64", "F16": "float16", "BF16": "bfloat16", "F32": "float32",
    "F64": "float64", "C64": "complex64", "F8_E4M3": "float8_e4m3fn", "F8_E5M2": "float8_e5m2",
    "F8_E8M0": "float8_e8m0fnu", "F8_E4M3FNUZ": "float8_e4m3fnuz", "F8_E5M2FNUZ": "float8_e5m2fnuz",
}  # fmt: skip


class TensorView(BufferBase):  # type: ignore[misc] # a class made by the interpreter's own C API on 3.11
    """One tensor's bytes in place. ``memoryview(view)``, ``numpy()``, ``torch()``, ``__dlpack__``: no copy.

    name, dtype (the format's own word), shape (slowest dimension first), nbytes.
    After its block every access raises InvalidInputError; arrays made inside it must not leave it.
    """

    def __init__(self, spec: TensorSpec, read: Callable[[], memoryview]) -> None:
        self.name = spec.name
        self.dtype = spec.dtype
        self.shape = spec.shape
        self.nbytes = spec.end - spec.start
        self._read = read

    def __buffer__(self, _flags: int) -> memoryview:
        return self._read()

    def numpy(self) -> np.ndarray[Any, Any]:
        """A read-only NumPy array. Raises ConfigurationError for a dtype that NumPy lacks."""
        import numpy as np

        dtype = np.dtype(self._name_in("numpy", _NUMPY_DTYPES))
        return np.frombuffer(self._read(), dtype=dtype).reshape(self.shape)

    def torch(self) -> Any:
        """A PyTorch tensor over the same bytes.

        PyTorch ignores that they are read-only: an in-place write faults and ends the process.
        Raises ConfigurationError for a dtype that PyTorch lacks.
        """
        import warnings

        import torch

        dtype = getattr(torch, self._name_in("torch", _TORCH_DTYPES), None)
        if dtype is None:
            raise self._lacking("this version of torch")
        if self.nbytes == 0:
            return torch.empty(self.shape, dtype=dtype)
        with warnings.catch_warnings():
            # That the buffer is not writable is the point, and is said above.
            warnings.filterwarnings("ignore", message="The given buffer is not writable")
            return torch.frombuffer(self._read(), dtype=dtype).reshape(self.shape)

    def cupy(self) -> Any:
        """Refused on the host device: CuPy arrays live on a GPU."""
        raise ConfigurationError(
            "cupy", "the host device has no GPU memory", hint="Use .numpy() or .torch()."
        )

    def __dlpack__(
        self,
        *,
        stream: object = None,
        max_version: tuple[int, int] | None = None,
        dl_device: tuple[int, int] | None = None,
        copy: bool | None = None,
    ) -> Any:
        """A versioned DLPack capsule flagged read-only; the shard counts as in use while its taker lives.

        PyTorch ignores the flag: see ``torch()``. Raises BufferError for a consumer from before DLPack 1.0,
        which could not be told that the bytes are read-only, for a copy, another device or a type that
        DLPack lacks.
        """
        if max_version is None or max_version[0] < 1:
            raise BufferError("read-only tensors need a consumer of DLPack 1.0 or later")
        if copy or stream is not None or dl_device not in {None, (dlpack.CPU, 0)}:
            raise BufferError("a view is handed out where it lies: no copy, no stream, no other device")
        if not dlpack.knows(self.dtype):
            raise BufferError(f"DLPack has no type for {self.dtype} (tensor '{self.name}')")
        return dlpack.hand_out(self._read(), dtype=self.dtype, shape=self.shape)

    def __dlpack_device__(self) -> tuple[int, int]:
        return (dlpack.CPU, 0)

    def __len__(self) -> int:
        return self.shape[0] if self.shape else 0

    def __repr__(self) -> str:
        return f"TensorView(name={self.name!r}, dtype={self.dtype!r}, shape={self.shape})"

    def _name_in(self, consumer: str, table: dict[str, str]) -> str:
        name = table.get(self.dtype)
        if name is None or math.prod(self.shape) == 0 < self.nbytes:
            raise self._lacking(consumer)
        return name

    def _lacking(self, consumer: str) -> ConfigurationError:
        return ConfigurationError(
            "dtype",
            f"{consumer} has no type for {self.dtype} (tensor '{self.name}')",
            hint="Take the bytes with memoryview(view).",
        )


class Viewable(Protocol):
    """What views look at."""

    size_bytes: int

    def view_of(self, spec: TensorSpec) -> memoryview:
        """Read-only bytes of one tensor."""

    def tensor_of(self, spec: TensorSpec, require_open: Callable[[], None]) -> TensorView:
        """One tensor, looked at only after ``require_open`` has raised nothing."""


class Views(Mapping[str, TensorView]):
    """A shard's tensors by name. ``whole`` and ``raw`` are all of its bytes, where they lie in one piece."""

    def __init__(self, layout: Layout, content: Viewable) -> None:
        self._specs = {spec.name: spec for spec in layout.tensors}
        self._content = content
        self._is_open = True

    def __getitem__(self, name: str) -> TensorView:
        spec = self._specs.get(name)
        if spec is None:
            raise KeyError(f"no tensor {name!r} among these {len(self._specs)}: list() of them has the names")
        return self._content.tensor_of(spec, self._require_open)

    def __iter__(self) -> Iterator[str]:
        return iter(self._specs)

    def __len__(self) -> int:
        return len(self._specs)

    def __repr__(self) -> str:
        return f"Views(tensors={len(self._specs)}, nbytes={self._content.size_bytes})"

    @property
    def whole(self) -> memoryview:
        """All bytes of an owned shard, read-only. Raises ConfigurationError on cuda: take ``raw`` there."""
        self._require_open()
        return self._content.view_of(self._all())

    @property
    def raw(self) -> TensorView:
        """All bytes of an owned shard as one U8 tensor: what raw models are used through on any device."""
        return self._content.tensor_of(self._all(), self._require_open)

    def close(self) -> None:
        """End the block: from now on every access is refused."""
        self._is_open = False

    def _all(self) -> TensorSpec:
        size_bytes = self._content.size_bytes
        return TensorSpec("", "U8", (size_bytes,), 0, size_bytes)

    def _require_open(self) -> None:
        if not self._is_open:
            raise InvalidInputError(
                "view",
                "used after its execution() block ended",
                hint="Do the work inside `with manager.execution(…)`.",
            )
