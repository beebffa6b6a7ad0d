"""A manager over a card: the driver simulated, the kernels real ones, built for the CPU. No GPU is used."""

from __future__ import annotations

import ctypes
import gc
import hashlib
import pickle
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from blake3 import blake3
from tests.kernels.cpu import CpuRunner
from tests.shards import GROUP, MIB, TOKEN, Place, model_bytes, place, raw_bytes, write_model

from vram_residency import VramManager
from vram_residency.core.errors import (
    ConfigurationError,
    DeviceBusyError,
    DeviceLostError,
    DigestMismatchError,
    InsufficientMemoryError,
    InvalidInputError,
    NotSealedError,
    ResidencyError,
    SealVerificationError,
)
from vram_residency.device import dlpack
from vram_residency.device.cuda.device import CudaDevice
from vram_residency.device.cuda.simulated import SimulatedDriver
from vram_residency.residency import FAST, FULL, sample
from vram_residency.residency.lender import Peer
from vram_residency.residency.verifier import FAST_MISS_PROBABILITY
from vram_residency.testing import MemoryLog

UNIT = 64 << 10
TOTAL = 4 << 30
SIZES = (5 * GROUP, 100, 3 * GROUP + 7)


class Card:
    """A device over the simulated driver, and the kernels that run over its memory."""

    def __init__(self, library: ctypes.CDLL, **facts: Any) -> None:
        self.runner = CpuRunner(library)
        self.driver = SimulatedDriver(total_bytes=TOTAL, granularity_bytes=UNIT, kernels=self.runner)
        self.driver.changes = facts
        self.device = CudaDevice(self.driver)

    def poke(self, here: Place, shard: Any, offset: int) -> None:
        """Flip a bit behind everybody's back."""
        held = here.record(shard).content._memory.open(offset)
        was = ctypes.string_at(held.address, 1)
        self.driver.poke(held.address, bytes([was[0] ^ 4]))

    def require_nothing(self) -> None:
        assert self.driver.held == (0, 0, 0)
        assert self.runner.reserved == {}
        assert all(self.runner.wiped)


@pytest.fixture
def card(library: ctypes.CDLL) -> Iterator[Card]:
    found = Card(library)
    yield found
    gc.collect()
    found.require_nothing()


@contextmanager
def opened(card: Card, **options: Any) -> Iterator[Place]:
    with place(card.device, headroom_bytes=0, **options) as here:
        yield here


def damaged(here: Place, shard: Any, **choices: Any) -> SealVerificationError:
    with pytest.raises(SealVerificationError) as caught:
        here.manager.verify_sealed(shard, **choices)
    return caught.value


def test_the_whole_life_of_a_shard(card: Card, tmp_path: Path) -> None:
    """Sealed under the strict policy, verified at every scope, freed, wiped; nothing stays."""
    path = write_model(tmp_path, *SIZES)
    data = path.read_bytes()
    with opened(card) as here:
        shard = here.manager.seal_file(path)
        assert shard.digest == f"blake3:{blake3(data).hexdigest()}"
        assert [spec.name for spec in shard.tensors] == ["t0", "t1", "t2"]
        assert shard.path is None
        for scope in (FULL, sample(0.5), sample()):
            assert here.manager.verify_sealed(shard, scope=scope).scope == scope.kind
        report = here.manager.describe(shard)
        assert report.residency["policy"] == {
            "name": "vram_only",
            "mode": "strict",
            "holds": True,
            "violations": [],
        }
        assert report.residency["facts"]["access"] == "read"
        here.manager.deallocate(shard)
        assert here.only("vram_deallocated")["wiped"] is True
        assert card.driver.calls[-3:] == ["cuMemsetD8", "cuMemUnmap", "cuMemAddressFree"]
        here.require_untouched()
    assert "policy_violation" not in here.events
    assert "cuda_init" in here.actions


def test_it_counts_what_is_really_taken(card: Card) -> None:
    """Whole units of physical memory, in the budget and in the log."""
    with opened(card) as here:
        shard = here.manager.seal_model(raw_bytes(UNIT + 1))
        assert here.manager.used_vram() == 2 * UNIT == card.driver.held[0]
        fields = here.only("vram_allocated")
        assert (fields["requested_bytes"], fields["allocated_bytes"]) == (UNIT + 1, 2 * UNIT)
        here.manager.deallocate(shard)
        assert here.only("vram_deallocated")["freed_bytes"] == 2 * UNIT
    with place(card.device) as here:
        assert here.manager.capacity().headroom_bytes == 2 << 30


