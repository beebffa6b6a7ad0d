"""A tensor on a card as its consumers on that card take it: in place, read-only, never by a host pointer."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, NoReturn

from vram_residency.core.errors import ConfigurationError
from vram_residency.device import dlpack
from vram_residency.device.cuda.memory import DeviceBytes
from vram_residency.formats.layout import TensorSpec
from vram_residency.residency.views import TensorView

#: Words of the array interface, which is NumPy's, for those types that NumPy has.
_TYPES = {
    "BOOL": "|b1", "U8": "|u1", "I8": "|i1", "U16": "<u2", "I16": "<i2", "U32": "<u4", "I32": "<i4",
    "U64": "<u8", "I64": "<i8", "F16": "<f2", "F32": "<f4", "F64": "<f8", "C64": "<c8",
}  # fmt: skip


class DeviceTensorView(TensorView):
    """One tensor's bytes on the GPU: ``torch()``, ``cupy()``, ``__dlpack__``, ``__cuda_array_interface__``.

    ``numpy()`` and ``memoryview(view)`` are refused: the machine cannot read there. PyTorch and CuPy ignore
    that the bytes are read-only: an in-place write faults on the card and ends the process.
    """

    def __init__(self, spec: TensorSpec, open_bytes: Callable[[], DeviceBytes]) -> None:
        # No method of its own: a cycle would keep the shard in use until a garbage collection.
        super().__init__(spec, partial(_refuse, spec.name))
        self._open_bytes = open_bytes
        self._held: DeviceBytes | None = None

    def torch(self) -> Any:
        """A PyTorch tensor over the same bytes, on the same device.

        PyTorch ignores that they are read-only: an in-place write faults and ends the process.
        """
        import torch

        return torch.from_dlpack(self)

    def cupy(self) -> Any:
        """A CuPy array over the same bytes. Raises ConfigurationError for a dtype that CuPy lacks."""
        import cupy

        if self.dtype not in _TYPES:
            raise self._lacking("cupy")
        return cupy.asarray(self)

    @property
    def __cuda_array_interface__(self) -> dict[str, Any]:
        """Version 3, flagged read-only. The shard is in use from here on, for as long as this view lives.

        There is none (AttributeError) for types that NumPy lacks: take those through DLPack.
        """
        if self.dtype not in _TYPES:
            raise AttributeError(f"the array interface has no type for {self.dtype}")
        self._held = self._open_bytes()
        return {
            "version": 3,
            "typestr": _TYPES[self.dtype],
            "shape": self.shape,
            "strides": None,
            "data": (self._held.address if self.nbytes else 0, True),
            # Nothing writes there: whatever the consumer's stream, there is nothing to wait for.
            "stream": None,
        }

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
        held = self._open_bytes()
        place = (dlpack.CUDA, held.ordinal)
        if copy or dl_device not in {None, place}:
            raise BufferError("a view is handed out where it lies: no copy, no other device")
        if not dlpack.knows(self.dtype):
            raise BufferError(f"DLPack has no type for {self.dtype} (tensor '{self.name}')")
        address = held.address if self.nbytes else 0
        return dlpack.hand_out_at(address, place, owner=held, dtype=self.dtype, shape=self.shape)

    def __dlpack_device__(self) -> tuple[int, int]:
        return (dlpack.CUDA, self._open_bytes().ordinal)


def _refuse(name: str) -> NoReturn:
    raise ConfigurationError(
        "view",
        f"the bytes of {name!r} lie on the GPU, where the machine cannot read them",
        hint="Take .torch(), .cupy() or __dlpack__; .torch().cpu() copies them to the machine.",
    )
