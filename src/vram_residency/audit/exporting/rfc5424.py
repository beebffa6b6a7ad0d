"""Syslog messages (RFC 5424), one a line (RFC 6587 section 3.4.2 with a line feed as trailer)."""

from __future__ import annotations

import re
from typing import Final

from vram_residency.audit.exporting.record import PRODUCT, Record
from vram_residency.audit.exporting.severity import Severity

#: RFC 5424 table 1: log audit.
FACILITY: Final = 13
#: RFC 5424 table 2: informational, notice, warning, error, critical.
SYSLOG_SEVERITY: Final = {
    Severity.INFORMATIONAL: 6,
    Severity.LOW: 5,
    Severity.MEDIUM: 4,
    Severity.HIGH: 3,
    Severity.CRITICAL: 2,
}
#: 32473 is the number that RFC 5612 keeps for those who have no enterprise number of their own.
SD_ID: Final = "vramAudit@32473"

_HOSTNAME_CHARACTERS_MAX: Final = 255
_MSGID_CHARACTERS_MAX: Final = 32
_BOM: Final = "\ufeff"
_NOT_PRINTABLE_ASCII = re.compile(r"[^\x21-\x7e]")
_PARAMETER_ESCAPES = str.maketrans({"\\": "\\\\", '"': '\\"', "]": "\\]"})


def encode(record: Record) -> bytes:
    """One message. The entry is the text of it, and structured data name its place."""
    priority = FACILITY * 8 + SYSLOG_SEVERITY[record.severity]
    host = _name(record.service_id, _HOSTNAME_CHARACTERS_MAX)
    kind = _name(record.event_type, _MSGID_CHARACTERS_MAX)
    return (
        f"<{priority}>1 {record.timestamp} {host} {PRODUCT} - {kind} {_structured_data(record)} "
        f"{_BOM}{record.text}\n"
    ).encode()


def _structured_data(record: Record) -> str:
    parameters = {
        "origin": record.origin,
        "index": str(record.index),
        "leafHash": record.leaf_hash,
        "auditId": record.audit_id,
        "eventType": record.event_type,
        "severity": record.severity.name,
    }
    pairs = (f'{name}="{value.translate(_PARAMETER_ESCAPES)}"' for name, value in parameters.items())
    return f"[{SD_ID} {' '.join(pairs)}]"


def _name(text: str, characters_max: int) -> str:
    """A header field: printable ASCII without spaces, ``-`` where nothing is left (section 6)."""
    return _NOT_PRINTABLE_ASCII.sub("_", text)[:characters_max] or "-"