def test_the_gate_is_fast_after_one_full_pass(card: Card) -> None:
    """The first execution reads all and says so; from then on the tag is compared."""
    with opened(card) as here:
        shard = here.manager.seal_model(raw_bytes(3 * GROUP + 5))
        scopes = []
        for _ in range(3):
            with here.manager.execution(shard):
                scopes.append(here.log.of_type("seal_verified")[-1]["scope"])
        assert scopes == ["full", "fast", "fast"]
        result = here.manager.verify_sealed(shard, scope=FAST)
        assert (result.scope, result.requested_scope) == ("fast", "fast")
        assert (result.bytes_checked, result.miss_probability) == (shard.vram_bytes, FAST_MISS_PROBABILITY)
        assert [launch.kernel for launch in card.runner.launched[-2:]] == ["tag_groups", "tag_groups"]
        # Each full pass has a key of its own, and the one before is gone with it.
        here.manager.verify_sealed(shard)
        assert len(card.runner.reserved) == 1


@pytest.mark.parametrize("size", [100, GROUP, GROUP + 1, 40 * GROUP + 3], ids=str)
@pytest.mark.parametrize("scope", [FULL, FAST, sample(1.0)], ids=lambda scope: scope.kind)
def test_a_flipped_bit_is_caught_and_named(card: Card, size: int, scope: Any) -> None:
    """At each scope, whatever the size; the shard is never handed out again, the key is gone."""
    with opened(card) as here:
        shard = here.manager.seal_model(model_bytes(10, size), format="safetensors")
        here.manager.verify_sealed(shard)
        here.manager.verify_sealed(shard, scope=FAST)
        offset = shard.vram_bytes - 1
        card.poke(here, shard, offset)
        error = damaged(here, shard, scope=scope)
        assert (error.reason, error.last_bad_offset) == ("digest_mismatch", offset)
        assert error.first_bad_offset == offset // GROUP * GROUP
        assert error.tensors[-1] == "t1"
        with pytest.raises(NotSealedError), here.manager.execution(shard):
            pass
        assert card.runner.reserved == {} or scope.kind == "sample"


def test_damage_that_is_gone_again_is_damage(card: Card) -> None:
    """The tag differs; that the digest is right a moment later does not unsay it."""
    with opened(card) as here:
        shard = here.manager.seal_model(raw_bytes(2 * GROUP))
        here.manager.verify_sealed(shard)
        content = here.record(shard).content
        real = content.fast_pass

        def mended(seal_id: str) -> Any:
            card.poke(here, shard, 7)
            verdict = real(seal_id)
            card.poke(here, shard, 7)
            return verdict

        content.fast_pass = mended
        error = damaged(here, shard, scope=FAST)
        assert "fast tag differs" in error.finding


def test_every_launch_reads_the_mapping_that_is_handed_out(card: Card) -> None:
    """What a consumer gets is where the digest is computed: one address, read-only."""
    with opened(card) as here:
        data = raw_bytes(GROUP + 9)
        shard = here.manager.seal_model(data)
        with here.manager.execution(shard) as views:
            interface = views.raw.__cuda_array_interface__
        address, is_read_only = interface["data"]
        assert (is_read_only, interface["version"], interface["shape"]) == (True, 3, (len(data),))
        assert ctypes.string_at(address, len(data)) == data
        assert card.driver.access(address) == "read"
        del interface


