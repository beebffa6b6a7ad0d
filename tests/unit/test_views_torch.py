"""PyTorch tensors over sealed memory: the same bytes, the right type and shape, nothing copied."""

from __future__ import annotations

import importlib
import subprocess
import sys
import textwrap
import warnings
from pathlib import Path
from typing import Any

import pytest
from tests.model_files import entry, safetensors_file
from tests.shards import place

from vram_residency import ConfigurationError, DeviceBusyError, InvalidInputError

pytestmark = pytest.mark.torch


@pytest.fixture(scope="module")
def torch() -> Any:
    # What PyTorch warns of while it is imported is its own affair.
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return importlib.import_module("torch")


#: Type in the file -> attribute of torch, and the bytes of one element that is 1 (or true).
DTYPES = {
    "BOOL": ("bool", "01"),
    "U8": ("uint8", "01"),
    "I8": ("int8", "01"),
    "U16": ("uint16", "0100"),
    "I16": ("int16", "0100"),
    "U32": ("uint32", "01000000"),
    "I32": ("int32", "01000000"),
    "U64": ("uint64", "0100000000000000"),
    "I64": ("int64", "0100000000000000"),
    "F16": ("float16", "003c"),
    "BF16": ("bfloat16", "803f"),
    "F32": ("float32", "0000803f"),
    "F64": ("float64", "000000000000f03f"),
    "C64": ("complex64", "0000803f00000000"),
    "F8_E4M3": ("float8_e4m3fn", "38"),
    "F8_E5M2": ("float8_e5m2", "3c"),
}


def one_tensor(dtype: str, data: bytes, *shape: int) -> bytes:
    return safetensors_file({"t": entry(0, len(data), dtype=dtype, shape=shape)}, data)


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_tensor_has_the_type_shape_and_values_of_the_file(torch: Any, dtype: str):
    name, one = DTYPES[dtype]
    data = bytes.fromhex(one) * 6
    with place() as here:
        shard = here.manager.seal_model(one_tensor(dtype, data, 2, 3), format="safetensors")
        with here.manager.execution(shard) as views:
            tensor = views["t"].torch()
            assert tensor.dtype == getattr(torch, name)
            assert tuple(tensor.shape) == (2, 3)
            assert tensor.device.type == "cpu"
            # Widened by torch itself: some of the types have no comparison of their own.
            wide = torch.complex64 if dtype == "C64" else torch.float64
            assert torch.equal(tensor.to(wide), torch.ones(2, 3, dtype=wide))
            del tensor


def test_a_tensor_lies_in_the_sealed_pages_themselves(torch: Any):
    del torch
    with place() as here:
        shard = here.manager.seal_model(one_tensor("U8", bytes(range(64)), 64), format="safetensors")
        with here.manager.execution(shard) as views:
            tensor = views["t"].torch()
            assert tensor[5].item() == 5
            here.device.flip_bit(shard.shard_id, shard.tensors[0].start + 5, 7)
            assert tensor[5].item() == 5 + 128
            del tensor


def test_empty_and_scalar_tensors_keep_their_shapes(torch: Any):
    header = {"empty": entry(0, 0, dtype="F32", shape=[0, 4]), "scalar": entry(0, 4, dtype="F32", shape=[])}
    data = safetensors_file(header, bytes.fromhex("00002040"))
    with place() as here:
        shard = here.manager.seal_model(data, format="safetensors")
        with here.manager.execution(shard) as views:
            assert tuple(views["empty"].torch().shape) == (0, 4)
            assert views["empty"].torch().dtype == torch.float32
            assert views["scalar"].torch().shape == ()
            assert views["scalar"].torch().item() == 2.5


def test_taking_a_tensor_warns_of_nothing(torch: Any):
    """Warnings are errors in this suite; that the buffer is read-only is the point, not news."""
    del torch
    with place() as here:
        shard = here.manager.seal_model(one_tensor("F32", bytes(8), 2), format="safetensors")
        with here.manager.execution(shard) as views, warnings.catch_warnings():
            warnings.simplefilter("error")
            assert views["t"].torch().tolist() == [0.0, 0.0]


def test_a_tensor_keeps_its_memory_until_it_dies(torch: Any):
    del torch
    with place() as here:
        shard = here.manager.seal_model(one_tensor("F32", bytes(8), 2), format="safetensors")
        with here.manager.execution(shard) as views:
            tensor = views["t"].torch()
        with pytest.raises(DeviceBusyError):
            here.manager.deallocate(shard)
        assert tensor.tolist() == [0.0, 0.0]
        del tensor
        here.manager.deallocate(shard)


def test_a_tensor_is_refused_after_the_block(torch: Any):
    del torch
    with place() as here:
        shard = here.manager.seal_model(one_tensor("F32", bytes(8), 2), format="safetensors")
        with here.manager.execution(shard) as views:
            view = views["t"]
        with pytest.raises(InvalidInputError, match="after its execution"):
            view.torch()


def test_a_type_that_torch_lacks_is_refused_with_a_way_out(torch: Any):
    del torch
    with place() as here:
        shard = here.manager.seal_model(one_tensor("F4", b"\x12\x34", 4), format="safetensors")
        with here.manager.execution(shard) as views:
            with pytest.raises(ConfigurationError, match="torch has no type for F4") as refused:
                views["t"].torch()
            assert "memoryview" in refused.value.hint


def test_a_computation_from_sealed_memory_gives_what_it_gives_from_a_copy(torch: Any):
    generator = torch.Generator().manual_seed(0)
    weight = torch.randn(16, 8, generator=generator)
    x = torch.randn(4, 8, generator=generator)
    data = weight.numpy().tobytes()
    with place() as here:
        shard = here.manager.seal_model(one_tensor("F32", data, 16, 8), format="safetensors")
        with here.manager.execution(shard, recheck=True) as views:
            sealed = torch.nn.functional.linear(x, views["t"].torch())
        assert torch.equal(sealed, torch.nn.functional.linear(x, weight))


@pytest.mark.skipif(sys.platform != "linux", reason="the host device's promise is Linux's")
def test_an_in_place_write_ends_the_process_and_never_the_seal():
    """PyTorch knows no read-only tensors; the kernel does. In a process of its own, for it dies."""
    script = textwrap.dedent(
        """
        import warnings; warnings.simplefilter("ignore")
        import resource; resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        from tests.model_files import entry, safetensors_file
        from tests.shards import TOKEN
        from vram_residency import VramManager
        manager = VramManager.new_with_token(TOKEN, device="host")
        data = safetensors_file({"t": entry(0, 8, dtype="F32", shape=[2])}, bytes(8))
        shard = manager.seal_model(data, format="safetensors")
        with manager.execution(shard) as views:
            tensor = views["t"].torch()
            print("before", flush=True)
            tensor.add_(1)
            print("after", flush=True)
        """
    )
    done = subprocess.run(
        [sys.executable, "-c", script],
        capture_output=True,
        text=True,
        check=False,
        cwd=Path(__file__).parents[2],
    )
    assert done.stdout == "before\n"
    assert done.returncode == -11
