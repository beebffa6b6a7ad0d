"""The seven emit functions of the user's documents (api.md)."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from vram_residency import audit
from vram_residency.audit import events as e

SHARD = SimpleNamespace(shard_id="s-1", gpu_device=0, vram_bytes=42, digest="blake3:ab", model_ref=None)


class _Recorder:
    def __init__(self) -> None:
        self.events: list[e.Event] = []

    def emit(self, event: e.Event, /, *, durable: bool = False) -> None:
        self.events.append(event)


@pytest.mark.parametrize(
    ("name", "arguments", "expected"),
    [
        (
            "emit_vram_sealed",
            {"shard": SHARD, "worker_id": "w"},
            e.VramSealed(shard_id="s-1", gpu_device=0, vram_bytes=42, digest="blake3:ab", worker_id="w"),
        ),
        (
            "emit_seal_verified",
            {"shard": SHARD, "worker_id": "w"},
            e.SealVerified(shard_id="s-1", worker_id="w", digest="blake3:ab"),
        ),
        (
            "emit_seal_verification_failed",
            {"shard": SHARD, "reason": "r", "expected_digest": "a", "actual_digest": "b", "worker_id": "w"},
            e.SealVerificationFailed(
                shard_id="s-1",
                reason="r",
                expected_digest="a",
                actual_digest="b",
                worker_id="w",
                severity="CRITICAL",
            ),
        ),
        (
            "emit_vram_allocated",
            {
                "requested_bytes": 1,
                "allocated_bytes": 2,
                "available_bytes": 3,
                "used_bytes": 4,
                "gpu_device": 5,
                "worker_id": "w",
            },
            e.VramAllocated(
                requested_bytes=1,
                allocated_bytes=2,
                available_bytes=3,
                used_bytes=4,
                gpu_device=5,
                worker_id="w",
            ),
        ),
        (
            "emit_vram_allocation_failed",
            {"requested_bytes": 1, "available_bytes": 2, "reason": "r", "gpu_device": 3, "worker_id": "w"},
            e.VramAllocationFailed(
                requested_bytes=1, available_bytes=2, reason="r", gpu_device=3, worker_id="w"
            ),
        ),
        (
            "emit_vram_deallocated",
            {"shard_id": "s", "freed_bytes": 1, "remaining_used": 2, "gpu_device": 3, "worker_id": "w"},
            e.VramDeallocated(shard_id="s", freed_bytes=1, remaining_used=2, gpu_device=3, worker_id="w"),
        ),
        (
            "emit_policy_violation",
            {"violation": "v", "details": "d", "severity": "CRITICAL", "action_taken": "a", "worker_id": "w"},
            e.PolicyViolation(
                policy="vram_only",
                violation="v",
                details="d",
                severity="CRITICAL",
                worker_id="w",
                action_taken="a",
            ),
        ),
    ],
)
def test_a_helper_emits_its_event_by_position_and_by_keyword(
    name: str, arguments: dict[str, Any], expected: e.Event
) -> None:
    recorder = _Recorder()
    helper = getattr(audit, name)
    helper(recorder, **arguments)
    helper(recorder, *arguments.values())
    assert recorder.events == [expected, expected]
    e.validate(expected)


def test_the_package_gives_its_public_names_and_no_others() -> None:
    assert set(audit.__all__) <= set(dir(audit))
    for name in audit.__all__:
        assert getattr(audit, name) is not None
    with pytest.raises(AttributeError, match="no attribute"):
        _ = audit.nonsense  # type: ignore[attr-defined]
