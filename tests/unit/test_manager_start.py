"""Starting a manager: everything is checked before the first effect, and the policy is judged first."""

from __future__ import annotations

from typing import Any

import pytest
from tests.shards import CAPACITY, TOKEN, WORKER, PretendCard, memfds, place, raw_bytes

from vram_residency import (
    ConfigurationError,
    DeviceLostError,
    InvalidInputError,
    PolicyViolationError,
    VramManager,
)
from vram_residency.device.host import HostDevice
from vram_residency.policy import Policy
from vram_residency.policy.rules import Limits
from vram_residency.residency import ManagerOptions, Scope, sample
from vram_residency.testing import MemoryLog, capture_narration


@pytest.mark.parametrize(
    ("change", "error", "rule"),
    [
        ({"worker_token": "too short"}, ConfigurationError, "fewer than 16"),
        ({"worker_token": "\ud800" * 20}, ConfigurationError, "not text"),
        ({"worker_token": None}, ConfigurationError, "not text"),
        ({"worker_id": "a worker"}, InvalidInputError, "worker_id"),
        ({"worker_id": ""}, InvalidInputError, "worker_id"),
        ({"worker_id": "a\n"}, InvalidInputError, "worker_id"),
        ({"gpu_device": -1}, InvalidInputError, "gpu_device"),
        ({"gpu_device": "0"}, InvalidInputError, "gpu_device"),
        ({"gpu_device": True}, InvalidInputError, "gpu_device"),
        ({"policy": "lenient"}, InvalidInputError, "strict or development"),
        ({"device": "tpu"}, ConfigurationError, "must be host, auto or cuda:N"),
        ({"device": "cuda:0"}, DeviceLostError, "is not usable"),
        ({"device": "cuda"}, DeviceLostError, "is not usable"),
        ({"options": {"capacity_bytes": 0}}, ConfigurationError, "capacity_bytes"),
        ({"options": {"capacity_bytes": 100, "headroom_bytes": 101}}, InvalidInputError, "headroom_bytes"),
    ],
)
def test_unsound_arguments_are_refused_and_leave_nothing(
    change: dict[str, Any], error: type[Exception], rule: str
):
    arguments: dict[str, Any] = {"worker_token": TOKEN, "device": "host", **change}
    if "options" in change:
        arguments["options"] = ManagerOptions(**change["options"])
    before = memfds()
    with pytest.raises(error, match=rule):
        VramManager.new_with_token(**arguments)
    assert memfds() == before


@pytest.mark.parametrize(
    "change", [{"enforcement": "enforced"}, {"enforcement": None}, {"gate_scope": "full"}]
)
def test_a_misspelt_option_never_means_a_weaker_gate(change: dict[str, Any]):
    with pytest.raises(ConfigurationError, match=next(iter(change))):
        ManagerOptions(**change)


@pytest.mark.parametrize(
    "fields",
    [("most",), ("sample",), ("full", 0.5), ("fast", None, 5), ("sample", float("nan")), ("sample", 0.5, 5)],
)
def test_a_scope_that_means_nothing_cannot_be_made(fields: tuple[Any, ...]):
    with pytest.raises(InvalidInputError, match="scope"):
        Scope(*fields)


def test_the_default_worker_id_names_the_gpu():
    with VramManager.new_with_token(TOKEN, 3, device="host") as manager:
        assert repr(manager) == "VramManager(worker_id='worker-gpu-3', device='host memory')"


@pytest.mark.parametrize("policy", ["strict", Policy(mode="strict"), Policy(mode="anything else")])  # type: ignore[arg-type]
def test_a_strict_policy_stops_the_worker_on_the_host(policy: Any):
    log, before = MemoryLog(), memfds()
    with capture_narration() as story, pytest.raises(PolicyViolationError, match="host_memory") as refused:
        VramManager.new_with_token(TOKEN, 0, log, WORKER, device="host", policy=policy)
    assert [each.event_type for each in log.recorded] == ["policy_violation"]
    (fields,) = log.of_type("policy_violation")
    assert (fields["policy"], fields["violation"]) == ("vram_only", "host_memory")
    assert (fields["severity"], fields["action_taken"]) == ("CRITICAL", "worker_stopped")
    assert [each.action for each in story.events] == ["policy_violation"]
    assert "development" in refused.value.hint
    assert memfds() == before


