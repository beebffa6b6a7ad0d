"""Any flipped bit is caught and placed by a full verification; no handle passes but the true one."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.shards import GROUP, Place, altered, model_bytes, place

from vram_residency import SealedShard, SealVerificationError, UnknownShardError
from vram_residency.formats.layout import TensorSpec
from vram_residency.residency import sample

SIZES = (5, 0, GROUP, 3 * GROUP + 17, 1, 2 * GROUP)
DATA = model_bytes(*SIZES)


@pytest.fixture(scope="module")
def here() -> Iterator[Place]:
    with place() as opened:
        yield opened


@pytest.fixture(scope="module")
def kept(here: Place) -> SealedShard:
    return here.manager.seal_model(DATA, format="safetensors", model_ref="kept")


def owners(shard: SealedShard, start: int, end: int) -> tuple[str, ...]:
    """The tensors with a byte in a range: written for clarity, not for speed."""
    return tuple(t.name for t in shard.tensors if max(t.start, start) < min(t.end, end))


@given(offset=st.integers(0, len(DATA) - 1), bit=st.integers(0, 7))
def test_any_flipped_bit_is_caught_and_named_by_range_and_tensor(here: Place, offset: int, bit: int):
    shard = here.manager.seal_model(DATA, format="safetensors")
    try:
        here.device.flip_bit(shard.shard_id, offset, bit)
        with pytest.raises(SealVerificationError) as caught:
            here.manager.verify_sealed(shard)
        first = offset // GROUP * GROUP
        last = min(first + GROUP, len(DATA)) - 1
        assert (caught.value.first_bad_offset, caught.value.last_bad_offset) == (first, last)
        assert caught.value.tensors == owners(shard, first, last + 1)
        assert caught.value.actual_digest not in {"", shard.digest}
    finally:
        here.manager.deallocate(shard)


@given(offsets=st.lists(st.integers(0, len(DATA) - 1), min_size=1, max_size=8, unique=True))
def test_any_set_of_flipped_bytes_is_caught_by_a_sample_of_everything(here: Place, offsets: list[int]):
    shard = here.manager.seal_model(DATA, format="safetensors")
    try:
        for offset in offsets:
            here.device.flip_bit(shard.shard_id, offset)
        with pytest.raises(SealVerificationError) as caught:
            here.manager.verify_sealed(shard, scope=sample(1.0))
        assert caught.value.first_bad_offset == min(offsets) // GROUP * GROUP
        assert caught.value.last_bad_offset == min((max(offsets) // GROUP + 1) * GROUP, len(DATA)) - 1
    finally:
        here.manager.deallocate(shard)


@given(fraction=st.floats(0, 1, exclude_min=True), size=st.integers(1, 12 * GROUP))
def test_a_sample_reads_what_it_says_and_no_less_than_was_asked(
    here: Place, kept: SealedShard, fraction: float, size: int
):
    by_share = here.manager.verify_sealed(kept, scope=sample(fraction))
    by_size = here.manager.verify_sealed(kept, scope=sample(bytes=size))
    groups = -(-len(DATA) // GROUP)
    # All groups but the last are whole, and the last may be among those that were drawn.
    short = GROUP - (len(DATA) - (groups - 1) * GROUP)
    assert by_share.bytes_checked >= fraction * len(DATA) - short
    assert by_size.bytes_checked >= min(size, len(DATA)) - short
    for result in (by_share, by_size):
        assert 0 <= result.miss_probability < 1
        assert (result.miss_probability == 0) == (result.bytes_checked == len(DATA))


FIELDS: dict[str, st.SearchStrategy[Any]] = {
    "gpu_device": st.integers(),
    "vram_bytes": st.integers(),
    "digest": st.text(),
    "sealed_at": st.text(),
    "worker_id": st.text(),
    "model_ref": st.none() | st.text(),
    "shard_index": st.integers() | st.booleans(),
    "total_shards": st.integers() | st.floats(),
    "tensors": st.just(()) | st.just((TensorSpec("t", "U8", (1,), 0, 1),)),
    "path": st.none() | st.text(),
}


@given(changes=st.fixed_dictionaries({}, optional=FIELDS).filter(bool))
def test_no_altered_handle_passes(here: Place, kept: SealedShard, changes: dict[str, Any]):
    forged = altered(kept, **changes)
    if forged == kept:
        here.manager.verify_sealed(forged, scope=sample(bytes=1))
        return
    with pytest.raises(UnknownShardError):
        here.manager.verify_sealed(forged, scope=sample(bytes=1))
    assert here.manager.describe(kept).state == "sealed"


@given(shard_id=st.text(max_size=2000))
def test_no_made_up_id_is_known_and_none_breaks_the_log(here: Place, kept: SealedShard, shard_id: str):
    with pytest.raises(UnknownShardError):
        here.manager.verify_sealed(shard_id)
    assert here.log.of_type("seal_verification_failed")[-1]["reason"] == "unknown_shard"
    assert here.manager.audit_failures == 0
    assert kept in here.manager.shards()