def test_views_are_handed_out_in_place_and_never_as_host_memory(card: Card) -> None:
    """DLPack names the card, read-only; what the machine cannot read it is not given."""
    with opened(card) as here:
        shard = here.manager.seal_model(model_bytes(GROUP, 24), format="safetensors")
        with here.manager.execution(shard) as views:
            view = views["t1"]
            assert (view.__dlpack_device__(), view.nbytes, len(view)) == ((2, 0), 24, 24)
            capsule = view.__dlpack__(max_version=(1, 1), stream=1)
            handed = dlpack.taken_from(capsule)
            assert (handed.dtype, handed.shape) == ("U8", (24,))
            assert ctypes.string_at(handed.address, 24) == model_bytes(GROUP, 24)[-24:]
            for refused in (view.numpy, lambda: views.whole):
                with pytest.raises(ConfigurationError, match="lie on the GPU"):
                    refused()
            with pytest.raises((ConfigurationError, SystemError)):
                memoryview(view)
            for choice in ({"max_version": None}, {"copy": True}, {"dl_device": (1, 0)}):
                with pytest.raises(BufferError):
                    view.__dlpack__(**{"max_version": (1, 1), **choice})
        with pytest.raises(InvalidInputError, match="after its execution"):
            view.__dlpack__(max_version=(1, 1))
        with pytest.raises(DeviceBusyError):
            here.manager.deallocate(shard)
        del capsule, handed
        here.manager.deallocate(shard)


def test_types_that_the_array_interface_lacks_go_through_dlpack(card: Card) -> None:
    """bf16 and the 8-bit floats: asking for the interface says that there is none."""
    from tests.model_files import safetensors_file

    header = {"b": {"dtype": "BF16", "shape": [2, 3], "data_offsets": [0, 12]}}
    with opened(card) as here:
        shard = here.manager.seal_model(safetensors_file(header, bytes(12)), format="safetensors")
        with here.manager.execution(shard) as views:
            view = views["b"]
            assert not hasattr(view, "__cuda_array_interface__")
            handed = dlpack.taken_from(view.__dlpack__(max_version=(1, 0)))
            assert (handed.dtype, handed.shape) == ("BF16", (2, 3))
            with pytest.raises(ConfigurationError, match="no type for BF16"):
                view._name_in("cupy", {})
        del handed


def test_an_approved_digest_is_compared_with_the_memory(card: Card) -> None:
    """In either algorithm; SHA-256 of the memory read back, piece after piece."""
    data = raw_bytes(2 * GROUP + 1)
    sha256 = f"sha256:{hashlib.sha256(data).hexdigest()}"
    with opened(card) as here:
        here.manager.seal_model(data, expect=sha256)
        shard = here.manager.seal_model(data, algorithm="sha256", expect=f"blake3:{blake3(data).hexdigest()}")
        assert shard.digest == sha256
        assert here.manager.verify_sealed(shard, scope=FAST).scope == "full"
        with pytest.raises(DigestMismatchError):
            here.manager.seal_model(data[:-1], expect=sha256)
        card.poke(here, shard, 2 * GROUP)
        assert damaged(here, shard).first_bad_offset == 2 * GROUP


def test_a_view_that_outlives_the_manager_keeps_the_memory_until_it_dies(card: Card) -> None:
    """Then it is wiped and given back, and recorded."""
    with VramManager.new_with_token(TOKEN, device=card.device) as manager:
        shard = manager.seal_model(raw_bytes(1000))
        with manager.execution(shard) as views:
            view = views.raw
            kept = view.__cuda_array_interface__
    assert card.driver.held[0] == UNIT
    assert ctypes.string_at(kept["data"][0], 1000) == raw_bytes(1000)
    del view, views
    gc.collect()


def test_a_failure_at_any_call_leaves_nothing(library: ctypes.CDLL) -> None:
    """Each call of seal and verification fails once, harmlessly or for good; nothing is held afterwards."""
    failed = 0
    for number in range(200):
        card = Card(library)
        with VramManager.new_with_token(TOKEN, device=card.device) as manager:
            card.driver.fail_at(number, "CUDA_ERROR_UNKNOWN")
            before = len(card.driver.calls)
            try:
                manager.verify_sealed(manager.seal_model(raw_bytes(GROUP + 1)))
            except ResidencyError:
                failed += 1
            made = len(card.driver.calls) - before
            is_release = card.driver.calls[before:][number : number + 1] == ["cuMemRelease"]
        gc.collect()
        if not is_release:  # a handle that the driver would not release is the driver's to keep
            card.require_nothing()
        if made <= number:
            break
    else:
        pytest.fail("there is no end to the calls")
    assert failed >= 10


