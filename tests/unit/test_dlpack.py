"""Tensors handed over in place: what NumPy hands us, and what it takes from us."""

from __future__ import annotations

import ctypes
import gc
import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.model_files import entry, safetensors_file
from tests.shards import place

from vram_residency import DeviceBusyError, InvalidInputError
from vram_residency.device import dlpack
from vram_residency.device.host_array import resolve

#: The format's word -> NumPy's type, where both have one.
NUMPY = {
    "BOOL": "?", "U8": "u1", "U16": "u2", "U32": "u4", "U64": "u8", "I8": "i1", "I16": "i2", "I32": "i4",
    "I64": "i8", "F16": "f2", "F32": "f4", "F64": "f8", "C64": "c8",
}  # fmt: skip
SHAPES = st.lists(st.integers(0, 5), max_size=4).map(tuple)


def bytes_for(dtype: str, shape: tuple[int, ...]) -> bytes:
    count = np.dtype(NUMPY[dtype]).itemsize * math.prod(shape)
    return bytes(index % 2 for index in range(count))


class Handing:
    """An exporter over bytes of ours, as a library of the other side would see it."""

    def __init__(self, data: bytes, dtype: str, shape: tuple[int, ...]) -> None:
        self.arguments = {"dtype": dtype, "shape": shape}
        self.view = memoryview(data)

    def __dlpack__(self, **_options: Any) -> Any:
        return dlpack.hand_out(self.view, **self.arguments)

    def __dlpack_device__(self) -> tuple[int, int]:
        return (1, 0)


@given(st.sampled_from(sorted(NUMPY)), SHAPES)
def test_numpy_sees_the_bytes_type_and_shape_that_were_handed_out(dtype: str, shape: tuple[int, ...]):
    data = bytes_for(dtype, shape)
    array = np.from_dlpack(Handing(data, dtype, shape))
    assert (array.dtype, array.shape) == (np.dtype(NUMPY[dtype]), shape)
    assert array.tobytes() == data
    assert data == b"" or not array.flags.writeable  # for no bytes NumPy makes an array of its own


@given(st.sampled_from(sorted(dlpack._CODES)), SHAPES)
def test_what_is_handed_out_is_read_back_the_same(dtype: str, shape: tuple[int, ...]):
    itemsize = dlpack._CODES[dtype][1] // 8
    data = bytes(range(256)) * 40
    exact = data[: itemsize * math.prod(shape)]
    taken = dlpack.take(Handing(exact, dtype, shape))
    assert (taken.dtype, taken.shape, taken.nbytes) == (dtype, shape, len(exact))
    assert taken.is_in_c_order
    if exact:
        assert taken.view() == exact


@given(SHAPES, st.permutations(range(4)))
def test_whether_a_tensor_lies_in_c_order_is_what_numpy_says(shape: tuple[int, ...], order: list[int]):
    array = np.zeros(shape, dtype=np.int16).transpose([axis for axis in order if axis < len(shape)])
    assert dlpack.take(array).is_in_c_order == array.flags.c_contiguous


def test_a_capsule_that_nobody_takes_gives_its_view_back():
    view = memoryview(bytearray(8))
    before = len(dlpack._handouts)
    capsule = dlpack.hand_out(view, dtype="U8", shape=(8,))
    assert len(dlpack._handouts) == before + 1
    del capsule
    gc.collect()
    assert len(dlpack._handouts) == before


def test_a_taken_capsule_keeps_its_view_until_the_taker_dies():
    before = len(dlpack._handouts)
    array = np.from_dlpack(Handing(b"12345678", "U8", (8,)))
    gc.collect()
    assert len(dlpack._handouts) == before + 1
    assert array.tobytes() == b"12345678"
    del array
    gc.collect()
    assert len(dlpack._handouts) == before


def test_the_memory_behind_a_capsule_lives_as_long_as_a_view_of_it():
    array = np.arange(1000, dtype=np.int64)
    expected = array.tobytes()
    view = dlpack.take(array).view()
    del array
    gc.collect()
    assert bytes(view) == expected
    assert view.readonly


