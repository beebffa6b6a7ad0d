"""Every event, exported, against the published schema or SDK of the format; hostile ones too."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from functools import cache
from typing import Any

import pytest
from cloudevents.core.formats.json import JSONFormat
from google.protobuf import json_format
from jsonschema import Draft202012Validator
from ocsf_json_schema import OcsfJsonSchemaEmbedded, get_ocsf_schema
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from tests.event_table import EVENTS, OWN_EVENTS, sample
from tests.export_readers import entry_line

from vram_residency.audit.events.registry import BUILT_IN
from vram_residency.audit.exporting.export import Export
from vram_residency.audit.exporting.ocsf_table import OCSF_VERSION, TABLE
from vram_residency.audit.exporting.severity import OF_TYPE

ORIGIN = "worker-gpu-0/00112233445566778899aabbccddeeff"
ALL_EVENTS = sorted({**EVENTS, **OWN_EVENTS})
USERS_OWN = "acme.model_promoted"
#: Each turns every text of an event into something that a schema may not take.
TEXTS: dict[str, Callable[[str], str]] = {
    "as it is": lambda text: text,
    "empty": lambda _text: "",
    "an address": lambda _text: "2001:db8::7",
    "an address with a zone": lambda _text: "fe80::1%" + "z" * 60,
    "long": lambda text: text * 300,
    "hostile": lambda _text: "\u2028=\x85\u202e|]\"\\'\n",
}


def _lines() -> Iterator[tuple[str, bytes]]:
    for how, change in TEXTS.items():
        for event_type in [*ALL_EVENTS, USERS_OWN]:
            for has_optional in (True, False):
                known = {"acme": "x", "severity": "HIGH", "note": [{"a": None}]}
                fields = known if event_type == USERS_OWN else sample(event_type, optional=has_optional)
                name = f"{event_type} {how} {'with' if has_optional else 'without'} optional fields"
                yield name, entry_line(3, event_type, _changed(fields, change))


def _changed(value: Any, change: Callable[[str], str]) -> Any:
    if isinstance(value, str):
        return change(value)
    if isinstance(value, list):
        return [_changed(item, change) for item in value]
    if isinstance(value, dict):
        return {name: _changed(item, change) for name, item in value.items()}
    return value


def exported(name: str) -> Iterator[tuple[str, bytes]]:
    """What each line is, and its one record."""
    for what, line in _lines():
        (record,) = Export(ORIGIN, [line]).encoded(name)
        yield what, record


@cache
def ocsf_schema() -> dict[str, Any]:
    schema: dict[str, Any] = get_ocsf_schema(OCSF_VERSION)
    return schema


@cache
def ocsf_class(uid: int) -> tuple[dict[str, Any], Draft202012Validator]:
    """A class as published, and a validator of its events: no attribute that the schema does not know."""
    embedded = OcsfJsonSchemaEmbedded(ocsf_schema())
    name = embedded.lookup_class_name_from_uid(uid)
    validator = Draft202012Validator(embedded.get_class_schema(name))
    return ocsf_schema()["classes"][name], validator


def test_every_event_is_valid_ocsf() -> None:
    """Required attributes, types, patterns, enumerations, constraints, and nothing unknown."""
    wrong = {}
    for what, record in exported("ocsf"):
        event = json.loads(record)
        _, validator = ocsf_class(event["class_uid"])
        if errors := [f"{error.json_path}: {error.message}" for error in validator.iter_errors(event)]:
            wrong[what] = errors
    assert wrong == {}


@pytest.mark.parametrize(
    "wrong",
    [
        {"nonsense": 1},
        {"severity_id": 42},
        {"time": "now"},
        {"finding_info": {}},
        {"evidences": [{"src_endpoint": {"ip": "nowhere"}}]},
        {"resources": [{}]},
    ],
    ids=["unknown", "enumeration", "type", "required", "pattern", "constraint"],
)
def test_the_schema_of_ocsf_would_find_what_is_wrong(wrong: dict[str, Any]) -> None:
    """The test above measures something."""
    line = entry_line(3, "policy_violation", sample("policy_violation"))
    event = json.loads(b"".join(Export(ORIGIN, [line]).encoded("ocsf")))
    _, validator = ocsf_class(2004)
    assert validator.is_valid(event)
    assert not validator.is_valid(event | wrong)


def test_every_number_of_ocsf_has_its_published_name() -> None:
    """Class, category, activity, type, severity and status; 99 bears a name of our own."""
    for what, record in exported("ocsf"):
        event = json.loads(record)
        published, _ = ocsf_class(event["class_uid"])
        attributes = published["attributes"]
        assert event["class_name"] == published["caption"], what
        categories = ocsf_schema()["categories"]["attributes"].values()
        names = {category["uid"]: category["caption"] for category in categories} | {0: "Uncategorized"}
        assert event["category_name"] == names[event["category_uid"]], what
        assert event["type_uid"] == event["class_uid"] * 100 + event["activity_id"]
        assert event["type_name"] == f"{event['class_name']}: {event['activity_name']}"
        for number, name in (("activity_id", "activity_name"), ("status_id", "status")):
            caption = attributes[number]["enum"][str(event[number])]["caption"]
            assert event[number] == 99 or event[name] == caption, what
        assert event["severity"] == attributes["severity_id"]["enum"][str(event["severity_id"])]["caption"]


def test_every_event_has_a_class_of_its_own_choice() -> None:
    """A new event without a row would be exported as one that nobody knows."""
    assert set(TABLE) == set(BUILT_IN)
    assert set(OF_TYPE) <= set(BUILT_IN)


@pytest.mark.parametrize(
    ("event_type", "class_uid", "activity_id", "status_id"),
    [
        ("auth_success", 3002, 1, 1),
        ("auth_failure", 3002, 1, 2),
        ("authorization_denied", 6003, 99, 2),
        ("seal_verification_failed", 2004, 1, 1),
        ("policy_violation", 2004, 1, 1),
        ("vram_sealed", 6003, 1, 1),
        ("vram_allocation_failed", 6003, 1, 2),
        ("task_completed", 6003, 99, 2),  # the sample's result is a failure
        ("node_registered", 3004, 6, 1),
        ("log_opened", 1008, 6, 1),
        ("events_dropped", 1008, 99, 2),
    ],
)
def test_what_a_receiver_counts_on_stands_in_ocsf(
    event_type: str, class_uid: int, activity_id: int, status_id: int
) -> None:
    line = entry_line(3, event_type, sample(event_type), correlation_id="req-1")
    event = json.loads(b"".join(Export(ORIGIN, [line]).encoded("ocsf")))
    found = (event["class_uid"], event["activity_id"], event["status_id"])
    assert found == (class_uid, activity_id, status_id)
    assert event["time"] == 1_759_399_200_000
    assert event["metadata"]["uid"] == "0123abcd-3"
    assert event["metadata"]["correlation_uid"] == "req-1"
    assert event["unmapped"]["event"].items() >= sample(event_type).items()


def test_an_event_of_a_user_s_own_is_a_base_event() -> None:
    line = entry_line(3, USERS_OWN, {"model_ref": "minilm"})
    event = json.loads(b"".join(Export(ORIGIN, [line]).encoded("ocsf")))
    assert (event["class_uid"], event["category_uid"], event["type_uid"]) == (0, 0, 99)
    assert event["unmapped"]["event"] == {"model_ref": "minilm"}


def test_every_event_is_a_cloudevent() -> None:
    """As the SDK of the specification reads it."""
    for what, record in exported("cloudevents"):
        event = JSONFormat().read(None, record)
        assert event.get_specversion() == "1.0", what
        assert (event.get_id(), event.get_source()) == ("0123abcd-3", ORIGIN)
        assert event.get_type().startswith("vram_residency.audit.")
        time = event.get_time()
        assert time is not None
        assert time.isoformat() == "2025-10-02T10:00:00.000123+00:00"
        assert event.get_extension("auditindex") == "3"
        data = event.get_data()
        assert isinstance(data, dict)
        assert data["index"] == 3


def test_every_event_is_a_request_of_otlp() -> None:
    """Parsed by protobuf with the published messages; an unknown field would be an error."""
    for what, record in exported("otlp-json"):
        request = json_format.Parse(record, ExportLogsServiceRequest())
        (resource,) = request.resource_logs
        (scope,) = resource.scope_logs
        (found,) = scope.log_records
        assert found.time_unix_nano == 1_759_399_200_000_123_000, what
        assert 1 <= found.severity_number <= 24
        attributes = {pair.key: pair.value for pair in found.attributes}
        assert attributes["audit.index"].int_value == 3
        assert attributes["audit.origin"].string_value == ORIGIN
        assert len(attributes["audit.leaf_hash"].string_value) == 64
        assert json.loads(found.body.string_value)["index"] == 3


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"severity": "critical"}, {"syslog": 106, "cef": 10, "otlp-json": 21, "ocsf": 5}),
        ({"severity": "HIGH"}, {"syslog": 107, "cef": 8, "otlp-json": 17, "ocsf": 4}),
        ({"severity": "MEDIUM"}, {"syslog": 108, "cef": 5, "otlp-json": 13, "ocsf": 3}),
        ({"severity": "LOW"}, {"syslog": 109, "cef": 3, "otlp-json": 10, "ocsf": 2}),
        ({"severity": "odd"}, {"syslog": 110, "cef": 1, "otlp-json": 9, "ocsf": 1}),
        ({"risk_score": 95}, {"syslog": 106, "cef": 10, "otlp-json": 21, "ocsf": 5}),
        ({"risk_score": 0}, {"syslog": 109, "cef": 3, "otlp-json": 10, "ocsf": 2}),
        ({"result": {"status": "failure"}}, {"syslog": 109, "cef": 3, "otlp-json": 10, "ocsf": 2}),
    ],
    ids=["critical", "high", "medium", "low", "odd", "risk 95", "risk 0", "failure"],
)
def test_severity_is_one_scale_with_the_numbers_of_each_format(
    fields: dict[str, Any], expected: dict[str, int]
) -> None:
    line = entry_line(3, USERS_OWN, fields)

    def output(name: str) -> bytes:
        return b"".join(Export(ORIGIN, [line]).encoded(name))

    request = json.loads(output("otlp-json"))
    found = {
        "syslog": int(output("syslog")[1:4]),
        "cef": int(output("cef").split(b"|")[6]),
        "otlp-json": request["resourceLogs"][0]["scopeLogs"][0]["logRecords"][0]["severityNumber"],
        "ocsf": json.loads(output("ocsf"))["severity_id"],
    }
    assert found == expected
