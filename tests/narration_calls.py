"""One call of each of the thirteen functions, for tests that go through them all."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from vram_residency import narration

MB = 1 << 20
SHARD = "shard-abc123"

#: Function, its arguments, its level, its sentence on GPU 0, its sentence on the host.
CALLS: dict[str, tuple[Callable[..., None], dict[str, Any], str, str, str]] = {
    "init": (
        narration.narrate_vram_manager_init,
        {"gpu_count": 2, "total_bytes": 16_000_000_000},
        "info",
        "Initialized VRAM manager with 2 GPU(s), 14.9 GB total VRAM",
        "Initialized host memory manager with 0 GPU(s), 14.9 GB total host memory",
    ),
    "seal": (
        narration.narrate_model_sealed,
        {"shard_id": SHARD, "vram_bytes": MB, "duration_ms": 2.0},
        "info",
        "Sealed model shard 'shard-abc123' in 1 MB VRAM on GPU 0 (2 ms)",
        "Sealed model shard 'shard-abc123' in 1 MB host memory on host (2 ms)",
    ),
    "verify": (
        narration.narrate_seal_verified,
        {"shard_id": SHARD, "duration_ms": 1.25},
        "info",
        "Verified seal for shard 'shard-abc123' on GPU 0 (1.25 ms)",
        "Verified seal for shard 'shard-abc123' on host (1.25 ms)",
    ),
    "verify_failed": (
        narration.narrate_seal_verification_failed,
        {"shard_id": SHARD, "reason": "digest_mismatch"},
        "fatal",
        "CRITICAL: Seal verification failed for shard 'shard-abc123' on GPU 0: digest_mismatch",
        "CRITICAL: Seal verification failed for shard 'shard-abc123' on host: digest_mismatch",
    ),
    "allocate": (
        narration.narrate_vram_allocated,
        {
            "requested_bytes": 512 * 1024,
            "allocated_bytes": MB,
            "available_bytes": 3 * MB,
            "used_bytes": MB,
            "duration_ms": 0.4,
        },
        "info",
        "Allocated 1 MB VRAM on GPU 0 (requested 512 KB, 3 MB available, 0.4 ms)",
        "Allocated 1 MB host memory on host (requested 512 KB, 3 MB available, 0.4 ms)",
    ),
    "allocate_failed": (
        narration.narrate_vram_allocation_failed,
        {"requested_bytes": 4 * MB, "available_bytes": MB, "reason": "insufficient_vram"},
        "error",
        "VRAM allocation failed on GPU 0: requested 4 MB, only 1 MB available",
        "Host memory allocation failed on host: requested 4 MB, only 1 MB available",
    ),
    "deallocate": (
        narration.narrate_vram_deallocated,
        {"shard_id": SHARD, "freed_bytes": MB, "used_bytes": 2 * MB},
        "info",
        "Deallocated 1 MB VRAM for shard 'shard-abc123' on GPU 0 (2 MB still in use)",
        "Deallocated 1 MB host memory for shard 'shard-abc123' on host (2 MB still in use)",
    ),
    "policy_violation": (
        narration.narrate_policy_violation,
        {"violation": "host_memory", "action_taken": "worker_stopped"},
        "fatal",
        "CRITICAL: VRAM-only policy violated on GPU 0: host_memory. Action: worker_stopped",
        "CRITICAL: VRAM-only policy violated on host: host_memory. Action: worker_stopped",
    ),
    "digest": (
        narration.narrate_digest_computed,
        {"algorithm": "blake3", "vram_bytes": MB, "duration_ms": 1000},
        "debug",
        "Computed blake3 digest for 1 MB of data (1000 ms, 1 MB/s)",
        "Computed blake3 digest for 1 MB of data (1000 ms, 1 MB/s)",
    ),
    "sign": (
        narration.narrate_signature_generated,
        {"shard_id": SHARD, "duration_ms": 0.05},
        "debug",
        "Generated HMAC-SHA256 signature for shard 'shard-abc123' (0.05 ms)",
        "Generated HMAC-SHA256 signature for shard 'shard-abc123' (0.05 ms)",
    ),
    "cuda_init": (
        narration.narrate_cuda_context_init,
        {"name": "NVIDIA H200", "total_bytes": 141 << 30},
        "info",
        "Initialized CUDA context on GPU 0 (NVIDIA H200, 141 GB VRAM)",
        "Initialized CUDA context on host (NVIDIA H200, 141 GB host memory)",
    ),
    "validate_failed": (
        narration.narrate_validation_failed,
        {"what": "shard_id", "reason": "must not be empty"},
        "warn",
        "Input validation failed for shard_id: must not be empty",
        "Input validation failed for shard_id: must not be empty",
    ),
    "capacity_query": (
        narration.narrate_capacity_query,
        {"available_bytes": 3 * MB, "used_bytes": MB},
        "debug",
        "GPU 0 capacity: 3 MB available, 1 MB used (25% utilization)",
        "Host capacity: 3 MB available, 1 MB used (25% utilization)",
    ),
}


def call(action: str, **changed: object) -> None:
    """Call the function of ``action`` on GPU 0, with some arguments changed or added."""
    function, arguments, *_ = CALLS[action]
    function(**{"gpu_device": 0, **arguments, **changed})


EVERY_CALL = {action: partial(call, action) for action in CALLS}