def test_memory_that_is_full_is_told_with_figures(card: Card) -> None:
    """The card has less free than the budget thinks: another process is on it."""
    with opened(card) as here:
        card.driver.fail_at(2)
        with pytest.raises(InsufficientMemoryError) as caught:
            here.manager.seal_model(raw_bytes(2 * UNIT))
        assert caught.value.available_bytes == TOTAL
        assert here.only("vram_allocation_failed")["reason"] == "driver_error"
        here.require_untouched()


def test_a_lost_device_is_damage_and_says_so(card: Card) -> None:
    """What the driver no longer answers is no shard to serve from."""
    with opened(card) as here:
        shard = here.manager.seal_model(raw_bytes(1000))

        def lost(_launch: Any) -> None:
            raise DeviceLostError("cuda:0", "run kernels: cuLaunchKernel: CUDA_ERROR_ILLEGAL_ADDRESS")

        card.runner.launch = lost  # type: ignore[method-assign]
        error = damaged(here, shard)
        assert (error.reason, "ILLEGAL_ADDRESS" in error.finding) == ("read_error", True)


def test_a_swapped_mapping_is_found_before_a_byte_is_read(card: Card) -> None:
    """Another allocation behind the same address, or another device."""
    with opened(card) as here:
        shard = here.manager.seal_model(raw_bytes(1000))
        launched = len(card.runner.launched)
        card.driver.memory_changes = {"buffer_id": 99}
        error = damaged(here, shard)
        assert (error.reason, "something else is mapped" in error.finding) == ("not_resident", True)
        assert len(card.runner.launched) == launched
        card.driver.memory_changes = {}


def test_nothing_that_is_shown_or_kept_has_an_address(card: Card) -> None:
    """Not the handle, its pickle, its report, the log, the narration."""
    with opened(card) as here:
        shard = here.manager.seal_model(raw_bytes(MIB))
        address = here.record(shard).content._memory.open().address
        with here.manager.execution(shard) as views:
            shown = [repr(views), repr(views.raw), repr(here.record(shard).content)]
        shown += [repr(shard), str(pickle.dumps(shard)), str(here.manager.describe(shard))]
        shown += [str(here.log.recorded), str(here.story.events)]
        for text in shown:
            assert str(address) not in text
            assert f"{address:x}" not in text


def test_without_kernels_nothing_is_sealed_and_nothing_allocated(library: ctypes.CDLL) -> None:
    """What cannot be measured there is not brought there."""
    driver = SimulatedDriver(total_bytes=TOTAL, granularity_bytes=UNIT)
    with VramManager.new_with_token(TOKEN, device=CudaDevice(driver)) as manager:
        with pytest.raises(Exception, match="CUDA_ERROR_NOT_SUPPORTED"):
            manager.seal_model(b"x")
        assert driver.held == (0, 0, 0)
        assert manager.used_vram() == 0


def test_a_shard_is_lent_to_another_manager_and_verified_there(card: Card, library: ctypes.CDLL) -> None:
    """The same physical memory, read-only, measured by the borrower's own kernels; the loan's end ends it."""
    card.device = CudaDevice(card.driver, is_shareable=True)
    other, ended = Card(library), []
    log = MemoryLog()
    there = VramManager.new_with_token(TOKEN, audit_logger=log, device=other.device)
    with opened(card) as here, there:
        shard = here.manager.seal_model(raw_bytes(GROUP + 1))
        with here.manager.lend(shard, nonce="n" * 8, peer=Peer(1, 1), on_revoked=lambda _epoch: None) as loan:
            borrowed = there.seal_borrowed(
                loan.descriptor,
                size_bytes=shard.vram_bytes,
                ended=lambda: ended[0] if ended else None,
                expect=shard.digest,
            )
            assert there.used_vram() == 0
            for scope in (FULL, FAST, sample()):
                there.verify_sealed(borrowed, scope=scope)
            ended.append("the loan was revoked")
            with pytest.raises(SealVerificationError, match="the loan was revoked"):
                there.verify_sealed(borrowed)
            there.deallocate(borrowed)
            assert log.of_type("vram_deallocated")[0]["wiped"] is False
        here.manager.verify_sealed(shard)
    other.require_nothing()
