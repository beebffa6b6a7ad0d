"""Tensors that are adopted where they lie: digest, damage, and the lawful change."""

from __future__ import annotations

import array
import mmap
import struct
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from blake3 import blake3
from tests.shards import GROUP, place, raw_bytes

from vram_residency import (
    BufferFullError,
    DeviceBusyError,
    DigestMismatchError,
    InvalidInputError,
    NotSealedError,
    SealVerificationError,
    UnknownShardError,
)

TENSORS = {
    "b.weight": np.arange(100_000, dtype=np.float32).reshape(100, 1000),
    "a.bias": np.arange(7, dtype=np.int64),
    "ä.scale": np.array(2.5, dtype=np.float16),
    "empty": np.zeros((0, 3), dtype=np.uint8),
}
DTYPES = {"b.weight": "F32", "a.bias": "I64", "ä.scale": "F16", "empty": "U8"}


def copies() -> dict[str, np.ndarray[Any, Any]]:
    return {name: tensor.copy() for name, tensor in TENSORS.items()}


def reference_digest(tensors: dict[str, np.ndarray[Any, Any]], dtypes: dict[str, str]) -> str:
    """Written from residency.md section 2 alone."""
    message = b""
    for name in sorted(tensors):
        tensor, data = tensors[name], tensors[name].tobytes("C")
        message += struct.pack("<I", len(name.encode())) + name.encode()
        message += struct.pack("<I", len(dtypes[name])) + dtypes[name].encode()
        message += struct.pack("<I", tensor.ndim) + b"".join(struct.pack("<Q", n) for n in tensor.shape)
        message += struct.pack("<Q", len(data)) + data
    return f"blake3:{blake3(message).hexdigest()}"


def test_the_digest_is_that_of_the_specification():
    with place() as here:
        shard = here.manager.seal_tensors(TENSORS)
        assert shard.digest == reference_digest(TENSORS, DTYPES)
        assert [spec.name for spec in shard.tensors] == sorted(TENSORS)
        assert shard.vram_bytes == sum(tensor.nbytes for tensor in TENSORS.values())
        report = here.manager.describe(shard)
        assert report.statement.access == "adopted"
        assert report.tensor_digests == {
            name: f"blake3:{blake3(tensor.tobytes()).hexdigest()}" for name, tensor in TENSORS.items()
        }
        assert (here.manager.verify_sealed(shard).scope, shard.path) == ("full", None)


def test_a_tensor_that_is_not_contiguous_is_digested_in_c_order():
    tensor = np.asfortranarray(np.arange(12, dtype=np.int32).reshape(3, 4))
    with place() as here:
        shard = here.manager.seal_tensors({"t": tensor, "u": tensor[:, ::2]})
        expected = {"t": tensor, "u": tensor[:, ::2]}
        assert shard.digest == reference_digest(expected, {"t": "I32", "u": "I32"})
        with here.manager.execution(shard) as views:
            np.testing.assert_array_equal(views["u"].numpy(), tensor[:, ::2])


@pytest.mark.parametrize(
    ("buffer", "dtype", "shape"),
    [
        (bytearray(5), "U8", (5,)),
        (b"bytes", "U8", (5,)),
        (array.array("d", [1.0, 2.0]), "F64", (2,)),
        (np.zeros((2, 2), dtype=np.complex64), "C64", (2, 2)),
        (np.zeros(3, dtype=bool), "BOOL", (3,)),
    ],
)
def test_any_host_buffer_can_be_adopted(buffer: Any, dtype: str, shape: tuple[int, ...]):
    with place() as here:
        (spec,) = here.manager.seal_tensors({"t": buffer}).tensors
        assert (spec.dtype, spec.shape) == (dtype, shape)


@pytest.mark.parametrize(
    ("tensors", "rule"),
    [
        ({}, "at least one"),
        ({"t": [1, 2]}, "no host buffer"),
        ({"t": None}, "no host buffer"),
        ({"t": np.zeros(2, dtype=">f4")}, "not sealed here"),
        ({"t": np.zeros(2, dtype=[("a", "i4")])}, "not sealed here"),
        ({"t": np.array(["2025-10-02"], dtype="M8[D]")}, "no host buffer"),
        ({5: bytearray(2)}, "not a tensor name"),
        ({"\ud800": bytearray(2)}, "not a tensor name"),
    ],
)
def test_what_cannot_be_adopted_is_refused_with_a_reason(tensors: Any, rule: str):
    with place() as here:
        with pytest.raises(InvalidInputError, match=rule):
            here.manager.seal_tensors(tensors, shard_id="t")
        assert here.actions[-1] == "validate_failed"
        here.manager.seal_tensors({"t": bytearray(1)}, shard_id="t")


