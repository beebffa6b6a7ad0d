"""Content that some engine put into host memory and that is verified where it lies (residency.md section 2).

Nothing is copied and nothing can be made read-only; addresses are resolved again at every look, kept private,
and compared with those at sealing, so that a swapped storage shows even where its bytes are the same.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping
from typing import Any, ClassVar

from vram_residency.core.errors import InvalidInputError
from vram_residency.device.base import Facts, OnFreed, Progress, ResidencyFault
from vram_residency.device.kernel import address_of
from vram_residency.digest import groups, host
from vram_residency.digest.value import Algorithm, Measurement
from vram_residency.formats.layout import Layout, TensorSpec
from vram_residency.residency.content import Content, Part
from vram_residency.seal.statement import Access

CONTIGUOUS_COPY_BYTES_MAX = 128 << 20
_NAMES_SHOWN_MAX = 8

# struct format characters of the buffer protocol -> names as safetensors spells them, by item size.
_DTYPES: dict[str, dict[int, str]] = {
    "?": {1: "BOOL"},
    "e": {2: "F16"},
    "f": {4: "F32"},
    "d": {8: "F64"},
    "Zf": {8: "C64"},
    **{code: {1: "I8", 2: "I16", 4: "I32", 8: "I64"} for code in "bhilq"},
    **{code: {1: "U8", 2: "U16", 4: "U32", 8: "U64"} for code in "BHILQ"},
}


class AdoptedContent(Content):
    """Buffers of the host by name. The objects are kept alive; their bytes stay their owner's."""

    access: ClassVar[Access] = "adopted"

    def __init__(self, tensors: Mapping[str, Any]) -> None:
        if not tensors:
            raise InvalidInputError("tensors", "must name at least one tensor")
        self._tensors = {name: tensors[name] for name in sorted(tensors, key=_name_bytes)}
        self.layout = Layout(format="raw", tensors=tuple(self._specs()))
        self.size_bytes = self.layout.tensors[-1].end
        self._places = self._resolve_places()

    def parts(self) -> Iterator[Part]:
        for spec, tensor in zip(self.layout.tensors, self._tensors.values(), strict=True):
            yield Part(spec.start, _bytes_of(spec.name, tensor))

    def digest(self, on_progress: Progress | None = None) -> str:
        """BLAKE3 over each tensor's frame and bytes, tensors sorted by name (residency.md section 2)."""
        return host.digest_parts(self._framed(on_progress))

    def measure(self, on_progress: Progress | None = None) -> Measurement:
        """Digest and group values, in two passes: the frames belong to the one and not to the other."""
        values = b"".join(groups.group_values(part.view) for part in self.parts())
        return Measurement(self.digest(on_progress), values)

    def digest_by(self, algorithm: Algorithm) -> str:
        raise InvalidInputError("expect", f"adopted tensors have no {algorithm} digest; give a blake3 one")

    def adopted_anew(self) -> AdoptedContent:
        """The same objects with their shapes and places as they are now."""
        return AdoptedContent(self._tensors)

    def tensor_digests(self) -> dict[str, str]:
        """Each tensor's own digest, by name."""
        return {
            spec.name: host.digest(part.view)
            for spec, part in zip(self.layout.tensors, self.parts(), strict=True)
        }

    def facts(self) -> Facts:
        return {"kind": "adopted_host", "tensors": len(self._tensors), "size_bytes": self.size_bytes}

    def fault(self) -> ResidencyFault | None:
        now = self._resolve_places()
        moved = [name for name, place in self._places.items() if now.get(name) != place]
        if not moved:
            return None
        names = ", ".join(moved[:_NAMES_SHOWN_MAX]) + (" …" if len(moved) > _NAMES_SHOWN_MAX else "")
        return ResidencyFault("not_resident", f"storage swapped or reshaped since sealing: {names}")

    def view_of(self, spec: TensorSpec) -> memoryview:
        if spec.name not in self._tensors:
            raise InvalidInputError("view", "adopted tensors do not lie in one piece: take them by name")
        return _bytes_of(spec.name, self._tensors[spec.name])

    def free(self) -> bool:
        self._tensors = {}
        return False

    def free_when_unused(self, on_freed: OnFreed) -> None:
        on_freed(self.free())

    def _specs(self) -> Iterator[TensorSpec]:
        position = 0
        for name, tensor in self._tensors.items():
            view = _view_of(name, tensor)
            dtype = _dtype_of(name, view)
            yield TensorSpec(name, dtype, tuple(view.shape or ()), position, position + view.nbytes)
            position += view.nbytes

    def _framed(self, on_progress: Progress | None) -> Iterator[bytes | memoryview]:
        for spec, part in zip(self.layout.tensors, self.parts(), strict=True):
            yield frame(spec)
            yield part.view
            if on_progress is not None:
                on_progress(spec.end, self.size_bytes)

    def _resolve_places(self) -> dict[str, object]:
        return {name: _place_of(name, tensor) for name, tensor in self._tensors.items()}


def frame(spec: TensorSpec) -> bytes:
    """What goes before a tensor's bytes in the digest of adopted tensors (residency.md section 2).

    u32 name length, name, u32 dtype length, dtype, u32 rank, u64 dims, u64 byte length; little-endian.
    """
    name, dtype = _name_bytes(spec.name), spec.dtype.encode()
    dims = struct.pack(f"<I{len(spec.shape)}Q", len(spec.shape), *spec.shape)
    sizes = struct.pack("<Q", spec.end - spec.start)
    return struct.pack("<I", len(name)) + name + struct.pack("<I", len(dtype)) + dtype + dims + sizes


def _name_bytes(name: str) -> bytes:
    try:
        return name.encode("utf-8")
    except (UnicodeEncodeError, AttributeError):
        raise InvalidInputError(
            "tensors", f"{name!r} is not a tensor name: names are valid Unicode text"
        ) from None


def _view_of(name: str, tensor: Any) -> memoryview:
    try:
        return memoryview(tensor).toreadonly()
    except (TypeError, ValueError, BufferError, SystemError) as error:
        raise InvalidInputError(
            "tensors", f"{name!r} is no host buffer that can be read in place: {error}"
        ) from None


def _dtype_of(name: str, view: memoryview) -> str:
    code = view.format.lstrip("@=<")
    dtype = _DTYPES.get(code, {}).get(view.itemsize)
    if dtype is None:
        raise InvalidInputError(
            "tensors", f"{name!r} has elements of format {view.format!r}, which is not sealed here"
        )
    return dtype


def _bytes_of(name: str, tensor: Any) -> memoryview:
    """The tensor's bytes in C order: in place where they lie so, else a bounded copy."""
    view = _view_of(name, tensor)
    if view.nbytes == 0:
        return memoryview(b"")
    if view.c_contiguous:
        return view.cast("B")
    if view.nbytes > CONTIGUOUS_COPY_BYTES_MAX:
        raise InvalidInputError("tensors", f"{name!r} is over 128 MiB and not contiguous in C order")
    return memoryview(view.tobytes("C"))


def _place_of(name: str, tensor: Any) -> object:
    """Where and how a tensor lies: compared, never shown."""
    view = _view_of(name, tensor)
    return (address_of(view) if view.nbytes else 0, view.nbytes, view.format, view.shape, view.strides)
