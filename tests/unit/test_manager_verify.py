"""Verification: four steps, stated scopes, and the difference between damage and a bad handle."""

from __future__ import annotations

import os
from typing import Any

import msgspec
import pytest
from tests.shards import GROUP, MIB, Place, altered, place, raw_bytes

from vram_residency import (
    InvalidInputError,
    NotSealedError,
    SealedShard,
    SealVerificationError,
    UnknownShardError,
)
from vram_residency.core.clock import parse_rfc3339
from vram_residency.residency import FAST, FULL, sample


def damaged(here: Place, handle: Any, **choices: Any) -> SealVerificationError:
    """The error of a verification that must find damage."""
    with pytest.raises(SealVerificationError) as caught:
        here.manager.verify_sealed(handle, **choices)
    return caught.value


def verify_often(here: Place, shard: SealedShard) -> None:
    for _ in range(60):
        here.manager.verify_sealed(shard, scope=sample(0.5))


@pytest.mark.parametrize("scope", ["full", "fast", FULL, FAST])
def test_full_and_fast_read_every_byte_on_the_host(scope: Any):
    with place() as here:
        shard = here.manager.seal_model(raw_bytes(300_000))
        result = here.manager.verify_sealed(shard, scope=scope)
        assert (result.scope, result.bytes_checked, result.miss_probability) == ("full", 300_000, 0.0)
        assert result.requested_scope == (scope if isinstance(scope, str) else scope.kind)
        assert (result.shard_id, result.digest) == (shard.shard_id, shard.digest)
        assert result.residency == here.manager.describe(shard).residency
        assert parse_rfc3339(shard.sealed_at) <= parse_rfc3339(result.read_from)
        assert parse_rfc3339(result.read_from) <= parse_rfc3339(result.read_to)
        fields = here.only("seal_verified")
        assert (fields["scope"], fields["bytes_checked"], fields["digest"]) == ("full", 300_000, shard.digest)


@pytest.mark.parametrize(
    ("scope", "groups", "missed"),
    [(sample(0.25), 3, 0.7), (sample(bytes=GROUP + 1), 2, 0.8), (sample(1.0), 10, 0.0), (sample(), 10, 0.0)],
)
def test_a_sample_states_what_it_read_and_may_have_missed(scope: Any, groups: int, missed: float):
    with place() as here:
        shard = here.manager.seal_model(raw_bytes(10 * GROUP))
        result = here.manager.verify_sealed(shard, scope=scope)
        assert (result.scope, result.bytes_checked) == ("sample", groups * GROUP)
        assert result.miss_probability == pytest.approx(missed)


def test_a_sample_catches_damage_in_a_group_that_is_drawn_and_only_there(monkeypatch: pytest.MonkeyPatch):
    with place() as here:
        shard = here.manager.seal_model(raw_bytes(10 * GROUP))
        here.device.flip_bit(shard.shard_id, 7 * GROUP + 5)
        name = "vram_residency.residency.verifier.sample_groups"
        monkeypatch.setattr(name, lambda _total, _count, _rng: [0, 6, 8])
        here.manager.verify_sealed(shard, scope=sample(0.3))
        monkeypatch.setattr(name, lambda _total, _count, _rng: [1, 7, 9])
        error = damaged(here, shard, scope=sample(0.3))
        assert (error.first_bad_offset, error.last_bad_offset) == (7 * GROUP, 8 * GROUP - 1)


def test_the_groups_of_a_sample_are_not_known_beforehand():
    with place() as here:
        shard = here.manager.seal_model(raw_bytes(64 * GROUP))
        here.device.flip_bit(shard.shard_id, 0)
        # Blind damage of one group in 64, half of them read: missed 60 times in a row once in 2**60.
        with pytest.raises(SealVerificationError):
            verify_often(here, shard)


@pytest.mark.parametrize("scope", ["", "FULL", "sampled", None, 5])
def test_an_unknown_scope_is_refused_without_a_change_of_state(scope: Any):
    with place() as here:
        shard = here.manager.seal_model(raw_bytes(1000))
        with pytest.raises(InvalidInputError, match="scope"):
            here.manager.verify_sealed(shard, scope=scope)
        here.manager.verify_sealed(shard)


def test_damage_in_several_places_is_told_as_ranges():
    with place() as here:
        shard = here.manager.seal_model(raw_bytes(10 * GROUP))
        for offset in (0, GROUP, 5 * GROUP, 10 * GROUP - 1):
            here.device.flip_bit(shard.shard_id, offset)
        error = damaged(here, shard)
        assert error.finding == f"3 damaged ranges in bytes 0 to {10 * GROUP - 1}"
        assert (error.first_bad_offset, error.last_bad_offset) == (0, 10 * GROUP - 1)