def test_an_expected_digest_is_compared():
    with place() as here:
        shard = here.manager.seal_tensors(TENSORS, expect=reference_digest(TENSORS, DTYPES))
        assert here.manager.describe(shard).statement.approval is not None
        with pytest.raises(DigestMismatchError):
            here.manager.seal_tensors({"a": bytearray(1)}, expect=shard.digest)
        with pytest.raises(InvalidInputError, match="blake3 digest alone"):
            here.manager.seal_tensors(TENSORS, expect="sha256:" + "00" * 32)
        assert here.actions[-1] == "validate_failed"


def test_adopting_copies_nothing_and_uses_none_of_the_budget():
    with place() as here:
        tensors = copies()
        shard = here.manager.seal_tensors(tensors)
        assert here.manager.used_vram() == 0
        assert "vram_allocated" not in here.events
        with here.manager.execution(shard) as views:
            assert np.shares_memory(views["b.weight"].numpy(), tensors["b.weight"])
            assert not views["b.weight"].numpy().flags.writeable
            with pytest.raises(InvalidInputError, match="by name"):
                _ = views.whole
        here.manager.deallocate(shard)
        assert here.only("vram_deallocated")["freed_bytes"] == 0
        assert here.only("vram_deallocated")["wiped"] is False


def test_a_value_changed_in_place_is_caught_and_named():
    with place() as here:
        tensors = copies()
        shard = here.manager.seal_tensors(tensors)
        tensors["b.weight"][99, 999] = -1
        with pytest.raises(SealVerificationError) as caught:
            here.manager.verify_sealed(shard)
        assert (caught.value.reason, caught.value.tensors) == ("digest_mismatch", ("b.weight",))
        start = next(spec.start for spec in shard.tensors if spec.name == "b.weight")
        assert caught.value.first_bad_offset == start + 3 * GROUP
        assert here.manager.describe(shard).state == "quarantined"


def moved_storage() -> tuple[Any, Callable[[], object]]:
    tensor = bytearray(8)

    def move() -> None:
        tensor.extend(bytes(1 << 20))
        others.extend(bytearray(8) for _ in range(1000))  # the old place is taken by somebody else
        del tensor[8:]

    others: list[bytearray] = []
    return tensor, move


def reshaped() -> tuple[Any, Callable[[], object]]:
    tensor = np.zeros((2, 3), dtype=np.int32)
    return tensor, lambda: tensor.resize((3, 2), refcheck=False)


def strided() -> tuple[Any, Callable[[], object]]:
    tensor = np.zeros((2, 2), dtype=np.int32)
    return tensor, lambda: setattr(tensor, "strides", (4, 8))


def retyped() -> tuple[Any, Callable[[], object]]:
    tensor = np.zeros(4, dtype=np.int32)
    return tensor, lambda: setattr(tensor, "dtype", np.float32)


MOVES = {"storage": moved_storage, "shape": reshaped, "strides": strided, "dtype": retyped}


@pytest.mark.parametrize("change", MOVES)
def test_a_tensor_that_lies_elsewhere_or_otherwise_is_caught_even_with_the_same_bytes(change: str):
    tensor, alter = MOVES[change]()
    with place() as here:
        shard = here.manager.seal_tensors({"good": bytearray(4), "moved": tensor})
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)
            alter()
        with pytest.raises(SealVerificationError, match="moved") as caught:
            here.manager.verify_sealed(shard)
        assert caught.value.reason == "not_resident"
        assert "good" not in caught.value.finding


def test_memory_that_is_gone_is_damage_not_a_refusal():
    with place() as here:
        region = mmap.mmap(-1, 4096)
        shard = here.manager.seal_tensors({"t": region})
        region.close()
        with pytest.raises(SealVerificationError) as caught:
            here.manager.verify_sealed(shard)
        assert caught.value.reason == "read_error"
        assert here.only("shard_quarantined")["reason"] == "read_error"


