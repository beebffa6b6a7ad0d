"""The gate's views: read-only, in place, by name, and only inside the block."""

from __future__ import annotations

import sys
from typing import Any

import numpy as np
import pytest
from tests.hostile import good_gguf, good_safetensors
from tests.model_files import entry, safetensors_file
from tests.shards import MIB, Place, PretendCard, model_bytes, place, raw_bytes

from vram_residency import (
    ConfigurationError,
    DeviceBusyError,
    InvalidInputError,
    SealedShard,
    SealVerificationError,
    UnknownShardError,
)
from vram_residency.residency import FULL, TensorView

DTYPES = {
    "BOOL": np.bool_, "U8": np.uint8, "I8": np.int8, "U16": np.uint16, "I16": np.int16, "U32": np.uint32,
    "I32": np.int32, "U64": np.uint64, "I64": np.int64, "F16": np.float16, "F32": np.float32,
    "F64": np.float64,
}  # fmt: skip


def one_tensor(dtype: str, array: np.ndarray[Any, Any]) -> bytes:
    data = array.tobytes()
    return safetensors_file({"t": entry(0, len(data), dtype=dtype, shape=array.shape)}, data)


@pytest.mark.parametrize("dtype", DTYPES)
def test_numpy_arrays_have_the_tensors_dtype_shape_and_values(dtype: str):
    array = np.arange(6).astype(DTYPES[dtype]).reshape(2, 3)
    with place() as here:
        shard = here.manager.seal_model(one_tensor(dtype, array), format="safetensors")
        with here.manager.execution(shard) as views:
            view = views["t"]
            assert (view.name, view.dtype, view.shape, view.nbytes) == ("t", dtype, (2, 3), array.nbytes)
            found = view.numpy()
            assert found.dtype == array.dtype
            np.testing.assert_array_equal(found, array)
            assert not found.flags.writeable
            assert not found.flags.owndata
            del found


def test_an_array_cannot_be_made_writable_again():
    with place() as here:
        shard = here.manager.seal_model(good_safetensors(), format="safetensors")
        with here.manager.execution(shard) as views:
            array = views["encoder.weight"].numpy()
            with pytest.raises(ValueError, match="WRITEABLE"):
                array.setflags(write=True)
            with pytest.raises(ValueError, match="read-only"):
                array += 1
            del array


def test_empty_and_scalar_tensors_are_handed_out_too():
    header = {"empty": entry(0, 0, dtype="F32", shape=[0, 4]), "scalar": entry(0, 4, dtype="F32", shape=[])}
    data = safetensors_file(header, np.float32(2.5).tobytes())
    with place() as here:
        shard = here.manager.seal_model(data, format="safetensors")
        with here.manager.execution(shard) as views:
            assert views["empty"].numpy().shape == (0, 4)
            assert views["scalar"].numpy() == np.float32(2.5)
            assert (len(views["empty"]), len(views["scalar"])) == (0, 0)
            assert memoryview(views["empty"]).nbytes == 0


def test_a_type_that_numpy_lacks_is_still_readable_as_bytes():
    data = safetensors_file({"t": entry(0, 4, dtype="BF16", shape=[2])}, b"\x80\x3f\x00\x40")
    with place() as here:
        shard = here.manager.seal_model(data, format="safetensors")
        with here.manager.execution(shard) as views:
            with pytest.raises(ConfigurationError, match="numpy has no type for BF16"):
                views["t"].numpy()
            assert bytes(memoryview(views["t"])) == b"\x80\x3f\x00\x40"


def test_memoryview_takes_a_view_on_every_supported_python():
    with place() as here:
        shard = here.manager.seal_model(model_bytes(1000), format="safetensors")
        with here.manager.execution(shard) as views, memoryview(views["t0"]) as view:
            assert (view.nbytes, view.readonly, view.format) == (1000, True, "B")
            assert bytes(view[:10]) == model_bytes(1000)[-1000:-990]
            with pytest.raises(TypeError, match="read-only"):
                view[0] = 1
            with pytest.raises(TypeError, match="read-only"):
                view.cast("I")[0] = 1


def test_memoryview_of_a_view_is_refused_after_the_block():
    with place() as here:
        shard = here.manager.seal_model(model_bytes(1000), format="safetensors")
        with here.manager.execution(shard) as views:
            view = views["t0"]
        # Python 3.11 has no __buffer__: there the refusal loses its words (docs/adr/0006).
        error = InvalidInputError if sys.version_info >= (3, 12) else SystemError
        with pytest.raises(error):
            memoryview(view)  # type: ignore[arg-type]
        with pytest.raises(InvalidInputError, match="ended"):
            view.numpy()


def test_dlpack_consumers_get_the_same_bytes_without_a_copy():
    with place() as here:
        shard = here.manager.seal_model(good_safetensors(), format="safetensors")
        with here.manager.execution(shard) as views:
            view = views["encoder.weight"]
            assert view.__dlpack_device__() == (1, 0)
            array = np.from_dlpack(view)
            np.testing.assert_array_equal(array, view.numpy())
            assert np.shares_memory(array, view.numpy())
            assert not array.flags.writeable
            del array


def test_cupy_is_refused_on_the_host_with_a_hint():
    with place() as here:
        shard = here.manager.seal_model(good_safetensors(), format="safetensors")
        with here.manager.execution(shard) as views:
            with pytest.raises(ConfigurationError, match="no GPU memory") as refused:
                views["mask"].cupy()
            assert "numpy" in refused.value.hint


