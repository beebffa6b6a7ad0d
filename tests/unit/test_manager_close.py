"""The end: everything is freed and audited once, never from under a view, and nothing is raised."""

from __future__ import annotations

import gc
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from tests.shards import CAPACITY, TOKEN, WORKER, Place, mapped_memfds, memfds, place, raw_bytes

from vram_residency import DeviceBusyError, InvalidInputError, UnknownShardError, VramManager
from vram_residency.device.host import HostDevice
from vram_residency.testing import FaultDevice, MemoryLog


@contextmanager
def settling() -> Iterator[None]:
    """Wait, at the end, for the threads that settle what was freed late."""
    before = set(threading.enumerate())
    yield
    for thread in set(threading.enumerate()) - before:
        thread.join(60)
        assert not thread.is_alive()


def test_deallocating_is_audited_with_the_figures_after_it():
    with place() as here:
        first, second = (here.manager.seal_model(raw_bytes(size)) for size in (1000, 500))
        here.manager.deallocate(first)
        fields = here.only("vram_deallocated")
        assert (fields["shard_id"], fields["freed_bytes"]) == (first.shard_id, 1000)
        assert (fields["remaining_used"], fields["wiped"]) == (500, False)
        with pytest.raises(UnknownShardError):
            here.manager.deallocate(first)
        assert here.manager.shards() == [second]
        assert len(here.log.of_type("vram_deallocated")) == 1


def test_a_forged_handle_frees_nothing():
    from tests.shards import altered

    with place() as here:
        shard = here.manager.seal_model(raw_bytes(1000))
        with pytest.raises(UnknownShardError):
            here.manager.deallocate(altered(shard, vram_bytes=1))
        here.manager.verify_sealed(shard)


def test_closing_frees_and_audits_each_shard_once_and_may_be_said_twice():
    mapped = mapped_memfds()
    with place() as here:
        for seed in range(3):
            here.manager.seal_model(raw_bytes(1000, seed))
        here.manager.close()
        here.manager.close()
        assert [each["remaining_used"] for each in here.log.of_type("vram_deallocated")] == [2000, 1000, 0]
        here.require_untouched()
        assert mapped_memfds() <= mapped


@pytest.mark.parametrize(
    "use",
    [
        lambda here: here.manager.seal_model(b"bytes"),
        lambda here: here.manager.verify_sealed("m"),
        lambda here: here.manager.deallocate("m"),
        lambda here: here.manager.describe("m"),
        lambda here: here.manager.scrub(),
        lambda here: here.manager.attest("m", nonce="n"),
        lambda here: here.manager.enforce_vram_only_policy(),
    ],
)
def test_a_closed_manager_refuses_work(use: Any):
    with place() as here:
        here.manager.close()
        with pytest.raises(InvalidInputError, match="closed"):
            use(here)


def test_closing_beside_a_live_view_frees_and_audits_when_it_dies():
    mapped = mapped_memfds()
    data = raw_bytes(1000)
    with place() as here, settling():
        shard = here.manager.seal_model(data, shard_id="viewed")
        here.manager.seal_model(data, shard_id="idle")
        with here.manager.execution(shard) as views:
            kept = views.whole
        here.manager.close()
        assert [each["shard_id"] for each in here.log.of_type("vram_deallocated")] == ["idle"]
        assert bytes(kept) == data
        assert here.manager.used_vram() == 1000
        del kept
    last = here.log.of_type("vram_deallocated")[-1]
    assert (last["shard_id"], last["remaining_used"]) == ("viewed", 0)
    assert mapped_memfds() <= mapped


def test_closing_inside_a_block_lets_the_block_end_with_all_its_rights():
    data = raw_bytes(1000)
    with place() as here, settling():
        shard = here.manager.seal_model(data, shard_id="m")
        with here.manager.execution(shard, recheck=True) as views:
            here.manager.close()
            assert bytes(views.whole) == data
        # The recheck found sound memory: closing is no damage.
    assert here.log.of_type("seal_verification_failed") == []
    assert len(here.log.of_type("seal_verified")) == 2
    assert here.only("vram_deallocated")["shard_id"] == "m"


def test_a_seal_that_is_under_way_while_the_manager_closes_leaves_nothing():
    with place() as here:
        with pytest.raises(InvalidInputError, match="closed"):
            here.manager.seal_model(raw_bytes(5000), on_progress=lambda _done, _total: here.manager.close())
        here.require_untouched()
        assert here.events[-2:] == ["vram_allocated", "vram_deallocated"]


