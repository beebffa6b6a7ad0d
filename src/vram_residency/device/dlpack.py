"""DLPack: tensors handed over in place between libraries, read from a capsule and put into one.

Source: the DLPack 1.1 header (dmlc/dlpack) and the Python array API standard, ``__dlpack__``. Addresses stay
in here and in what resolves them (residency.md section 1).
"""

from __future__ import annotations

import ctypes
import math
from typing import Any, Final, NamedTuple

from vram_residency.device.kernel import address_of

CPU: Final = 1
CUDA: Final = 2
#: Where a host can read: ordinary memory, and memory that a GPU driver has page-locked.
HOST_KINDS: Final = (CPU, 3)
KIND_NAMES: Final = {CUDA: "CUDA", 3: "page-locked host", 10: "ROCm", 13: "CUDA managed", 8: "Metal"}

_VERSION: Final = (1, 1)
_READ_ONLY: Final = 1
_NAME: Final = b"dltensor"
_VERSIONED_NAME: Final = b"dltensor_versioned"

#: The format's own word -> DLPack's type code and bits.
_CODES: Final = {
    "BOOL": (6, 8),
    "U8": (1, 8), "U16": (1, 16), "U32": (1, 32), "U64": (1, 64),
    "I8": (0, 8), "I16": (0, 16), "I32": (0, 32), "I64": (0, 64),
    "F16": (2, 16), "F32": (2, 32), "F64": (2, 64), "BF16": (4, 16), "C64": (5, 64),
    "F8_E4M3": (10, 8), "F8_E4M3FNUZ": (11, 8), "F8_E5M2": (12, 8), "F8_E5M2FNUZ": (13, 8),
    "F8_E8M0": (14, 8),
}  # fmt: skip
_WORDS: Final = {code: word for word, code in _CODES.items()}


class _Tensor(ctypes.Structure):
    _fields_ = (
        ("data", ctypes.c_void_p),
        ("device_kind", ctypes.c_int32),
        ("device_index", ctypes.c_int32),
        ("ndim", ctypes.c_int32),
        ("type_code", ctypes.c_uint8),
        ("type_bits", ctypes.c_uint8),
        ("type_lanes", ctypes.c_uint16),
        ("shape", ctypes.POINTER(ctypes.c_int64)),
        ("strides", ctypes.POINTER(ctypes.c_int64)),
        ("byte_offset", ctypes.c_uint64),
    )


class _Managed(ctypes.Structure):
    """What a capsule named ``dltensor`` holds, from before version 1."""

    _fields_ = (("tensor", _Tensor), ("context", ctypes.c_void_p), ("deleter", ctypes.c_void_p))


class _ManagedVersioned(ctypes.Structure):
    _fields_ = (
        ("major", ctypes.c_uint32),
        ("minor", ctypes.c_uint32),
        ("context", ctypes.c_void_p),
        ("deleter", ctypes.c_void_p),
        ("flags", ctypes.c_uint64),
        ("tensor", _Tensor),
    )


class HandedOver(NamedTuple):
    """A tensor as its capsule describes it. ``strides`` count elements; None is C order.

    ``dtype`` is None where the format of shards has no word for it.
    """

    address: int
    dtype: str | None
    itemsize: int
    shape: tuple[int, ...]
    strides: tuple[int, ...] | None
    capsule: object

    @property
    def nbytes(self) -> int:
        """How many bytes its elements take."""
        return self.itemsize * math.prod(self.shape)

    @property
    def is_in_c_order(self) -> bool:
        """Whether its elements lie one after the other, last dimension fastest."""
        if self.strides is None or self.nbytes == 0:
            return True
        pairs = zip(self.strides, _c_strides(self.shape), self.shape, strict=True)
        return all(stride == step or dim == 1 for stride, step, dim in pairs)

    def view(self) -> memoryview:
        """Its bytes where they lie, read-only; the tensor lives as long as the view does."""
        block = (ctypes.c_ubyte * self.nbytes).from_address(self.address)
        block.owner = self.capsule  # type: ignore[attr-defined] # ctypes lets its objects have attributes
        return memoryview(block).cast("B").toreadonly()


def kind_of(array: Any) -> int | None:
    """On what kind of device an array lies, if it says so (``__dlpack_device__``)."""
    if not hasattr(array, "__dlpack_device__"):
        return None
    return int(array.__dlpack_device__()[0])


def take(array: Any) -> HandedOver:
    """Ask an array for its capsule and read it. It is not consumed: while it lives, so does the memory.

    Raises whatever the array's own ``__dlpack__`` raises, and ValueError for a capsule that is none.
    """
    # Gradients are the engine's affair; PyTorch hands nothing over that still asks for them.
    plain = array.detach() if getattr(array, "requires_grad", False) else array
    try:
        capsule = plain.__dlpack__(max_version=_VERSION)
    except TypeError:  # an exporter from before version 1
        capsule = plain.__dlpack__()
    return taken_from(capsule)