def test_views_are_a_mapping_in_file_order():
    with place() as here:
        shard = here.manager.seal_model(good_gguf())
        with here.manager.execution(shard) as views:
            assert list(views) == [spec.name for spec in shard.tensors]
            assert len(views) == 3
            assert "output.weight" in views
            assert isinstance(views["output.weight"], TensorView)
            assert "output.weight" in repr(views["output.weight"])
            with pytest.raises(KeyError):
                views["no such tensor"]
            assert bytes(views.whole) == good_gguf()


def test_a_shard_can_be_executed_by_id_and_several_times_at_once():
    with place() as here:
        here.manager.seal_model(raw_bytes(1000), shard_id="m")
        with here.manager.execution("m") as first, here.manager.execution("m", scope="full") as second:
            assert bytes(first.whole) == bytes(second.whole)
        here.manager.deallocate("m")


def test_the_block_keeps_the_shard_from_being_freed():
    with place() as here:
        shard = here.manager.seal_model(raw_bytes(1000))
        with here.manager.execution(shard), pytest.raises(DeviceBusyError, match="1 open execution"):
            here.manager.deallocate(shard)
        here.manager.deallocate(shard)


def test_a_view_that_outlives_its_block_keeps_the_memory():
    data = raw_bytes(1000)
    with place() as here:
        shard = here.manager.seal_model(data)
        with here.manager.execution(shard) as views:
            kept = views.whole
        with pytest.raises(DeviceBusyError, match="views"):
            here.manager.deallocate(shard)
        assert bytes(kept) == data
        here.manager.verify_sealed(shard)
        del kept
        here.manager.deallocate(shard)
        here.require_untouched()


def flipped_and_failed(here: Place, shard: SealedShard) -> ZeroDivisionError:
    here.device.flip_bit(shard.shard_id, 0)
    return ZeroDivisionError()


def test_an_error_in_the_block_ends_it_and_skips_the_recheck():
    with place() as here:
        shard = here.manager.seal_model(raw_bytes(1000))
        with pytest.raises(ZeroDivisionError), here.manager.execution(shard, recheck=True):
            raise flipped_and_failed(here, shard)
        assert here.log.of_type("seal_verification_failed") == []
        here.device.flip_bit(shard.shard_id, 0)
        here.manager.deallocate(shard)


def test_a_recheck_that_passes_is_a_second_verification():
    with place() as here:
        shard = here.manager.seal_model(raw_bytes(1000))
        with here.manager.execution(shard, recheck=True):
            pass
        assert len(here.log.of_type("seal_verified")) == 2


def test_a_blocked_execution_leaves_the_shard_free_to_go():
    with place(gate_scope=FULL) as here:
        shard = here.manager.seal_model(raw_bytes(1000))
        here.device.flip_bit(shard.shard_id, 0)
        with pytest.raises(SealVerificationError), here.manager.execution(shard):
            raise AssertionError("it was handed out")
        here.manager.deallocate(shard)
        here.require_untouched()


def test_the_gate_reads_a_sample_on_the_host_and_fast_on_a_gpu():
    data = raw_bytes(40 * MIB)
    from vram_residency.testing import FaultDevice

    with place(FaultDevice(capacity_bytes=64 * MIB)) as here:
        shard = here.manager.seal_model(data)
        with here.manager.execution(shard):
            pass
        fields = here.only("seal_verified")
        assert (fields["scope"], fields["bytes_checked"]) == ("sample", 32 * MIB)
    with place(PretendCard()) as here:
        shard = here.manager.seal_model(raw_bytes(1000))
        with here.manager.execution(shard):
            pass
        # This version has no faster tag yet and says so: the scope is what was really done.
        assert here.only("seal_verified")["scope"] == "full"


def test_an_unknown_shard_is_refused_at_the_gate():
    with place() as here:
        with pytest.raises(UnknownShardError), here.manager.execution("nothing"):
            raise AssertionError("it was handed out")
        assert here.only("seal_verification_failed")["reason"] == "unknown_shard"


@pytest.mark.parametrize("mode", ["log", "off"])
def test_a_lesser_gate_still_refuses_what_was_quarantined(mode: Any):
    with place(enforcement=mode) as here:
        shard = here.manager.seal_model(raw_bytes(1000))
        here.device.flip_bit(shard.shard_id, 0)
        with pytest.raises(SealVerificationError):
            here.manager.verify_sealed(shard)
        with pytest.raises(Exception, match="quarantined"), here.manager.execution(shard):
            raise AssertionError("it was handed out")


def test_a_gate_that_only_logs_verifies_what_is_sound():
    with place(enforcement="log") as here:
        shard = here.manager.seal_model(raw_bytes(1000))
        with here.manager.execution(shard):
            pass
        assert here.manager.would_have_blocked == 0
        assert len(here.log.of_type("seal_verified")) == 1


def test_a_gate_that_is_off_verifies_nothing_but_still_asks_for_a_known_handle():
    with place(enforcement="off") as here:
        shard = here.manager.seal_model(raw_bytes(1000))
        with here.manager.execution(shard) as views:
            assert len(views.whole) == 1000
        assert here.log.of_type("seal_verified") == []
        with pytest.raises(UnknownShardError), here.manager.execution("nothing"):
            raise AssertionError("it was handed out")
