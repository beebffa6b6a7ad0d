"""Content that some engine put into host memory and that is verified where it lies (residency.md section 2).

Nothing is copied and nothing can be made read-only; addresses are resolved again at every look, kept private,
and compared with those at sealing, so that a swapped storage shows even where its bytes are the same.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator, Mapping
from typing import Any, ClassVar

from vram_residency.core.errors import InvalidInputError
from vram_residency.device.base import Facts, OnFreed, Progress, ResidencyFault
from vram_residency.device.host_array import HostArray, resolve
from vram_residency.digest import groups, host
from vram_residency.digest.value import Algorithm, Measurement
from vram_residency.formats.layout import Layout, TensorSpec
from vram_residency.residency.content import Content, Part
from vram_residency.seal.statement import Access

_NAMES_SHOWN_MAX = 8

#: Gives the tensors as they are named now: a module's may have been replaced, added or removed.
Tensors = Callable[[], Mapping[str, Any]]


class AdoptedContent(Content):
    """Arrays of the host by name. Their owner is kept alive; their bytes stay its own."""

    access: ClassVar[Access] = "adopted"

    def __init__(self, tensors: Tensors) -> None:
        self._tensors: Tensors = tensors
        arrays = self._resolve()
        if not arrays:
            raise InvalidInputError("tensors", "must name at least one tensor")
        self.layout = Layout(format="raw", tensors=tuple(_specs(arrays)))
        self.size_bytes = self.layout.tensors[-1].end
        self._places = {name: array.place for name, array in arrays.items()}

    def parts(self) -> Iterator[Part]:
        tensors = self._tensors()
        for spec in self.layout.tensors:
            yield Part(spec.start, resolve(spec.name, _named(tensors, spec.name)).data)

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
        """The same owner's tensors with their names, shapes and places as they are now."""
        return AdoptedContent(self._tensors)

    def tensor_digests(self) -> dict[str, str]:
        """Each tensor's own digest, by name."""
        return {
            spec.name: host.digest(part.view)
            for spec, part in zip(self.layout.tensors, self.parts(), strict=True)
        }

    def facts(self) -> Facts:
        return {"kind": "adopted_host", "tensors": len(self._places), "size_bytes": self.size_bytes}

    def misplaced(self) -> ResidencyFault | None:
        now = {name: array.place for name, array in self._resolve().items()}
        findings = {
            "storage swapped or reshaped": [
                n for n, place in self._places.items() if now.get(n, place) != place
            ],
            "tensors gone": [name for name in self._places if name not in now],
            "tensors added": [name for name in now if name not in self._places],
        }
        told = [f"{words}: {_listed(names)}" for words, names in findings.items() if names]
        if not told:
            return None
        names = tuple(name for found in findings.values() for name in found)
        return ResidencyFault("not_resident", f"since sealing, {'; '.join(told)}", names)

    def view_of(self, spec: TensorSpec) -> memoryview:
        if spec.name not in self._places:
            raise InvalidInputError("view", "adopted tensors do not lie in one piece: take them by name")
        return resolve(spec.name, _named(self._tensors(), spec.name)).data

    def free(self) -> bool:
        self._tensors = dict
        return False

    def free_when_unused(self, on_freed: OnFreed) -> None:
        on_freed(self.free())

    def _resolve(self) -> dict[str, HostArray]:
        """Every tensor as it is now, sorted by name."""
        tensors = self._tensors()
        return {name: resolve(name, tensors[name]) for name in sorted(tensors, key=_name_bytes)}

    def _framed(self, on_progress: Progress | None) -> Iterator[bytes | memoryview]:
        for spec, part in zip(self.layout.tensors, self.parts(), strict=True):
            yield frame(spec)
            yield part.view
            if on_progress is not None:
                on_progress(spec.end, self.size_bytes)


def _specs(arrays: Mapping[str, HostArray]) -> Iterator[TensorSpec]:
    position = 0
    for name, array in arrays.items():
        yield TensorSpec(name, array.dtype, array.shape, position, position + array.nbytes)
        position += array.nbytes


def _named(tensors: Mapping[str, Any], name: str) -> Any:
    if name not in tensors:
        raise InvalidInputError("tensors", f"{name!r} is gone")
    return tensors[name]


def _listed(names: list[str]) -> str:
    return ", ".join(names[:_NAMES_SHOWN_MAX]) + (" …" if len(names) > _NAMES_SHOWN_MAX else "")


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