def test_the_log_names_at_most_64_damaged_tensors():
    from tests.shards import model_bytes

    with place() as here:
        shard = here.manager.seal_model(model_bytes(*[10] * 200), format="safetensors")
        here.device.write(shard.shard_id, shard.vram_bytes - 2000, bytes(2000))
        error = damaged(here, shard)
        assert len(error.tensors) == 64 == len(here.only("seal_verification_failed")["tensors"])


def test_damage_is_fatal_and_its_error_survives_pickling():
    import pickle

    with place() as here:
        shard = here.manager.seal_model(raw_bytes(1000))
        here.device.flip_bit(shard.shard_id, 0)
        error = damaged(here, shard)
        again = pickle.loads(pickle.dumps(error))
        assert (str(again), again.first_bad_offset, again.expected_digest) == (str(error), 0, shard.digest)
        assert "forensics" in error.hint


def test_damage_to_one_shard_leaves_the_others_alone():
    with place() as here:
        first, second = (here.manager.seal_model(raw_bytes(1000, seed)) for seed in (1, 2))
        here.device.flip_bit(first.shard_id, 0)
        damaged(here, first)
        here.manager.verify_sealed(second)
        assert [here.manager.describe(each).state for each in (first, second)] == ["quarantined", "sealed"]
        assert len(here.manager.shards()) == 2


def test_a_quarantined_shard_can_be_freed_and_stays_countable_until_then():
    with place() as here:
        shard = here.manager.seal_model(raw_bytes(1000))
        here.device.flip_bit(shard.shard_id, 0)
        damaged(here, shard)
        assert here.manager.used_vram() == 1000
        here.manager.deallocate(shard)
        here.require_untouched()
        with pytest.raises(UnknownShardError):
            here.manager.verify_sealed(shard)


def test_a_changed_bit_that_changes_back_is_no_longer_handed_out():
    with place() as here:
        shard = here.manager.seal_model(raw_bytes(1000))
        here.device.flip_bit(shard.shard_id, 3)
        damaged(here, shard)
        here.device.flip_bit(shard.shard_id, 3)
        with pytest.raises(NotSealedError, match="quarantined"), here.manager.execution(shard):
            raise AssertionError("it was handed out")


def test_a_descriptor_that_names_another_file_is_caught():
    with place() as here:
        shard = here.manager.seal_model(raw_bytes(1000))
        fd = here.record(shard).content._memory._file.fd
        kept = os.dup(fd)
        other = os.memfd_create("other")
        try:
            os.dup2(other, fd)
            error = damaged(here, shard)
        finally:
            os.dup2(kept, fd)
            os.close(kept)
            os.close(other)
        assert error.reason == "not_resident"
        assert "descriptor" in error.finding


def test_a_lock_that_is_lost_is_caught():
    import ctypes

    from vram_residency.device.kernel import PAGE_BYTES

    with place() as here:
        shard = here.manager.seal_model(raw_bytes(1000))
        assert here.manager.describe(shard).residency["facts"]["locked"] is True
        address = here.record(shard).content._memory._region._address
        assert ctypes.CDLL(None).munlock(ctypes.c_void_p(address), ctypes.c_size_t(PAGE_BYTES)) == 0
        error = damaged(here, shard)
        assert error.reason == "not_resident"
        assert "lock" in error.finding


class Impostor(SealedShard, frozen=True):
    """A handle with its own idea of equality."""

    def __eq__(self, other: object) -> bool:
        return True

    def __ne__(self, other: object) -> bool:
        return False

    def __hash__(self) -> int:
        return 0


def use_handle(here: Place, use: str, handle: SealedShard) -> None:
    choices = {"reseal": {"reason": "r"}, "attest": {"nonce": "n"}}.get(use, {})
    result = getattr(here.manager, use)(handle, **choices)
    if use == "execution":
        with result:
            raise AssertionError("it was handed out")


@pytest.mark.parametrize("use", ["verify_sealed", "deallocate", "describe", "execution", "reseal", "attest"])
def test_a_handle_that_only_pretends_to_be_equal_is_refused_everywhere(use: str):
    with place() as here:
        shard = here.manager.seal_model(raw_bytes(1000))
        forged = Impostor(
            shard_id=shard.shard_id,
            gpu_device=0,
            vram_bytes=1,
            digest="blake3:",
            sealed_at=shard.sealed_at,
            worker_id=shard.worker_id,
        )
        with pytest.raises(UnknownShardError):
            use_handle(here, use, forged)
        assert here.only("seal_verification_failed")["reason"] == "signature_invalid"
        here.manager.verify_sealed(shard)


