"""Every refusal of the policy through a manager, on recorded facts of cards. The kernels run on the CPU."""

from __future__ import annotations

import ctypes
import json
from pathlib import Path
from typing import Any

import pytest
from tests.kernels.cpu import CpuRunner
from tests.shards import TOKEN, WORKER, place, raw_bytes

from vram_residency import VramManager
from vram_residency.core.errors import (
    ConfigurationError,
    InvalidInputError,
    PolicyViolationError,
    SealVerificationError,
)
from vram_residency.device.cuda.device import CudaDevice
from vram_residency.device.cuda.simulated import SimulatedDriver
from vram_residency.policy.rules import Limits
from vram_residency.residency import ManagerOptions
from vram_residency.testing import MemoryLog

RECORDED = Path(__file__).parents[1] / "recorded_facts"
FACTS = {path.stem: json.loads(path.read_text("utf-8")) for path in sorted(RECORDED.glob("*.json"))}


def names(refused_at: str | None) -> list[str]:
    return [name for name, facts in FACTS.items() if facts["refused_at"] == refused_at]


class Card:
    """A device of which the driver says what was recorded."""

    def __init__(self, name: str, library: ctypes.CDLL) -> None:
        self.driver = SimulatedDriver(granularity_bytes=64 << 10, kernels=CpuRunner(library))
        self.driver.changes = FACTS[name]["device"]
        self.driver.memory_changes = FACTS[name]["memory"]
        self.device = CudaDevice(self.driver)


def test_each_file_says_where_its_facts_come_from() -> None:
    """Until a GPU was there they are written from documentation, and say so."""
    assert {facts["origin"].split(";")[0] for facts in FACTS.values()} == {
        "Written from NVIDIA's documentation"
    }
    assert all((facts["refused_at"] is None) == (facts["violation"] is None) for facts in FACTS.values())


@pytest.mark.parametrize("name", names(None))
def test_memory_that_does_not_move_is_sealed_under_the_strict_policy(name: str, library: ctypes.CDLL) -> None:
    """Heterogeneous memory management moves no such memory; MIG slices have a UUID of their own."""
    card = Card(name, library)
    with place(card.device) as here:
        shard = here.manager.seal_model(raw_bytes(1000))
        report = here.manager.describe(shard)
        assert report.residency["policy"] == {
            "name": "vram_only",
            "mode": "strict",
            "holds": True,
            "violations": [],
        }
        recorded = FACTS[name]
        assert report.statement.device_uuid == recorded["device"]["device_uuid"]
        assert recorded["device"].items() <= report.residency["device"].items()
        assert recorded["memory"].items() <= report.residency["facts"].items()
        here.manager.verify_sealed(shard)
    assert "policy_violation" not in here.events


@pytest.mark.parametrize("mode", [None, "strict", "development"], ids=str)
@pytest.mark.parametrize("name", names("start"))
def test_a_card_that_is_unfit_stops_the_worker(name: str, mode: Any, library: ctypes.CDLL) -> None:
    """In every mode: what development allows is an honest host, not a card that only seems fit."""
    card, log = Card(name, library), MemoryLog()
    with pytest.raises(PolicyViolationError) as caught:
        VramManager.new_with_token(TOKEN, 0, log, WORKER, device=card.device, policy=mode)
    assert caught.value.violation == FACTS[name]["violation"]
    (fields,) = log.of_type("policy_violation")
    assert (fields["violation"], fields["action_taken"]) == (FACTS[name]["violation"], "worker_stopped")
    assert card.driver.held == (0, 0, 0)


@pytest.mark.parametrize("name", names("seal"))
def test_memory_that_is_not_the_cards_own_is_refused_and_freed(name: str, library: ctypes.CDLL) -> None:
    """After it was measured, before anything is signed; wiped and given back."""
    card = Card(name, library)
    with place(card.device) as here:
        with pytest.raises(PolicyViolationError) as caught:
            here.manager.seal_model(raw_bytes(1000))
        assert caught.value.violation == FACTS[name]["violation"]
        assert here.only("policy_violation")["action_taken"] == "request_rejected"
        assert "cuMemsetD8" in card.driver.calls
        assert card.driver.held == (0, 0, 0)
        assert here.manager.used_vram() == 0


