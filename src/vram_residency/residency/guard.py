"""The policy at work: facts are read, judged, and what follows is recorded (residency.md section 6)."""

from __future__ import annotations

import threading
from typing import Any

from vram_residency.core.errors import PolicyViolationError, ResidencyError
from vram_residency.device.base import Device, Facts
from vram_residency.policy import Finding, Policy, decide, judge_device, judge_memory
from vram_residency.policy.verdict import VRAM_ONLY
from vram_residency.residency.recorder import Recorder


class Guard:
    """Checks device and memory against one policy. A tolerated finding is recorded once per manager."""

    def __init__(self, device: Device, policy: Policy, recorder: Recorder, *, gpu_device: int) -> None:
        self._device = device
        self._policy = policy
        self._recorder = recorder
        self._gpu_device = gpu_device
        self._lock = threading.Lock()
        self._told: set[str] = set()  # under _lock

    def check_device(self, *, action_taken: str = "worker_stopped") -> None:
        """Judge the device as it is now. Raises PolicyViolationError after recording it."""
        self._follow(judge_device(self._device.facts(), self._policy.limits), action_taken)

    def check_memory(self, facts: Facts) -> None:
        """Judge one allocation. Raises PolicyViolationError after recording it."""
        self._follow(self._judge_memory(facts), "request_rejected")

    def device_facts(self) -> Facts:
        """What is said of the device now; nothing where it no longer answers."""
        try:
            return self._device.facts()
        except ResidencyError:
            return {}

    def residency(self, facts: Facts) -> dict[str, Any]:
        """The residency record: every fact that was read, and what the policy makes of them."""
        device_facts = self._device.facts()
        findings = judge_device(device_facts, self._policy.limits) + self._judge_memory(facts)
        return {
            "policy": {
                "name": VRAM_ONLY,
                "mode": self._policy.mode,
                "holds": not findings,
                "violations": [each.violation for each in findings],
            },
            "device": dict(device_facts),
            "facts": dict(facts),
        }

    def _judge_memory(self, facts: Facts) -> tuple[Finding, ...]:
        return judge_memory(
            facts,
            self._policy.limits,
            gpu_device=self._gpu_device,
            device_kind=self._device.info.kind,
        )

    def _follow(self, findings: tuple[Finding, ...], action_taken: str) -> None:
        verdict = decide(findings, self._policy)
        for finding in verdict.tolerated:
            if self._is_news(finding.violation):
                self._recorder.policy_violation(finding, action_taken="allowed_by_configuration")
        for finding in verdict.refused:
            self._recorder.policy_violation(finding, action_taken=action_taken)
        if verdict.refused:
            first = verdict.refused[0]
            raise PolicyViolationError(VRAM_ONLY, first.violation, first.details)

    def _is_news(self, violation: str) -> bool:
        with self._lock:
            is_news = violation not in self._told
            self._told.add(violation)
            return is_news
