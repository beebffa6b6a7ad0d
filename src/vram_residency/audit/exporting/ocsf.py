"""OCSF events, one a line: each of our events in the class that fits it (ocsf_table.py).

Numbers, names and required attributes are those of the published schema; what it has no place for stands
in ``unmapped``, and the entry as it stands in the log in ``raw_data``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from ipaddress import ip_address
from typing import Final

import msgspec

from vram_residency.audit.exporting.ocsf_table import (
    API,
    AUTHENTICATION,
    BASE_EVENT,
    DETECTION,
    ENTITY,
    EVENT_LOG,
    LIFECYCLE,
    OCSF_VERSION,
    OTHER,
    TABLE,
    UNKNOWN,
    USER_ACCESS,
    EventClass,
    Mapped,
)
from vram_residency.audit.exporting.record import LOG_VERSION, PRODUCT, SUBJECTS, Record
from vram_residency.audit.exporting.severity import Severity
from vram_residency.core.text import visible

OCSF_SEVERITY: Final = {
    Severity.INFORMATIONAL: (1, "Informational"),
    Severity.LOW: (2, "Low"),
    Severity.MEDIUM: (3, "Medium"),
    Severity.HIGH: (4, "High"),
    Severity.CRITICAL: (5, "Critical"),
}
#: Of the result that some events carry.
_STATUS: Final = {
    "success": (1, "Success"),
    "failure": (2, "Failure"),
    "partial_success": (OTHER, "Partial Success"),
}
_NEW_FINDING: Final = (1, "New")
_NANOSECONDS_PER_MS: Final = 1_000_000
_IP_CHARACTERS_MAX: Final = 40
_LEAF_HASH: Final = "RFC 6962 leaf hash: SHA-256(0x00 || raw_data)"

Attributes = dict[str, object]
_encode = msgspec.json.encode


def encode(record: Record) -> bytes:
    """One event as a line of JSON."""
    mapped = TABLE.get(record.event_type, UNKNOWN)
    own = _OWN[mapped.event_class](record)
    event = _classification(record, mapped) | _metadata(record) | own | {"unmapped": _unmapped(record)}
    return _encode(event) + b"\n"


def _classification(record: Record, mapped: Mapped) -> Attributes:
    event_class = mapped.event_class
    severity_id, severity = OCSF_SEVERITY[record.severity]
    status_id, status = _status(record, mapped)
    return {
        "category_uid": event_class.category_uid,
        "category_name": event_class.category_name,
        "class_uid": event_class.uid,
        "class_name": event_class.name,
        "activity_id": mapped.activity_id,
        "activity_name": mapped.activity_name,
        "type_uid": event_class.uid * 100 + mapped.activity_id,
        "type_name": f"{event_class.name}: {mapped.activity_name}",
        "time": record.time_ns // _NANOSECONDS_PER_MS,
        "severity_id": severity_id,
        "severity": severity,
        "status_id": status_id,
        "status": status,
        "message": _message(record),
        **_some(status_detail=record.word("reason")),
    }


def _status(record: Record, mapped: Mapped) -> tuple[int, str]:
    if mapped.event_class is DETECTION:
        return _NEW_FINDING
    result = record.fields.get("result")
    told = result.get("status") if isinstance(result, dict) else None
    fallback = _STATUS["failure" if mapped.is_failure else "success"]
    return _STATUS.get(told, fallback) if isinstance(told, str) else fallback


def _metadata(record: Record) -> Attributes:
    metadata: Attributes = {
        "version": OCSF_VERSION,
        "product": {"name": PRODUCT, "vendor_name": PRODUCT},
        "uid": record.audit_id,
        "event_code": record.event_type,
        "log_name": record.origin,
        "log_provider": record.service_id,
        "log_version": LOG_VERSION,
        "sequence": record.index,
        "original_time": record.timestamp,
        **_some(correlation_uid=record.correlation_id),
    }
    return {
        "metadata": metadata,
        "raw_data": record.text,
        "raw_data_size": len(record.text.encode()),
        "raw_data_hash": {"algorithm_id": OTHER, "algorithm": _LEAF_HASH, "value": record.leaf_hash},
    }


def _unmapped(record: Record) -> Attributes:
    place = {"origin": record.origin, "index": record.index, "leaf_hash": record.leaf_hash}
    return {**place, "event": {visible(name): _plain(value) for name, value in record.fields.items()}}


def _authentication(record: Record) -> Attributes:
    return {
        "user": _user(record.actor("user_id") or record.word("attempted_user") or "unknown"),
        "service": {"name": record.service_id},
        "src_endpoint": _source(record),
        **_some(auth_protocol=record.word("method")),
        **({"session": {"uid": session}} if (session := record.actor("session_id")) else {}),
    }


def _entity(record: Record) -> Attributes:
    name, value = record.subject or ("service_id", record.service_id)
    entity = {"uid": value, "type": SUBJECTS.get(name, "service"), "type_id": OTHER}
    return {"entity": entity, "actor": _actor(record), "src_endpoint": _source(record)}


def _user_access(record: Record) -> Attributes:
    privileges = record.fields.get("new_permissions")
    listed = privileges if isinstance(privileges, list) else []
    return {
        "user": _user(record.word("subject") or "unknown"),
        "privileges": [visible(each) for each in listed if isinstance(each, str)],
        "actor": _actor(record),
        "src_endpoint": _source(record),
    }


def _api(record: Record) -> Attributes:
    actor = _actor(record)
    if record.event_type.startswith("authorization_"):
        actor["authorizations"] = [{"decision": record.event_type.removeprefix("authorization_")}]
    operation = record.word("action") or record.event_type
    return {
        "api": {"operation": operation, "service": {"name": record.service_id}},
        "actor": actor,
        "src_endpoint": _source(record),
        **_resources(record),
    }


def _detection(record: Record) -> Attributes:
    milliseconds = record.time_ns // _NANOSECONDS_PER_MS
    details = record.word("details") or record.word("validation_error")
    finding = {"uid": record.audit_id, "title": _title(record), "types": [record.event_type]}
    return {
        "finding_info": finding | {"created_time": milliseconds} | _some(desc=details),
        "evidences": [{"actor": _actor(record), "src_endpoint": _source(record)}],
        "is_alert": True,
        **_some(risk_score=_number(record, "risk_score")),
        **_resources(record),
    }


def _lifecycle(record: Record) -> Attributes:
    return {"app": {"name": record.word("worker_id") or record.service_id, "vendor_name": PRODUCT}}


def _event_log(record: Record) -> Attributes:
    accessor = record.word("accessor")
    return {
        "log_name": record.origin,
        "log_provider": record.service_id,
        "log_type_id": 2,
        "log_type": "Application",
        **({"actor": {"user": _user(accessor)}} if accessor else {}),
    }


#: What each class needs besides what every event has.
_OWN: Final[Mapping[EventClass, Callable[[Record], Attributes]]] = {
    BASE_EVENT: lambda _record: {},
    EVENT_LOG: _event_log,
    DETECTION: _detection,
    AUTHENTICATION: _authentication,
    ENTITY: _entity,
    USER_ACCESS: _user_access,
    LIFECYCLE: _lifecycle,
    API: _api,
}


def _actor(record: Record) -> Attributes:
    """Whoever acted: a user; a customer, unless the event is about that customer; else the program itself."""
    customer = record.word("customer_id")
    is_about = record.subject == ("customer_id", customer)
    user = record.actor("user_id") or record.word("requester") or (None if is_about else customer)
    if user is None:
        return {"app_name": record.word("worker_id") or record.service_id}
    session = record.actor("session_id")
    return {"user": _user(user), **({"session": {"uid": session}} if session else {})}


def _user(name: str) -> Attributes:
    return {"uid": name, "name": name}


def _source(record: Record) -> Attributes:
    """Where it came from; a text that is no address is a name."""
    text = record.actor("ip") or record.word("ip")
    if text is None:
        return {"svc_name": record.service_id}
    try:
        address = str(ip_address(text))
    except ValueError:
        return {"name": text}
    return {"ip": address} if len(address) <= _IP_CHARACTERS_MAX else {"name": text}


def _resources(record: Record) -> Attributes:
    named = record.fields.get("resource")
    if isinstance(named, dict) and isinstance(uid := named.get("resource_id"), str):
        kind = named.get("resource_type")
        return {"resources": [{"uid": visible(uid), **_some(type=_text(kind))}]}
    several = record.fields.get("shard_ids")
    if isinstance(several, list):
        return {"resources": [{"uid": visible(str(each)), "type": "shard"} for each in several]}
    subject = record.subject
    if subject is None:
        return {}
    name, value = subject
    kind = record.word("resource_type") if name == "resource_id" else None
    return {"resources": [{"uid": value, "type": kind or SUBJECTS[name]}]}


def _message(record: Record) -> str:
    subject = record.subject
    parts = [_title(record), None if subject is None else subject[1], record.word("reason")]
    return ", ".join(part for part in parts if part)


def _title(record: Record) -> str:
    return record.event_type.replace("_", " ") or "an event without a name"


def _number(record: Record, name: str) -> int | None:
    value = record.fields.get(name)
    return value if type(value) is int else None


def _text(value: object) -> str | None:
    return visible(value) if isinstance(value, str) and value else None


def _some(**attributes: object) -> Attributes:
    """Those that are there."""
    return {name: value for name, value in attributes.items() if value is not None}


def _plain(value: object) -> object:
    match value:
        case str():
            return visible(value)
        case dict():
            return {visible(name): _plain(inner) for name, inner in value.items()}
        case list():
            return [_plain(inner) for inner in value]
        case _:
            return value