@pytest.mark.parametrize(
    ("name", "allowed"),
    [("mps", "allow_mps"), ("wsl", "allow_wsl"), ("virtual_gpu", "allow_virtual_gpu")],
)
def test_what_is_shared_or_virtual_can_be_allowed(name: str, allowed: str, library: ctypes.CDLL) -> None:
    """By a limit of its own each."""
    options = ManagerOptions(limits=Limits(**{allowed: True}))
    with VramManager.new_with_token(TOKEN, device=Card(name, library).device, options=options) as manager:
        manager.verify_sealed(manager.seal_model(raw_bytes(10)))


def test_a_card_that_becomes_unfit_is_refused_at_the_next_verification(library: ctypes.CDLL) -> None:
    """The device is judged at start, at each seal and at each verification."""
    card = Card("discrete", library)
    with place(card.device) as here:
        shard = here.manager.seal_model(raw_bytes(1000))
        card.driver.changes = FACTS["mps"]["device"]
        with pytest.raises(PolicyViolationError, match="MPS"):
            here.manager.verify_sealed(shard)


def test_memory_that_was_migrated_is_damage(library: ctypes.CDLL) -> None:
    """A checkpoint that was restored on another card: the UUID is read again."""
    card = Card("discrete", library)
    with place(card.device) as here:
        shard = here.manager.seal_model(raw_bytes(1000))
        card.driver.memory_changes = {**card.driver.memory_changes, "device_uuid": "GPU-other"}
        with pytest.raises(SealVerificationError, match="another device"):
            here.manager.verify_sealed(shard)


def test_the_number_in_seals_is_the_cards_own(library: ctypes.CDLL) -> None:
    """Whatever the default says; another number that was named is a contradiction."""
    driver = SimulatedDriver(granularity_bytes=64 << 10, ordinal=3, kernels=CpuRunner(library))
    with VramManager.new_with_token(TOKEN, device=CudaDevice(driver)) as manager:
        shard = manager.seal_model(raw_bytes(10))
        assert (shard.gpu_device, shard.worker_id) == (3, "worker-gpu-3")
        assert manager.verify_sealed(shard).scope == "full"
    for device in (CudaDevice(driver), "cuda:3"):
        with pytest.raises(InvalidInputError, match="is 2, and the device is number 3"):
            VramManager.new_with_token(TOKEN, 2, device=device)


def test_kernels_that_the_card_is_too_old_for_are_named_before_memory_is_taken(
    library: ctypes.CDLL, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The policy asks for 6.0, the kernels for 8.0."""
    card = Card("discrete", library)
    monkeypatch.setattr(card.driver, "runner", lambda cubin_for: cubin_for(7, 5))
    with VramManager.new_with_token(TOKEN, device=card.device) as manager:
        with pytest.raises(ConfigurationError, match=r"capability 7\.5, and the kernels need 8.0"):
            manager.seal_model(raw_bytes(10))
        assert card.driver.held == (0, 0, 0)


@pytest.mark.parametrize(
    ("errors", "clause"),
    [(0, "it looks like a write"), (2, "it looks like bit rot: since sealing uncorrected ECC errors \\+2")],
    ids=["write", "bit rot"],
)
def test_damage_is_told_with_what_the_cards_counters_say(
    errors: int, clause: str, library: ctypes.CDLL
) -> None:
    """They are read again on failure."""
    card = Card("discrete", library)
    with place(card.device) as here:
        shard = here.manager.seal_model(raw_bytes(1000))
        address = here.record(shard).content._memory.open().address
        card.driver.poke(address, b"other bytes")
        card.driver.changes = {**card.driver.changes, "ecc_uncorrected": errors}
        with pytest.raises(SealVerificationError, match=clause):
            here.manager.verify_sealed(shard)
