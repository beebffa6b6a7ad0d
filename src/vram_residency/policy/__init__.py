"""The VRAM-only policy: pure decisions over facts (residency.md section 6)."""

from vram_residency.policy.rules import Facts, Finding, judge_device, judge_memory
from vram_residency.policy.verdict import Mode, Policy, Verdict, decide

__all__ = ["Facts", "Finding", "Mode", "Policy", "Verdict", "decide", "judge_device", "judge_memory"]
