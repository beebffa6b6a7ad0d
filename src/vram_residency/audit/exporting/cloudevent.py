"""CloudEvents 1.0 in their JSON format, one event a line."""

from __future__ import annotations

from typing import Final

import msgspec

from vram_residency.audit.exporting.record import Record

#: Before each event's name: what a receiver routes by.
TYPE_PREFIX: Final = "vram_residency.audit."

_encode = msgspec.json.encode


def encode(record: Record) -> bytes:
    """One event. ``data`` is the entry as it stands in the log; the attributes beside it name its place."""
    subject = record.subject
    attributes = {
        "specversion": "1.0",
        "id": record.audit_id,
        "source": record.origin,
        "type": TYPE_PREFIX + record.event_type,
        "time": record.timestamp,
        **({} if subject is None else {"subject": subject[1]}),
        "datacontenttype": "application/json",
        # Text, since a number of CloudEvents has 32 bits and an index has 63.
        "auditindex": str(record.index),
        "leafhash": record.leaf_hash,
        "auditseverity": record.severity.name,
    }
    return _encode(attributes)[:-1] + f',"data":{record.text}}}\n'.encode()
