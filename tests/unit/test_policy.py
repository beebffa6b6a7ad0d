"""The VRAM-only policy: every refusal, shown by facts alone (residency.md section 6)."""

from __future__ import annotations

import pytest

from vram_residency.policy import Policy, decide, judge_device, judge_memory
from vram_residency.policy.rules import GIB, Limits

GOOD_GPU = {
    "kind": "cuda",
    "integrated": False,
    "compute_capability": "9.0",
    "total_bytes": 141 * GIB,
    "mps": False,
    "wsl": False,
    "virtual_gpu": False,
}
GOOD_MEMORY = {"kind": "vmm", "memory_type": "device", "managed": False, "device_ordinal": 0}


def test_a_discrete_gpu_with_device_memory_breaks_no_rule():
    assert judge_device(GOOD_GPU, Limits()) == ()
    assert judge_memory(GOOD_MEMORY, Limits(), gpu_device=0) == ()


@pytest.mark.parametrize(
    ("change", "violation"),
    [
        ({"integrated": True}, "integrated_device"),
        ({"compute_capability": "5.2"}, "invalid_device_properties"),
        ({"compute_capability": "nonsense"}, "invalid_device_properties"),
        ({"total_bytes": GIB - 1}, "invalid_device_properties"),
        ({"mps": True}, "invalid_device_properties"),
        ({"virtual_gpu": True}, "invalid_device_properties"),
        ({"wsl": True}, "unified_memory_detected"),
    ],
)
def test_each_unfit_device_is_named(change: dict[str, object], violation: str):
    (finding,) = judge_device({**GOOD_GPU, **change}, Limits())
    assert finding.violation == violation


@pytest.mark.parametrize(
    ("change", "violation"),
    [
        ({"managed": True}, "managed_allocation"),
        ({"memory_type": "host"}, "host_memory"),
        ({"memory_type": None}, "host_memory"),
        ({"device_ordinal": 1}, "invalid_device_properties"),
    ],
)
def test_each_unfit_allocation_is_named(change: dict[str, object], violation: str):
    (finding,) = judge_memory({**GOOD_MEMORY, **change}, Limits(), gpu_device=0)
    assert finding.violation == violation


@pytest.mark.parametrize("fact", [fact for fact in GOOD_GPU if fact != "kind"])
def test_a_device_fact_that_could_not_be_read_never_passes(fact: str):
    facts = {key: value for key, value in GOOD_GPU.items() if key != fact}
    assert judge_device(facts, Limits())


@pytest.mark.parametrize("fact", ["memory_type", "managed", "device_ordinal"])
def test_a_memory_fact_that_could_not_be_read_never_passes(fact: str):
    facts = {key: value for key, value in GOOD_MEMORY.items() if key != fact}
    assert judge_memory(facts, Limits(), gpu_device=0)


def test_what_the_limits_allow_passes():
    shared = {**GOOD_GPU, "mps": True, "wsl": True, "virtual_gpu": True, "compute_capability": "5.2"}
    limits = Limits(allow_mps=True, allow_wsl=True, allow_virtual_gpu=True, compute_capability=(5, 0))
    assert judge_device(shared, limits) == ()


def test_the_host_device_breaks_the_policy_by_being_a_host():
    (finding,) = judge_device({"kind": "host"}, Limits())
    assert finding.violation == "host_memory"


def test_an_unlocked_host_shard_is_a_violation_only_where_locks_are_required():
    facts = {"kind": "memfd", "locked": False}
    assert judge_memory(facts, Limits(), gpu_device=0) == ()
    (finding,) = judge_memory(facts, Limits(require_lock=True), gpu_device=0)
    assert finding.violation == "not_locked"
    assert judge_memory({**facts, "locked": True}, Limits(require_lock=True), gpu_device=0) == ()


def test_strict_refuses_everything_and_development_tolerates_only_the_host():
    host = judge_device({"kind": "host"}, Limits())
    unlocked = judge_memory({"kind": "memfd"}, Limits(require_lock=True), gpu_device=0)
    integrated = judge_device({**GOOD_GPU, "integrated": True}, Limits())
    findings = host + unlocked + integrated
    assert decide(findings, Policy(mode="strict")).refused == findings
    verdict = decide(findings, Policy(mode="development"))
    assert verdict.tolerated == host
    assert verdict.refused == unlocked + integrated
