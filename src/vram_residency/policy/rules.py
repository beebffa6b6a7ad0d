"""What each rule of the VRAM-only policy asks of the facts (residency.md section 6).

Facts are plain values that a device read from its driver or its kernel; nothing here reads anything.
A fact that is missing never passes: what could not be read cannot be vouched for.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

from msgspec import Struct

Facts = Mapping[str, str | int | bool | None]

GIB = 1 << 30


class Limits(Struct, frozen=True, kw_only=True):
    """What a device must at least be."""

    compute_capability: tuple[int, int] = (6, 0)
    total_bytes: int = GIB
    allow_mps: bool = False
    allow_wsl: bool = False
    allow_virtual_gpu: bool = False
    require_lock: bool = False


class Finding(Struct, frozen=True):
    """One way in which the facts break the policy; ``violation`` is a word of events.md."""

    violation: str
    details: str


Rule = Callable[[Facts, Limits], str | None]


def judge_device(facts: Facts, limits: Limits) -> tuple[Finding, ...]:
    """Findings about the device itself, checked at start and at every seal and verification."""
    if facts.get("kind") == "host":
        return (
            Finding("host_memory", "the host device keeps shards in the machine's own memory, not in VRAM"),
        )
    return tuple(_apply(_DEVICE_RULES, facts, limits))


def judge_memory(
    facts: Facts, limits: Limits, *, gpu_device: int, device_kind: str = "host"
) -> tuple[Finding, ...]:
    """Findings about one allocation, which must lie on a ``device_kind`` of the ordinal ``gpu_device``."""
    if facts.get("kind") in _HOST_KINDS:
        if device_kind != "host":
            return (Finding("host_memory", "the memory is the machine's own, not the device's"),)
        unlocked = limits.require_lock and facts.get("locked") is not True
        return (Finding("not_locked", "the shard's pages are not locked into memory"),) if unlocked else ()
    findings = list(_apply(_MEMORY_RULES, facts, limits))
    # What the pointer says and, where that is known, the allocation itself: a peer is another device.
    for ordinal in (facts.get("device_ordinal"), facts.get("location_ordinal", gpu_device)):
        if ordinal != gpu_device:
            details = f"the memory lies on device {ordinal}, not on {gpu_device}"
            findings.append(Finding("invalid_device_properties", details))
            break
    return tuple(findings)


_HOST_KINDS = frozenset({"memfd", "anonymous", "adopted_host"})


def _apply(rules: tuple[tuple[str, Rule], ...], facts: Facts, limits: Limits) -> Iterator[Finding]:
    for violation, rule in rules:
        if (details := rule(facts, limits)) is not None:
            yield Finding(violation, details)


def _is_integrated(facts: Facts, _limits: Limits) -> str | None:
    if facts.get("integrated") is False:
        return None
    return "the GPU is integrated: its memory is the machine's own"


def _is_old(facts: Facts, limits: Limits) -> str | None:
    text = facts.get("compute_capability")
    major, _, minor = text.partition(".") if isinstance(text, str) else ("", "", "")
    actual = (int(major), int(minor)) if major.isdecimal() and minor.isdecimal() else (0, 0)
    if actual >= limits.compute_capability:
        return None
    wanted = "{}.{}".format(*limits.compute_capability)
    return f"compute capability {text} is below {wanted}"


def _is_small(facts: Facts, limits: Limits) -> str | None:
    total_bytes = facts.get("total_bytes")
    if isinstance(total_bytes, int) and total_bytes >= limits.total_bytes:
        return None
    return f"the device has {total_bytes} bytes of memory, less than {limits.total_bytes}"


def _is_shared_by_mps(facts: Facts, limits: Limits) -> str | None:
    return None if facts.get("mps") is False or limits.allow_mps else "the device is shared through MPS"


def _is_wsl(facts: Facts, limits: Limits) -> str | None:
    return (
        None if facts.get("wsl") is False or limits.allow_wsl else "WSL moves device memory behind our back"
    )


def _is_virtual(facts: Facts, limits: Limits) -> str | None:
    if facts.get("virtual_gpu") is False or limits.allow_virtual_gpu:
        return None
    if facts.get("virtual_gpu") is None:
        return "whether the GPU is virtual could not be read: NVML does not say"
    return "a virtual GPU's memory may be moved by its hypervisor"


def _is_managed(facts: Facts, _limits: Limits) -> str | None:
    is_managed = facts.get("managed") is not False or facts.get("allocation_type") == "managed"
    return "the allocation is managed memory, which migrates" if is_managed else None


def _is_not_device_memory(facts: Facts, _limits: Limits) -> str | None:
    # Memory that another library allocated has no more facts than its pointer's: there is no location then.
    for kind in (facts.get("memory_type"), facts.get("location_type", "device")):
        if kind != "device":
            return f"the allocation is {kind} memory, not device memory"
    return None


_DEVICE_RULES: tuple[tuple[str, Rule], ...] = (
    ("integrated_device", _is_integrated),
    ("invalid_device_properties", _is_old),
    ("invalid_device_properties", _is_small),
    ("invalid_device_properties", _is_shared_by_mps),
    ("unified_memory_detected", _is_wsl),
    ("invalid_device_properties", _is_virtual),
)
_MEMORY_RULES: tuple[tuple[str, Rule], ...] = (
    ("managed_allocation", _is_managed),
    ("host_memory", _is_not_device_memory),
)
