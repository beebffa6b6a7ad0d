"""OpenTelemetry logs in OTLP's JSON: one ExportLogsServiceRequest a line, as a file exporter writes them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import msgspec

from vram_residency.audit.exporting.record import Record
from vram_residency.audit.exporting.severity import Severity
from vram_residency.core.text import visible

#: Numbers and words of the OpenTelemetry log data model.
SEVERITY_NUMBER: Final = {
    Severity.INFORMATIONAL: (9, "INFO"),
    Severity.LOW: (10, "INFO2"),
    Severity.MEDIUM: (13, "WARN"),
    Severity.HIGH: (17, "ERROR"),
    Severity.CRITICAL: (21, "FATAL"),
}
SCOPE: Final = "vram_residency.audit"
#: Before the name of each of the event's own fields.
FIELD_PREFIX: Final = "vram_residency.event."

_encode = msgspec.json.encode


def encode(record: Record) -> bytes:
    """One request with one record. The body is the entry as it stands in the log."""
    number, word = SEVERITY_NUMBER[record.severity]
    log_record = {
        "timeUnixNano": str(record.time_ns),
        "observedTimeUnixNano": str(record.time_ns),
        "severityNumber": number,
        "severityText": word,
        "eventName": record.event_type,
        "body": {"stringValue": record.text},
        "attributes": _attributes(_place(record)),
    }
    resource = {"service.name": record.service_id, "service.instance.id": record.origin}
    request = {
        "resourceLogs": [
            {
                "resource": {"attributes": _attributes(resource)},
                "scopeLogs": [{"scope": {"name": SCOPE}, "logRecords": [log_record]}],
            }
        ]
    }
    return _encode(request) + b"\n"


def _place(record: Record) -> dict[str, object]:
    place: dict[str, object] = {
        "audit.origin": record.origin,
        "audit.index": record.index,
        "audit.leaf_hash": record.leaf_hash,
        "audit.id": record.audit_id,
    }
    return place | {FIELD_PREFIX + name: value for name, value in record.fields.items()}


def _attributes(values: Mapping[str, object]) -> list[dict[str, object]]:
    return [{"key": visible(name), "value": _any_value(value)} for name, value in values.items()]


def _any_value(value: object) -> dict[str, object]:
    """AnyValue of opentelemetry/proto/common/v1; integers are text, as ProtoJSON has those of 64 bits."""
    match value:
        case None:
            return {}
        case bool():
            return {"boolValue": value}
        case int():
            return {"intValue": str(value)}
        case dict():
            return {"kvlistValue": {"values": _attributes(value)}}
        case list():
            return {"arrayValue": {"values": [_any_value(item) for item in value]}}
        case _:
            return {"stringValue": visible(str(value))}
