"""What damage on a card looks like: bit rot, a write, a swapped mapping (gpu.md). Pure; only a hint."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from vram_residency.residency.damage import Reason

#: What the card counts itself when memory cells fail (NVML).
_COUNTERS = {
    "ecc_corrected": "corrected ECC errors",
    "ecc_uncorrected": "uncorrected ECC errors",
    "remapped_rows_corrected": "rows remapped for corrected errors",
    "remapped_rows_uncorrected": "rows remapped for uncorrected errors",
}


def looks_like(reason: Reason, then: Mapping[str, Any], now: Mapping[str, Any]) -> str | None:
    """A clause about ``reason``, by the device's facts at sealing and now; None where nothing can be said.

    The host counts nothing that could be compared.
    """
    if "nvml" not in then or reason not in {"digest_mismatch", "not_resident"}:
        return None
    if reason == "not_resident":
        return "it looks like a swapped or changed mapping"
    known = [name for name in _COUNTERS if isinstance(then.get(name), int) and isinstance(now.get(name), int)]
    if not known:
        return "bit rot and a write look the same here: the card's ECC counters cannot be read"
    risen = [f"{_COUNTERS[name]} +{now[name] - then[name]}" for name in known if now[name] > then[name]]
    if risen:
        return f"it looks like bit rot: since sealing {', '.join(risen)}"
    return "it looks like a write: the card's ECC and remap counters are as at sealing"
