"""An array in host memory that some engine made: where and how it lies, resolved at one moment.

Read by the buffer protocol (NumPy and the standard library) or by DLPack (PyTorch, JAX and others).
"""

from __future__ import annotations

from typing import Any, Final, NamedTuple

from vram_residency.core.errors import InvalidInputError
from vram_residency.device import dlpack
from vram_residency.device.kernel import address_of

CONTIGUOUS_COPY_BYTES_MAX: Final = 128 << 20

# struct format characters of the buffer protocol -> names as safetensors spells them, by item size.
_DTYPES: Final[dict[str, dict[int, str]]] = {
    "?": {1: "BOOL"},
    "e": {2: "F16"},
    "f": {4: "F32"},
    "d": {8: "F64"},
    "Zf": {8: "C64"},
    **{code: {1: "I8", 2: "I16", 4: "I32", 8: "I64"} for code in "bhilq"},
    **{code: {1: "U8", 2: "U16", 4: "U32", 8: "U64"} for code in "BHILQ"},
}


class HostArray(NamedTuple):
    """One array. ``data`` is its bytes in C order: in place where they lie so, else a bounded copy.

    ``place`` says where and how it lies: to be compared, never shown.
    """

    dtype: str
    shape: tuple[int, ...]
    nbytes: int
    data: memoryview
    place: object


def resolve(name: str, array: Any) -> HostArray:
    """Look at an array as it is now. Raises InvalidInputError where it cannot be read in place."""
    kind = _kind_of(name, array)
    if kind is not None and kind not in dlpack.HOST_KINDS:
        where = dlpack.KIND_NAMES.get(kind, f"device kind {kind}")
        raise InvalidInputError(
            "tensors",
            f"{name!r} lies in {where} memory, which the host device cannot read",
            hint="Move it to the CPU first, or open the manager on the device where it lies.",
        )
    try:
        view = memoryview(array).toreadonly()
    except (TypeError, ValueError, BufferError, SystemError) as error:
        if not hasattr(array, "__dlpack__"):
            raise _unreadable(name, error) from None
        return _from_dlpack(name, array)
    return _from_buffer(name, view)


def _kind_of(name: str, array: Any) -> int | None:
    try:
        return dlpack.kind_of(array)
    except Exception as error:  # noqa: BLE001 - another library's, of any kind
        raise _unreadable(name, error) from None


def _from_buffer(name: str, view: memoryview) -> HostArray:
    dtype = _DTYPES.get(view.format.lstrip("@=<"), {}).get(view.itemsize)
    if dtype is None:
        raise _unsealed(name, repr(view.format))
    shape = tuple(view.shape or ())
    address = address_of(view) if view.nbytes else 0
    place = (address, view.nbytes, view.format, shape, view.strides)
    return HostArray(dtype, shape, view.nbytes, _bytes_of(name, view), place)


def _bytes_of(name: str, view: memoryview) -> memoryview:
    if view.nbytes == 0:
        return memoryview(b"")
    if view.c_contiguous:
        return view.cast("B")
    _require_small(name, view.nbytes)
    return memoryview(view.tobytes("C"))


def _from_dlpack(name: str, array: Any) -> HostArray:
    taken = _take(name, array)
    if taken.dtype is None:
        raise _unsealed(name, str(getattr(array, "dtype", "unknown")))
    data = memoryview(b"")
    if taken.nbytes:
        data = taken.view() if taken.is_in_c_order else _in_c_order(name, array, taken.nbytes)
    address = taken.address if taken.nbytes else 0
    place = (address, taken.nbytes, taken.dtype, taken.shape, taken.strides)
    return HostArray(taken.dtype, taken.shape, taken.nbytes, data, place)


def _in_c_order(name: str, array: Any, nbytes: int) -> memoryview:
    _require_small(name, nbytes)
    if not hasattr(array, "contiguous"):
        raise InvalidInputError("tensors", f"{name!r} is not contiguous in C order")
    return _take(name, array.contiguous()).view()


def _take(name: str, array: Any) -> dlpack.HandedOver:
    try:
        return dlpack.take(array)
    except Exception as error:  # noqa: BLE001 - another library's, of any kind
        raise _unreadable(name, error) from None


def _require_small(name: str, nbytes: int) -> None:
    if nbytes > CONTIGUOUS_COPY_BYTES_MAX:
        raise InvalidInputError("tensors", f"{name!r} is over 128 MiB and not contiguous in C order")


def _unreadable(name: str, error: Exception) -> InvalidInputError:
    return InvalidInputError("tensors", f"{name!r} is no host buffer that can be read in place: {error}")


def _unsealed(name: str, what: str) -> InvalidInputError:
    return InvalidInputError("tensors", f"{name!r} has elements of format {what}, which is not sealed here")
