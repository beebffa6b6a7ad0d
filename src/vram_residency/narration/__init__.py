"""Narration: what happened and why, in plain English with structured fields. It is not evidence."""

from __future__ import annotations

from vram_residency.narration.capture import Story, capture_narration
from vram_residency.narration.correlation import read_headers, set_correlation_id, write_headers
from vram_residency.narration.event import NarrationEvent
from vram_residency.narration.functions import (
    narrate_capacity_query,
    narrate_cuda_context_init,
    narrate_digest_computed,
    narrate_model_sealed,
    narrate_policy_violation,
    narrate_seal_verification_failed,
    narrate_seal_verified,
    narrate_signature_generated,
    narrate_validation_failed,
    narrate_vram_allocated,
    narrate_vram_allocation_failed,
    narrate_vram_deallocated,
    narrate_vram_manager_init,
)
from vram_residency.narration.narrator import narrate
from vram_residency.narration.output import configure
from vram_residency.narration.vocabulary import register_action, register_actor

__all__ = [
    "NarrationEvent",
    "Story",
    "capture_narration",
    "configure",
    "narrate",
    "narrate_capacity_query",
    "narrate_cuda_context_init",
    "narrate_digest_computed",
    "narrate_model_sealed",
    "narrate_policy_violation",
    "narrate_seal_verification_failed",
    "narrate_seal_verified",
    "narrate_signature_generated",
    "narrate_validation_failed",
    "narrate_vram_allocated",
    "narrate_vram_allocation_failed",
    "narrate_vram_deallocated",
    "narrate_vram_manager_init",
    "read_headers",
    "register_action",
    "register_actor",
    "set_correlation_id",
    "write_headers",
]
