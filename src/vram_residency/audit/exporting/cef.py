"""Common Event Format, version 0: one line a record, for what reads ArcSight's format."""

from __future__ import annotations

from ipaddress import ip_address
from typing import Final

from vram_residency.audit.exporting.record import PRODUCT, Record
from vram_residency.audit.exporting.severity import Severity
from vram_residency.core.version import __version__

#: 0 to 10: low to 3, medium to 6, high to 8, very high beyond.
CEF_SEVERITY: Final = {
    Severity.INFORMATIONAL: 1,
    Severity.LOW: 3,
    Severity.MEDIUM: 5,
    Severity.HIGH: 8,
    Severity.CRITICAL: 10,
}
_NANOSECONDS_PER_MS: Final = 1_000_000
_HEADER_ESCAPES = str.maketrans({"\\": "\\\\", "|": "\\|"})
_VALUE_ESCAPES = str.maketrans({"\\": "\\\\", "=": "\\="})


def encode(record: Record) -> bytes:
    """One line. What CEF has a key for stands under it; ``cs3`` is the entry as it stands in the log."""
    event_type = record.event_type
    header = [PRODUCT, PRODUCT, __version__, event_type, event_type.replace("_", " ")]
    head = "|".join(part.translate(_HEADER_ESCAPES) for part in header)
    pairs = [f"{key}={value.translate(_VALUE_ESCAPES)}" for key, value in _extension(record).items() if value]
    return f"CEF:0|{head}|{CEF_SEVERITY[record.severity]}|{' '.join(pairs)}\n".encode()


def _extension(record: Record) -> dict[str, str | None]:
    return {
        "rt": str(record.time_ns // _NANOSECONDS_PER_MS),
        "externalId": record.audit_id,
        "dvchost": record.service_id,
        **_address(record.actor("ip") or record.word("ip")),
        "suser": record.actor("user_id") or record.word("attempted_user"),
        "act": record.word("action_taken") or record.word("action"),
        "reason": record.word("reason") or record.word("violation"),
        "outcome": _outcome(record),
        "request": record.word("endpoint") or record.word("path"),
        "cn1Label": "index",
        "cn1": str(record.index),
        "cs1Label": "origin",
        "cs1": record.origin,
        "cs2Label": "leaf_hash",
        "cs2": record.leaf_hash,
        "cs3Label": "entry",
        "cs3": record.text,
        **_about(record),
    }


def _address(text: str | None) -> dict[str, str]:
    """``src`` takes IPv4 alone, ``c6a2`` IPv6; what is no address stands in the entry."""
    try:
        address = ip_address(text or "")
    except ValueError:
        return {}
    if address.version == 4:  # noqa: PLR2004
        return {"src": str(address)}
    return {"c6a2Label": "source", "c6a2": str(address)}


def _about(record: Record) -> dict[str, str]:
    subject = record.subject
    return {} if subject is None else {"cs4Label": subject[0], "cs4": subject[1]}


def _outcome(record: Record) -> str | None:
    result = record.fields.get("result")
    status = result.get("status") if isinstance(result, dict) else None
    return status if status in {"success", "failure", "partial_success"} else None