@pytest.mark.parametrize("capsule", [None, 5, "dltensor"], ids=["none", "number", "text"])
def test_what_is_no_capsule_is_refused(capsule: Any):
    class Exporter:
        def __dlpack__(self, **_options: Any) -> Any:
            return capsule

    with pytest.raises(ValueError, match="not a DLPack capsule"):
        dlpack.take(Exporter())
    with pytest.raises(InvalidInputError, match="'t' is no host buffer that can be read in place"):
        resolve("t", Exporter())


def test_a_capsule_of_a_version_to_come_is_refused():
    class Exporter(Handing):
        def __dlpack__(self, **options: Any) -> Any:
            capsule = super().__dlpack__(**options)
            place = dlpack._pointer(ctypes.py_object(capsule), b"dltensor_versioned")
            dlpack._ManagedVersioned.from_address(place).major = 2
            return capsule

    with pytest.raises(ValueError, match=r"DLPack of version 2\."):
        dlpack.take(Exporter(b"1", "U8", (1,)))


def test_an_exporter_from_before_version_1_is_understood():
    class Old:
        def __init__(self) -> None:
            self.array = np.arange(3, dtype=np.float32)

        def __dlpack__(self) -> Any:
            return self.array.__dlpack__()

    taken = dlpack.take(Old())
    assert (taken.dtype, taken.shape) == ("F32", (3,))
    assert taken.view() == np.arange(3, dtype=np.float32).tobytes()


@pytest.mark.parametrize(("kind", "words"), [(2, "CUDA"), (13, "CUDA managed"), (77, "device kind 77")])
def test_memory_that_a_host_cannot_read_is_refused_with_its_name(kind: int, words: str):
    class Elsewhere:
        def __dlpack_device__(self) -> tuple[int, int]:
            return (kind, 0)

    with pytest.raises(InvalidInputError, match=f"'w' lies in {words} memory") as refused:
        resolve("w", Elsewhere())
    assert "CPU" in refused.value.hint


def test_an_exporter_that_fails_is_refused_by_name():
    class Broken:
        def __dlpack_device__(self) -> tuple[int, int]:
            raise RuntimeError("no context")

    with pytest.raises(
        InvalidInputError, match="'w' is no host buffer that can be read in place: no context"
    ):
        resolve("w", Broken())


# --- through the gate ---------------------------------------------------------------------------------------


def one_tensor(dtype: str, data: bytes, *shape: int) -> bytes:
    return safetensors_file({"t": entry(0, len(data), dtype=dtype, shape=shape)}, data)


def test_a_sealed_tensor_is_taken_read_only_and_without_a_copy():
    with place() as here:
        shard = here.manager.seal_model(one_tensor("F32", bytes(24), 2, 3), format="safetensors")
        with here.manager.execution(shard) as views:
            array = np.from_dlpack(views["t"])
            assert (array.shape, array.flags.writeable) == ((2, 3), False)
            assert np.shares_memory(array, views["t"].numpy())
            with pytest.raises(DeviceBusyError):
                here.manager.deallocate(shard)
            del array


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({}, "DLPack 1.0 or later"),
        ({"max_version": (0, 8)}, "DLPack 1.0 or later"),
        ({"max_version": (1, 0), "copy": True}, "no copy"),
        ({"max_version": (1, 0), "dl_device": (2, 0)}, "no other device"),
        ({"max_version": (1, 0), "stream": 1}, "no stream"),
    ],
    ids=["no version", "old version", "copy", "device", "stream"],
)
def test_what_cannot_be_handed_out_read_only_in_place_is_refused(options: dict[str, Any], words: str):
    with place() as here:
        shard = here.manager.seal_model(one_tensor("F32", bytes(4), 1), format="safetensors")
        with here.manager.execution(shard) as views, pytest.raises(BufferError, match=words):
            views["t"].__dlpack__(**options)


def test_a_type_that_dlpack_lacks_is_refused_by_name():
    with place() as here:
        shard = here.manager.seal_model(one_tensor("F4", b"\x12\x34", 4), format="safetensors")
        with here.manager.execution(shard) as views, pytest.raises(BufferError, match=r"F4 .*'t'"):
            views["t"].__dlpack__(max_version=(1, 0))
