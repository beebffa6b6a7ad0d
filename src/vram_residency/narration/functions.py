"""The thirteen functions (narration.md): who calls them says what happened, they find the words.

All take keywords alone; sizes are bytes, ``duration_ms`` is fractional milliseconds or None where nobody
measured; ``device="host"`` makes the sentence speak of host memory instead of VRAM and a GPU. Each also
takes what `narrator.Context` lists. A call below the level in force returns at once,
so the comparison comes first and nothing is put together before it.
"""

from __future__ import annotations

from typing import Unpack

from vram_residency.narration.gate import gate
from vram_residency.narration.narrator import Context, is_heard, tell
from vram_residency.narration.sentences import HOST, Place
from vram_residency.narration.units import milliseconds, percent, rate, size, sizes_apart
from vram_residency.narration.vocabulary import DEBUG, ERROR, FATAL, INFO, WARN

ALLOWED = "allowed_by_configuration"


def narrate_vram_manager_init(
    *,
    total_bytes: int,
    gpu_count: int = 1,
    gpu_device: int = 0,
    device: str | None = None,
    **shared: Unpack[Context],
) -> None:
    """Info: a manager is ready. On the host there is no GPU to count."""
    if gate.floor > INFO or not is_heard(INFO):
        return
    place = Place.of(device, gpu_device)
    count = 0 if place.label == HOST else gpu_count
    tell(
        "init",
        INFO,
        target=place.label,
        place=place,
        parts={"count": str(count), "size": size(total_bytes)},
        fields={"gpu_count": count, "total_bytes": total_bytes},
        shared=shared,
    )


def narrate_model_sealed(
    *,
    shard_id: str,
    vram_bytes: int,
    gpu_device: int = 0,
    duration_ms: float | None = None,
    device: str | None = None,
    **shared: Unpack[Context],
) -> None:
    """Info: a model lies sealed in device memory."""
    if gate.floor > INFO or not is_heard(INFO):
        return
    tell(
        "seal",
        INFO,
        target=shard_id,
        place=Place.of(device, gpu_device),
        parts={"id": shard_id, "size": size(vram_bytes), "time": _in_brackets(duration_ms)},
        fields={"duration_ms": duration_ms, "shard_id": shard_id, "vram_bytes": vram_bytes},
        shared=shared,
    )


def narrate_seal_verified(
    *,
    shard_id: str,
    gpu_device: int = 0,
    duration_ms: float | None = None,
    at_gate: bool = False,
    device: str | None = None,
    **shared: Unpack[Context],
) -> None:
    """A shard is what was sealed: debug where every execution asks (``at_gate``), info otherwise."""
    level = DEBUG if at_gate else INFO
    if gate.floor > level or not is_heard(level):
        return
    tell(
        "verify",
        level,
        target=shard_id,
        place=Place.of(device, gpu_device),
        parts={"id": shard_id, "time": _in_brackets(duration_ms)},
        fields={"duration_ms": duration_ms, "shard_id": shard_id},
        shared=shared,
    )


def narrate_seal_verification_failed(
    *,
    shard_id: str,
    reason: str,
    gpu_device: int = 0,
    duration_ms: float | None = None,
    device: str | None = None,
    **shared: Unpack[Context],
) -> None:
    """Fatal: a shard is not what was sealed."""
    if gate.floor > FATAL or not is_heard(FATAL):
        return
    tell(
        "verify_failed",
        FATAL,
        target=shard_id,
        place=Place.of(device, gpu_device),
        parts={"id": shard_id, "reason": reason},
        fields={"error_kind": reason, "duration_ms": duration_ms, "shard_id": shard_id, "reason": reason},
        shared=shared,
    )


def narrate_vram_allocated(
    *,
    requested_bytes: int,
    allocated_bytes: int,
    available_bytes: int,
    used_bytes: int,
    gpu_device: int = 0,
    duration_ms: float | None = None,
    device: str | None = None,
    **shared: Unpack[Context],
) -> None:
    """Info: memory was allocated; available and used are the values after it."""
    if gate.floor > INFO or not is_heard(INFO):
        return
    place = Place.of(device, gpu_device)
    tell(
        "allocate",
        INFO,
        target=place.label,
        place=place,
        parts={
            "allocated": size(allocated_bytes),
            "requested": size(requested_bytes),
            "available": size(available_bytes),
            "time": "" if duration_ms is None else f", {milliseconds(duration_ms)}",
        },
        fields={
            "duration_ms": duration_ms,
            "requested_bytes": requested_bytes,
            "allocated_bytes": allocated_bytes,
            "available_bytes": available_bytes,
            "used_bytes": used_bytes,
        },
        shared=shared,
    )


def narrate_vram_allocation_failed(
    *,
    requested_bytes: int,
    available_bytes: int,
    gpu_device: int = 0,
    reason: str | None = None,
    device: str | None = None,
    **shared: Unpack[Context],
) -> None:
    """Error: memory was refused."""
    if gate.floor > ERROR or not is_heard(ERROR):
        return
    place = Place.of(device, gpu_device)
    requested, available = sizes_apart(requested_bytes, available_bytes)
    tell(
        "allocate_failed",
        ERROR,
        target=place.label,
        place=place,
        parts={"requested": requested, "available": available},
        fields={
            "error_kind": reason,
            "requested_bytes": requested_bytes,
            "available_bytes": available_bytes,
            "reason": reason,
        },
        shared=shared,
    )