def taken_from(capsule: object) -> HandedOver:
    """What a capsule describes; it is not consumed. Raises ValueError for one that is none."""
    tensor = _tensor_in(capsule)
    code = (tensor.type_code, tensor.type_bits)
    return HandedOver(
        address=(tensor.data or 0) + tensor.byte_offset,
        dtype=_WORDS.get(code) if tensor.type_lanes == 1 else None,
        itemsize=tensor.type_bits * tensor.type_lanes // 8,
        shape=tuple(tensor.shape[: tensor.ndim]),
        strides=tuple(tensor.strides[: tensor.ndim]) if tensor.strides else None,
        capsule=capsule,
    )


def _c_strides(shape: tuple[int, ...]) -> tuple[int, ...]:
    """Elements between neighbours along each dimension, last dimension fastest."""
    strides, step = [], 1
    for dim in reversed(shape):
        strides.append(step)
        step *= max(dim, 1)
    return tuple(reversed(strides))


def _tensor_in(capsule: object) -> _Tensor:
    for name, kind in ((_VERSIONED_NAME, _ManagedVersioned), (_NAME, _Managed)):
        if _is_valid(ctypes.py_object(capsule), name):
            managed = kind.from_address(_pointer(ctypes.py_object(capsule), name))
            if kind is _ManagedVersioned and managed.major != _VERSION[0]:
                raise ValueError(f"DLPack of version {managed.major}.{managed.minor}")
            tensor: _Tensor = managed.tensor
            return tensor
    raise ValueError("not a DLPack capsule")


# --- the other direction ------------------------------------------------------------------------------------


class _Handout(NamedTuple):
    """What must live as long as a consumer uses a capsule of ours."""

    managed: _ManagedVersioned
    dims: Any
    owner: object


#: By the address of what was handed out. Written by the interpreter's threads alone, one operation each.
_handouts: dict[int, _Handout] = {}


def knows(dtype: str) -> bool:
    """Whether DLPack has this type, by the format's own word."""
    return dtype in _CODES


def hand_out(view: memoryview, *, dtype: str, shape: tuple[int, ...]) -> object:
    """A versioned capsule over a read-only view, flagged read-only; the view lives until it is given back."""
    address = address_of(view) if view.nbytes else 0
    return hand_out_at(address, (CPU, 0), owner=view, dtype=dtype, shape=shape)


def hand_out_at(
    address: int, place: tuple[int, int], *, owner: object, dtype: str, shape: tuple[int, ...]
) -> object:
    """The same over memory of the device ``place`` (kind, number), which lives as long as ``owner`` does."""
    rank = len(shape)
    dims = (ctypes.c_int64 * (2 * rank or 1))(*shape, *_c_strides(shape))
    code, bits = _CODES[dtype]
    first = ctypes.cast(dims, ctypes.POINTER(ctypes.c_int64))
    second = ctypes.cast(ctypes.byref(dims, 8 * rank), ctypes.POINTER(ctypes.c_int64))
    # The offset in the file is in the pointer: not every consumer honours byte_offset.
    tensor = _Tensor(address or None, *place, rank, code, bits, 1, first, second, 0)
    managed = _ManagedVersioned(*_VERSION, None, ctypes.cast(_GIVE_BACK, ctypes.c_void_p), _READ_ONLY, tensor)
    where = ctypes.addressof(managed)
    _handouts[where] = _Handout(managed, dims, owner)
    return _new_capsule(where, _VERSIONED_NAME, _DROP)


def _give_back(place: int) -> None:
    """The deleter: called by the consumer, from any thread."""
    _handouts.pop(place, None)


def _drop(capsule: int) -> None:
    """The capsule's destructor: nobody took what is still named as we named it."""
    if _is_valid(ctypes.c_void_p(capsule), _VERSIONED_NAME):
        _give_back(_pointer(ctypes.c_void_p(capsule), _VERSIONED_NAME))


def _api(name: str, result: Any, *arguments: Any) -> Any:
    """A function of the interpreter's stable ABI; ours alone, so that nobody else's prototype applies."""
    return ctypes.PYFUNCTYPE(result, *arguments)((name, ctypes.pythonapi))


_DESTRUCTOR: Final = ctypes.PYFUNCTYPE(None, ctypes.c_void_p)
_new_capsule: Final = _api("PyCapsule_New", ctypes.py_object, ctypes.c_void_p, ctypes.c_char_p, _DESTRUCTOR)
# A destructor's capsule is no reference that may be counted: both take the bare address as well.
_IS_VALID: Final = ctypes.pythonapi["PyCapsule_IsValid"]
_POINTER: Final = ctypes.pythonapi["PyCapsule_GetPointer"]
_POINTER.restype = ctypes.c_void_p
# Kept for the life of the process: capsules call them. CFUNCTYPE takes the interpreter lock by itself.
_GIVE_BACK: Final = ctypes.CFUNCTYPE(None, ctypes.c_void_p)(_give_back)
_DROP: Final = _DESTRUCTOR(_drop)


def _is_valid(capsule: Any, name: bytes) -> bool:
    return bool(_IS_VALID(capsule, name))


def _pointer(capsule: Any, name: bytes) -> int:
    return int(_POINTER(capsule, name))