@pytest.mark.parametrize(
    ("fact", "violation"),
    [
        ({"integrated": True}, "integrated_device"),
        ({"total_bytes": 1}, "invalid_device_properties"),
        ({"mps": True}, "invalid_device_properties"),
        ({"wsl": True}, "unified_memory_detected"),
    ],
)
@pytest.mark.parametrize("mode", [None, "strict", "development"])
def test_a_gpu_that_is_unfit_is_refused_in_every_mode(fact: dict[str, Any], violation: str, mode: Any):
    with pytest.raises(PolicyViolationError, match=violation), place(PretendCard(**fact), policy=mode):
        raise AssertionError("it started")


@pytest.mark.parametrize(
    ("fact", "violation"),
    [
        ({"managed": True}, "managed_allocation"),
        ({"memory_type": "host"}, "host_memory"),
        ({"device_ordinal": 1}, "invalid_device_properties"),
        ({"kind": "memfd"}, "host_memory"),
    ],
)
def test_an_allocation_that_is_not_the_gpus_own_is_refused(fact: dict[str, Any], violation: str):
    with place(PretendCard()) as here:
        here.device.memory_changes = fact
        with pytest.raises(PolicyViolationError, match=violation):
            here.manager.seal_model(raw_bytes(1000))
        assert here.events == ["vram_allocated", "policy_violation", "vram_deallocated"]
        assert here.only("policy_violation")["action_taken"] == "request_rejected"
        here.require_untouched()


def test_host_arrays_cannot_be_adopted_as_memory_of_a_gpu():
    with place(PretendCard()) as here, pytest.raises(PolicyViolationError, match="host_memory"):
        here.manager.seal_tensors({"a": bytearray(10)})


def test_a_gpu_that_becomes_unfit_is_refused_at_the_next_seal_and_verification():
    with place(PretendCard()) as here:
        shard = here.manager.seal_model(raw_bytes(1000))
        here.device.changes = {"integrated": True}
        for act in (
            lambda: here.manager.seal_model(raw_bytes(1000)),
            lambda: here.manager.verify_sealed(shard),
            here.manager.enforce_vram_only_policy,
        ):
            with pytest.raises(PolicyViolationError, match="integrated_device"):
                act()
        found = here.log.of_type("policy_violation")
        assert [each["action_taken"] for each in found] == ["worker_stopped"] * 3


def test_require_lock_accepts_locked_pages_and_refuses_others():
    limits = Limits(require_lock=True)
    device = HostDevice(capacity_bytes=CAPACITY)
    with place(device, limits=limits) as here:
        shard = here.manager.seal_model(raw_bytes(1000))
        assert here.manager.describe(shard).residency["facts"]["locked"] is True
    with place(HostDevice(capacity_bytes=CAPACITY, lock=False), limits=limits) as here:
        with pytest.raises(PolicyViolationError, match="not_locked"):
            here.manager.seal_model(raw_bytes(1000))
        here.require_untouched()


def test_capacity_and_headroom_are_figures_of_one_instant():
    with place(headroom_bytes=1000) as here:
        here.manager.seal_model(raw_bytes(5000))
        capacity = here.manager.capacity()
        assert (capacity.total_bytes, capacity.used_bytes, capacity.headroom_bytes) == (CAPACITY, 5000, 1000)
        assert capacity.available_bytes == CAPACITY - 6000 == here.manager.available_vram()
        assert (here.manager.total_vram(), here.manager.used_vram()) == (CAPACITY, 5000)


def test_a_gate_scope_of_ones_own_is_what_the_gate_reads():
    with place(gate_scope=sample(bytes=1)) as here:
        shard = here.manager.seal_model(raw_bytes(1_000_000))
        with here.manager.execution(shard):
            pass
        fields = here.only("seal_verified")
        assert fields["scope"] == "sample"
        assert fields["bytes_checked"] <= 131_072


@pytest.mark.parametrize("device", [None, 1, b"host"])
def test_what_is_neither_a_name_nor_a_device_is_refused(device: Any):
    """A wrong type is an error of the caller's that says so."""
    with pytest.raises(InvalidInputError, match="device"):
        VramManager.new_with_token("t" * 32, device=device)
