"""Many threads, asyncio, and the scrubber beside them."""

from __future__ import annotations

import asyncio
import random
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest
from tests.audit_logs import ManualClock
from tests.shards import MIB, place, raw_bytes

from vram_residency import BufferFullError, InsufficientMemoryError, InvalidInputError, UnknownShardError
from vram_residency.core import context


def wait_until(condition: Callable[[], object]) -> None:
    """Poll for what another thread does; the limit is for a broken test alone."""
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline, "it never happened"
        threading.Event().wait(0.001)


def test_threads_that_seal_verify_execute_and_free_leave_every_account_balanced():
    errors: list[BaseException] = []

    def live(here: Any, seed: int) -> None:
        chance = random.Random(seed)
        try:
            for turn in range(15):
                data = raw_bytes(chance.randrange(10_000, 3 * MIB), seed)
                try:
                    shard = here.manager.seal_model(data, shard_id=f"s-{seed}-{turn}")
                except InsufficientMemoryError:
                    continue
                here.manager.verify_sealed(shard, scope=chance.choice(["full", "sample"]))
                with here.manager.execution(shard) as views:
                    assert views.whole[:100] == data[:100]
                here.manager.deallocate(shard)
        except BaseException as error:  # noqa: BLE001 - whatever it is, the test looks at it
            errors.append(error)

    with place() as here:
        threads = [threading.Thread(target=live, args=(here, seed)) for seed in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert errors == []
        here.require_untouched()
        sealed = here.log.of_type("vram_sealed")
        assert len(sealed) == len(here.log.of_type("vram_deallocated")) > 0
        assert {each["shard_id"] for each in sealed} == {
            each["shard_id"] for each in here.log.of_type("vram_deallocated")
        }
        assert all(each["used_bytes"] <= 16 * MIB for each in here.log.of_type("vram_allocated"))


def test_one_id_claimed_by_many_threads_is_given_once():
    won: list[Any] = []
    start = threading.Barrier(6)

    def claim(here: Any) -> None:
        start.wait()
        try:
            won.append(here.manager.seal_model(raw_bytes(1000), shard_id="same"))
        except Exception:  # noqa: BLE001 - the losers are counted below
            return

    with place() as here:
        threads = [threading.Thread(target=claim, args=(here,)) for _ in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(won) == 1 == len(here.manager.shards())
        here.manager.verify_sealed("same")


def test_every_call_works_in_asyncio_by_way_of_threads():
    async def work(here: Any) -> None:
        context.correlation_id.set("req-async")  # type: ignore[arg-type]
        shard = await asyncio.to_thread(here.manager.seal_model, raw_bytes(1000))
        await asyncio.to_thread(here.manager.verify_sealed, shard)
        block = here.manager.execution(shard, recheck=True)
        views = await asyncio.to_thread(block.__enter__)
        assert len(views.whole) == 1000
        await asyncio.to_thread(block.__exit__, None, None, None)
        await asyncio.to_thread(here.manager.deallocate, shard)

    with place() as here:
        asyncio.run(work(here))
        assert here.events[1:] == [
            "vram_allocated", "vram_sealed", "seal_verified", "seal_verified", "seal_verified",
            "vram_deallocated",
        ]  # fmt: skip
        assert {each.correlation_id for each in here.log.recorded[1:]} == {"req-async"}
        assert {each.correlation_id for each in here.story.events if each.action == "seal"} == {"req-async"}


def test_operations_without_a_request_get_ids_of_their_own_that_end_with_them():
    with place() as here:
        here.manager.seal_model(raw_bytes(1000), shard_id="m")
        here.manager.verify_sealed("m")
        assert context.correlation_id.get() is None
        ids = {each.correlation_id for each in here.log.recorded}
        assert len(ids) == 3


def test_the_scrubber_verifies_what_is_due_and_finds_damage():
    with place() as here:
        good = here.manager.seal_model(raw_bytes(1000, 1), shard_id="good")
        bad = here.manager.seal_model(raw_bytes(1000, 2), shard_id="bad")
        here.device.flip_bit("bad", 7)
        before = here.manager.describe(good).fully_verified_at
        scrubber = here.manager.scrub(interval_s=0.001, share=1.0)
        wait_until(lambda: here.manager.describe(bad).state == "quarantined")
        wait_until(lambda: here.manager.describe(good).fully_verified_at > before)
        scrubber.stop()
        assert here.only("seal_verification_failed")["shard_id"] == "bad"
        told = len(here.log.of_type("seal_verified"))
        assert told > 0
        threading.Event().wait(0.02)
        assert len(here.log.of_type("seal_verified")) == told


def test_the_scrubber_leaves_alone_what_is_not_due():
    clock = ManualClock()
    with place(clock=clock) as here:
        here.manager.seal_model(raw_bytes(1000))
        scrubber = here.manager.scrub(interval_s=60, share=1.0)
        clock.advance(59)
        threading.Event().wait(0.05)
        assert here.log.of_type("seal_verified") == []
        clock.advance(2)
        wait_until(lambda: here.log.of_type("seal_verified"))
        scrubber.stop()


def test_a_scrubber_whose_verifications_cannot_be_recorded_goes_on_without_flooding():
    clock = ManualClock()
    with place(clock=clock, audit_required=True) as here:
        here.manager.seal_model(raw_bytes(1000))
        here.log.fail_with(BufferFullError(10))
        clock.advance(61)
        scrubber = here.manager.scrub(interval_s=60, share=1.0)
        wait_until(lambda: here.manager.audit_failures)
        threading.Event().wait(0.05)
        assert here.manager.audit_failures == 1
        here.log.fail_with(None)
        clock.advance(61)
        wait_until(lambda: here.log.of_type("seal_verified"))
        scrubber.stop()


def test_a_shard_can_be_freed_while_it_is_scrubbed():
    with place() as here:
        here.manager.scrub(interval_s=0.000_001, share=1.0)
        for seed in range(20):
            here.manager.deallocate(here.manager.seal_model(raw_bytes(300_000, seed)))
        here.require_untouched()
        assert "shard_quarantined" not in here.events


@pytest.mark.parametrize(("interval_s", "share"), [(0, 0.5), (-1, 0.5), (1, 0), (1, 1.1)])
def test_a_scrubber_that_makes_no_sense_is_refused(interval_s: float, share: float):
    with place() as here, pytest.raises(InvalidInputError, match=r"interval_s|share"):
        here.manager.scrub(interval_s=interval_s, share=share)


def test_a_handle_that_is_resealed_meanwhile_is_refused_not_condemned():
    with place() as here:
        tensor = bytearray(1000)
        shard = here.manager.seal_tensors({"t": tensor}, shard_id="t")
        record = here.record(shard)
        tensor[0] = 1
        here.manager.reseal(shard, reason="changed")
        with pytest.raises(UnknownShardError):
            here.manager._parts.verifier.verify(record, here.manager._gate_scope())
        assert here.only("seal_verification_failed")["reason"] == "unknown_shard"
        assert "shard_quarantined" not in here.events