def test_resealing_makes_a_change_right_and_ends_the_old_handle():
    with place() as here:
        tensors = copies()
        old = here.manager.seal_tensors(tensors, shard_id="m", model_ref="base")
        tensors["a.bias"] += 1
        new = here.manager.reseal(old, reason="LoRA merged")
        assert (new.shard_id, new.model_ref) == ("m", "base")
        assert new.digest == reference_digest(tensors, DTYPES) != old.digest
        here.manager.verify_sealed(new)
        with pytest.raises(UnknownShardError):
            here.manager.verify_sealed(old)
        here.manager.verify_sealed("m")
        fields = here.only("model_resealed")
        assert (fields["old_digest"], fields["new_digest"]) == (old.digest, new.digest)
        assert (fields["reason"], fields["shard_id"]) == ("LoRA merged", "m")
        assert here.manager.shards() == [new]


def test_resealing_accepts_another_shape():
    tensor = np.zeros((2, 3), dtype=np.int32)
    with place() as here:
        shard = here.manager.seal_tensors({"t": tensor})
        tensor.resize((6,), refcheck=False)
        renewed = here.manager.reseal(shard, reason="flattened")
        assert renewed.tensors[0].shape == (6,)
        here.manager.verify_sealed(renewed)


@pytest.mark.parametrize("reason", ["", "  ", None, "\ud800"])
def test_resealing_asks_for_a_reason(reason: Any):
    with place() as here:
        shard = here.manager.seal_tensors({"t": bytearray(1)})
        with pytest.raises(InvalidInputError, match="reason"):
            here.manager.reseal(shard, reason=reason)


def test_memory_of_our_own_cannot_be_resealed():
    with place() as here:
        shard = here.manager.seal_model(raw_bytes(1000))
        with pytest.raises(InvalidInputError, match="read-only"):
            here.manager.reseal(shard, reason="because")
        assert here.actions[-1] == "validate_failed"
        here.manager.verify_sealed(shard)


def test_a_quarantined_shard_cannot_be_resealed():
    with place() as here:
        tensor = bytearray(10)
        shard = here.manager.seal_tensors({"t": tensor})
        tensor[0] = 1
        with pytest.raises(SealVerificationError):
            here.manager.verify_sealed(shard)
        with pytest.raises(NotSealedError, match="quarantined"):
            here.manager.reseal(shard, reason="it was me")


def test_resealing_waits_for_no_block_but_refuses_beside_one():
    with place() as here:
        tensor = bytearray(10)
        shard = here.manager.seal_tensors({"t": tensor})
        with here.manager.execution(shard), pytest.raises(DeviceBusyError):
            here.manager.reseal(shard, reason="too early")
        renewed = here.manager.reseal(shard, reason="in time")
        here.manager.deallocate(renewed)
        here.require_untouched()


def test_a_reseal_that_cannot_be_audited_where_that_is_required_does_not_happen():
    with place(audit_required=True) as here:
        tensor = bytearray(10)
        shard = here.manager.seal_tensors({"t": tensor})
        tensor[0] = 1
        here.log.fail_with(BufferFullError(10))
        with pytest.raises(BufferFullError):
            here.manager.reseal(shard, reason="quantised")
        here.log.fail_with(None)
        assert here.manager.shards() == [shard]
        tensor[0] = 0
        here.manager.verify_sealed(shard)


def test_a_sample_of_adopted_tensors_counts_groups_over_all_of_them():
    with place() as here:
        tensors = {name: bytearray(GROUP + 1) for name in "abc"}
        shard = here.manager.seal_tensors(tensors)
        result = here.manager.verify_sealed(shard, scope="sample")
        assert (result.bytes_checked, result.miss_probability) == (3 * GROUP + 3, 0.0)
        tensors["c"][GROUP] = 1
        with pytest.raises(SealVerificationError) as caught:
            here.manager.verify_sealed(shard, scope="sample")
        assert caught.value.tensors == ("c",)
        assert caught.value.first_bad_offset == caught.value.last_bad_offset == 3 * GROUP + 2