def test_a_manager_that_is_dropped_frees_and_audits_all_the_same():
    before, log = memfds(), MemoryLog()
    manager = VramManager.new_with_token(TOKEN, 0, log, WORKER, device=HostDevice(capacity_bytes=CAPACITY))
    manager.seal_model(raw_bytes(1000))
    manager.scrub(interval_s=3600)
    with settling():
        del manager
        gc.collect()
    assert [each.event_type for each in log.recorded][-1] == "vram_deallocated"
    assert memfds() == before


def test_a_dropped_manager_never_waits_for_a_lock_that_its_own_thread_holds():
    """A garbage collection can run in the middle of anything, the audit log's own code included."""
    log = MemoryLog()
    manager = VramManager.new_with_token(TOKEN, 0, log, WORKER, device=HostDevice(capacity_bytes=CAPACITY))
    manager.seal_model(raw_bytes(1000))
    with settling(), log._events_lock:
        del manager
        gc.collect()
    assert log.of_type("vram_deallocated")[0]["freed_bytes"] == 1000


def test_a_driver_that_fails_to_free_says_so_and_keeps_the_shard():
    with place() as here:
        shard = here.manager.seal_model(raw_bytes(1000))
        here.device.fail_next("free", DeviceBusyError(shard.shard_id, "the driver says so"))
        with pytest.raises(DeviceBusyError, match="driver"):
            here.manager.deallocate(shard)
        assert here.log.of_type("vram_deallocated") == []
        here.manager.verify_sealed(shard)
        here.manager.deallocate(shard)
        here.require_untouched()


@pytest.mark.parametrize("error", [OSError(5, "Input/output error"), RuntimeError("a bug")])
def test_closing_never_raises_even_where_freeing_fails(error: Exception):
    with place() as here, settling():
        shard = here.manager.seal_model(raw_bytes(1000))
        here.device.fail_next("free", error)
        here.manager.close()
    assert here.only("vram_deallocated")["shard_id"] == shard.shard_id


def test_each_event_of_a_shards_life_stands_in_the_log_once():
    with place() as here:
        shard = here.manager.seal_model(raw_bytes(1000))
        here.manager.verify_sealed(shard)
        here.manager.deallocate(shard)
    assert here.events == [
        "policy_violation", "vram_allocated", "vram_sealed", "seal_verified", "vram_deallocated",
    ]  # fmt: skip


def test_freeing_waits_for_a_verification_under_way(monkeypatch: pytest.MonkeyPatch):
    """Otherwise the verification would find memory gone and raise a false alarm."""
    from vram_residency.residency.owned import OwnedContent

    reading, release = threading.Event(), threading.Event()
    original = OwnedContent.digest

    def slow(self: OwnedContent, *arguments: Any) -> str:
        reading.set()
        assert release.wait(60)
        return original(self, *arguments)

    with place() as here:
        shard = here.manager.seal_model(raw_bytes(1000))
        monkeypatch.setattr(OwnedContent, "digest", slow)
        verifying = threading.Thread(target=here.manager.verify_sealed, args=(shard,))
        verifying.start()
        assert reading.wait(60)
        freeing = threading.Thread(target=here.manager.deallocate, args=(shard,))
        freeing.start()
        release.set()
        verifying.join(60)
        freeing.join(60)
        assert here.events[-2:] == ["seal_verified", "vram_deallocated"]
        here.require_untouched()


def freed_in_a_race(here: Place) -> list[BaseException]:
    shard, errors = here.manager.seal_model(raw_bytes(200_000)), []

    def verify() -> None:
        try:
            for _ in range(50):
                here.manager.verify_sealed(shard)
        except BaseException as error:  # noqa: BLE001 - whatever it is, the test looks at it
            errors.append(error)

    threads = [threading.Thread(target=verify) for _ in range(2)]
    for thread in threads:
        thread.start()
    here.manager.deallocate(shard)
    for thread in threads:
        thread.join()
    return errors


def test_freeing_beside_verifications_never_raises_a_false_alarm():
    with place() as here:
        for _ in range(10):
            assert {type(error) for error in freed_in_a_race(here)} <= {UnknownShardError}
        assert "shard_quarantined" not in here.events
        here.require_untouched()


def test_a_device_that_was_handed_in_is_closed_with_the_manager():
    device = FaultDevice(capacity_bytes=CAPACITY)
    VramManager.new_with_token(TOKEN, device=device).close()
    with pytest.raises(Exception, match="closed"):
        device.allocate(10, label="late")
