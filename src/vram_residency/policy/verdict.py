"""What follows from findings: refuse, or run and say so (residency.md section 6)."""

from __future__ import annotations

from typing import Literal

from msgspec import Struct

from vram_residency.policy.rules import Finding, Limits

PolicyName = Literal["vram_only", "gpu_required"]
VRAM_ONLY: PolicyName = "vram_only"
#: Broken where a GPU is asked for and none can be used.
GPU_REQUIRED: PolicyName = "gpu_required"

Mode = Literal["strict", "development"]

# What the development policy may wave through: a host that is honest about being a host.
_TOLERABLE = frozenset({"host_memory"})


class Policy(Struct, frozen=True, kw_only=True):
    """``strict`` refuses every finding; ``development`` runs on the host device and says so."""

    mode: Mode
    limits: Limits = Limits()


class Verdict(Struct, frozen=True):
    """``refused`` stop the operation; ``tolerated`` are recorded once and narrated as warnings."""

    refused: tuple[Finding, ...]
    tolerated: tuple[Finding, ...]


def decide(findings: tuple[Finding, ...], policy: Policy) -> Verdict:
    """Split ``findings`` by what ``policy`` makes of them."""
    # Whatever is not the one lenient word is strict.
    if policy.mode != "development":
        return Verdict(refused=findings, tolerated=())
    tolerated = tuple(each for each in findings if each.violation in _TOLERABLE)
    return Verdict(refused=tuple(each for each in findings if each not in tolerated), tolerated=tolerated)