@pytest.mark.parametrize("handle", [None, 5, b"shard", {"shard_id": "x"}, object()])
def test_what_is_no_handle_at_all_is_refused(handle: Any):
    with place() as here, pytest.raises(InvalidInputError, match="SealedShard or its id"):
        here.manager.verify_sealed(handle)


@pytest.mark.parametrize("shard_id", [[], {}, None, 5])
def test_a_handle_with_an_impossible_id_is_refused_and_audited(shard_id: Any):
    with place() as here:
        shard = here.manager.seal_model(raw_bytes(1000))
        with pytest.raises(UnknownShardError):
            here.manager.verify_sealed(altered(shard, shard_id=shard_id))
        fields = here.only("seal_verification_failed")
        assert (fields["reason"], fields["shard_id"]) == ("unknown_shard", type(shard_id).__name__)


def test_a_handle_of_another_manager_is_unknown_here():
    with place() as there:
        shard = there.manager.seal_model(raw_bytes(1000), shard_id="same")
    with place() as here:
        mine = here.manager.seal_model(raw_bytes(1000), shard_id="same")
        assert mine.digest == shard.digest
        with pytest.raises(UnknownShardError):
            here.manager.verify_sealed(shard)


def test_a_seal_cannot_be_moved_to_another_shard():
    with place() as here:
        first, second = (here.manager.seal_model(raw_bytes(MIB, seed)) for seed in (1, 2))
        one, two = here.record(first), here.record(second)
        two.statement, two.signature = one.statement, one.signature
        assert damaged(here, second).reason == "signature_invalid"


def test_a_shard_can_be_named_by_its_id_alone():
    with place() as here:
        shard = here.manager.seal_model(raw_bytes(1000), shard_id="by-name")
        assert here.manager.verify_sealed("by-name").digest == shard.digest


def test_verifications_are_told_at_info_and_those_of_the_gate_at_debug():
    with place() as here:
        shard = here.manager.seal_model(raw_bytes(1000))
        here.manager.verify_sealed(shard)
        with here.manager.execution(shard):
            pass
        assert [each.level for each in here.story.events if each.action == "verify"] == ["info", "debug"]


def test_describe_tells_when_a_shard_was_last_wholly_verified():
    with place() as here:
        shard = here.manager.seal_model(raw_bytes(1000))
        sealed = here.manager.describe(shard).fully_verified_at
        here.manager.verify_sealed(shard, scope="sample")
        assert here.manager.describe(shard).fully_verified_at == sealed
        here.manager.verify_sealed(shard)
        assert parse_rfc3339(here.manager.describe(shard).fully_verified_at) > parse_rfc3339(sealed)


def test_what_is_done_to_a_handle_does_not_reach_the_managers_own_record():
    """A frozen field can be overwritten by force; that is a forged handle, and no damage to the shard."""
    with place() as here:
        shard = here.manager.seal_model(raw_bytes(1000))
        intact = here.manager.shards()[0]
        for field, value in [("path", "/etc/passwd"), ("digest", "blake3:" + "0" * 64), ("shard_id", "x")]:
            msgspec.structs.force_setattr(shard, field, value)
            with pytest.raises(UnknownShardError):
                here.manager.verify_sealed(shard)
        assert here.manager.shards() == [intact]
        here.manager.verify_sealed(intact.shard_id)


class _EqualToAll(str):
    __slots__ = ()

    def __eq__(self, other: object) -> bool:
        return True

    def __hash__(self) -> int:
        return super().__hash__()


def test_a_field_that_only_pretends_to_be_equal_is_refused():
    """Fields are compared by what they hold: 1000.0 is not the 1000 that was sealed either."""
    with place() as here:
        shard = here.manager.seal_model(raw_bytes(1000))
        for change in ({"digest": _EqualToAll("no")}, {"vram_bytes": 1000.0}, {"tensors": object()}):
            with pytest.raises(UnknownShardError):
                here.manager.verify_sealed(altered(shard, **change))


def test_an_unknown_id_of_any_size_makes_a_short_error_on_one_line():
    """The id is told as evidence, but an error message is no place for megabytes."""
    with place() as here, pytest.raises(UnknownShardError, match="no shard") as refused:
        here.manager.verify_sealed("x\n" * 1_000_000)
    assert len(str(refused.value)) < 2000
    assert str(refused.value).isprintable()