def narrate_vram_deallocated(
    *,
    shard_id: str,
    freed_bytes: int,
    used_bytes: int,
    gpu_device: int = 0,
    duration_ms: float | None = None,
    device: str | None = None,
    **shared: Unpack[Context],
) -> None:
    """Info: memory was given back; ``used_bytes`` is what others still use."""
    if gate.floor > INFO or not is_heard(INFO):
        return
    tell(
        "deallocate",
        INFO,
        target=shard_id,
        place=Place.of(device, gpu_device),
        parts={"id": shard_id, "freed": size(freed_bytes), "used": size(used_bytes)},
        fields={
            "duration_ms": duration_ms,
            "shard_id": shard_id,
            "freed_bytes": freed_bytes,
            "used_bytes": used_bytes,
        },
        shared=shared,
    )


def narrate_policy_violation(
    *,
    violation: str,
    action_taken: str,
    gpu_device: int = 0,
    device: str | None = None,
    **shared: Unpack[Context],
) -> None:
    """Fatal: memory is not what the policy asks for; a warning where the configuration allows that."""
    level = WARN if action_taken == ALLOWED else FATAL
    if gate.floor > level or not is_heard(level):
        return
    place = Place.of(device, gpu_device)
    tell(
        "policy_violation",
        level,
        target=place.label,
        place=place,
        parts={"violation": violation, "action": action_taken},
        fields={"error_kind": violation, "violation": violation, "action_taken": action_taken},
        shared=shared,
    )


def narrate_digest_computed(
    *,
    algorithm: str,
    vram_bytes: int,
    duration_ms: float | None = None,
    shard_id: str | None = None,
    gpu_device: int | None = None,
    device: str | None = None,
    **shared: Unpack[Context],
) -> None:
    """Debug: ``vram_bytes`` bytes were measured."""
    if gate.floor > DEBUG or not is_heard(DEBUG):
        return
    tell(
        "digest",
        DEBUG,
        target=algorithm if shard_id is None else shard_id,
        place=_place_if_named(device, gpu_device),
        parts={
            "algorithm": algorithm,
            "size": size(vram_bytes),
            "time": milliseconds(duration_ms),
            "rate": rate(vram_bytes, duration_ms),
        },
        fields={
            "duration_ms": duration_ms,
            "shard_id": shard_id,
            "algorithm": algorithm,
            "vram_bytes": vram_bytes,
        },
        shared=shared,
    )


def narrate_signature_generated(
    *,
    shard_id: str,
    duration_ms: float | None = None,
    gpu_device: int | None = None,
    device: str | None = None,
    **shared: Unpack[Context],
) -> None:
    """Debug: a shard's statement was signed."""
    if gate.floor > DEBUG or not is_heard(DEBUG):
        return
    tell(
        "sign",
        DEBUG,
        target=shard_id,
        place=_place_if_named(device, gpu_device),
        parts={"id": shard_id, "time": _in_brackets(duration_ms)},
        fields={"duration_ms": duration_ms, "shard_id": shard_id},
        shared=shared,
    )


def narrate_cuda_context_init(
    *, name: str, total_bytes: int, gpu_device: int = 0, device: str | None = None, **shared: Unpack[Context]
) -> None:
    """Info: a GPU called ``name`` is ready."""
    if gate.floor > INFO or not is_heard(INFO):
        return
    place = Place.of(device, gpu_device)
    tell(
        "cuda_init",
        INFO,
        target=place.label,
        place=place,
        parts={"name": name, "size": size(total_bytes)},
        fields={"device_name": name, "total_bytes": total_bytes},
        shared=shared,
    )


def narrate_validation_failed(
    *,
    what: str,
    reason: str,
    gpu_device: int | None = None,
    device: str | None = None,
    **shared: Unpack[Context],
) -> None:
    """Warn: input was refused. ``what`` names it; it is not the input itself."""
    if gate.floor > WARN or not is_heard(WARN):
        return
    tell(
        "validate_failed",
        WARN,
        target=what,
        place=_place_if_named(device, gpu_device),
        parts={"what": what, "reason": reason},
        fields={"error_kind": "invalid_input", "what": what, "reason": reason},
        shared=shared,
    )


def narrate_capacity_query(
    *,
    available_bytes: int,
    used_bytes: int,
    total_bytes: int | None = None,
    gpu_device: int = 0,
    device: str | None = None,
    **shared: Unpack[Context],
) -> None:
    """Debug: somebody asked how full a device is; its total defaults to available and used together."""
    if gate.floor > DEBUG or not is_heard(DEBUG):
        return
    place = Place.of(device, gpu_device)
    whole = available_bytes + used_bytes if total_bytes is None else total_bytes
    tell(
        "capacity_query",
        DEBUG,
        target=place.label,
        place=place,
        parts={
            "available": size(available_bytes),
            "used": size(used_bytes),
            "percent": percent(used_bytes, whole),
        },
        fields={"available_bytes": available_bytes, "used_bytes": used_bytes, "total_bytes": whole},
        shared=shared,
    )


def _place_if_named(device: str | None, gpu_device: int | None) -> Place | None:
    """The device, where the caller said which: these sentences do not speak of it."""
    if gpu_device is None and device != HOST:
        return None
    return Place.of(device, gpu_device or 0)


def _in_brackets(duration_ms: float | None) -> str:
    return "" if duration_ms is None else f" ({milliseconds(duration_ms)})"
