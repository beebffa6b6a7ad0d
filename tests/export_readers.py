# ruff: noqa: RUF001 - look-alikes are what is read
"""Readers of what `vram audit export` writes, made from the documents of each format.

Each takes the whole output and gives one ``Exported`` a record. They share no code with the writers, and an
``assert`` fails where the output breaks its format.
"""

from __future__ import annotations

import csv
import hashlib
import io
import json
import re
from collections.abc import Callable
from typing import Any, NamedTuple

CSV_MARK = re.compile("((?:^|[,;|\t\r\n，；])[ \u00a0\u1680\u2000-\u200a\u202f\u205f\u3000\"“”]*)'")
_SYSLOG = re.compile(
    r"<(?P<pri>\d{1,3})>1 (?P<time>\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{1,6}Z) (?P<host>[\x21-\x7e]{1,255})"
    r" (?P<app>[\x21-\x7e]{1,48}) (?P<proc>[\x21-\x7e]{1,128}) (?P<msgid>[\x21-\x7e]{1,32}) "
)
_SD_PARAMETER = re.compile(r' ([\x21\x23-\x3c\x3e-\x5c\x5e-\x7e]{1,32})="((?:[^"\\\]]|\\["\\\]])*)"')
_CEF_HEADER = re.compile(r"CEF:0" + r"\|((?:[^|\\]|\\[|\\])*)" * 5 + r"\|(10|[0-9])\|")
_CEF_KEY = re.compile(r"(?:^| )([A-Za-z0-9_]+)=")


class Exported(NamedTuple):
    """What every record says of its entry, in every format."""

    origin: str
    index: int
    leaf_hash: str
    entry: str


def leaf_hash(entry: str) -> str:
    """Of an entry's text, as it stands in a log that our writer made."""
    return hashlib.sha256(b"\x00" + entry.encode()).hexdigest()


def canonical(entry: str) -> str:
    """The line as any log has it, from JSON in which some characters are escaped (RFC 8785 for strings)."""
    return json.dumps(json.loads(entry), ensure_ascii=False, separators=(",", ":"))


def lines(output: bytes, end: str = "\n") -> list[str]:
    """The records of formats of one line each: no other character that anybody takes for a line's end."""
    text = output.decode()
    assert text.endswith(end) or not text
    records = text.removesuffix(end).split(end) if text else []
    for record in records:
        assert record.splitlines() == [record], "a record of more than one line"
        assert not re.search(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069]", record)
    return records


def read_jsonl(output: bytes) -> list[Exported]:
    pattern = re.compile(r'\{"origin":"([^"]+)","index":([0-9]+),"leaf_hash":"([0-9a-f]{64})","entry":(.*)\}')
    found = [pattern.fullmatch(line) for line in lines(output)]
    return [Exported(match[1], int(match[2]), match[3], match[4]) for match in found if match is not None]


def read_ocsf(output: bytes) -> list[Exported]:
    records = []
    for event in map(json.loads, lines(output)):
        place = event["unmapped"]
        assert (event["metadata"]["log_name"], event["metadata"]["sequence"]) == (
            place["origin"],
            place["index"],
        )
        assert event["raw_data_hash"]["value"] == place["leaf_hash"]
        records.append(Exported(place["origin"], place["index"], place["leaf_hash"], event["raw_data"]))
    return records


def read_cloudevents(output: bytes) -> list[Exported]:
    records = []
    for line in lines(output):
        event = json.loads(line)
        attributes = {name: value for name, value in event.items() if name != "data"}
        assert all(re.fullmatch("[a-z0-9]{1,20}", name) for name in attributes)
        assert all(isinstance(value, str) and value for value in attributes.values())
        entry = line.partition(',"data":')[2].removesuffix("}")
        index, hash_ = int(event["auditindex"]), event["leafhash"]
        records.append(Exported(event["source"], index, hash_, entry))
    return records


def read_syslog(output: bytes) -> list[Exported]:
    """RFC 5424 section 6, messages ended by a line feed."""
    records = []
    for line in lines(output):
        header = _SYSLOG.match(line)
        assert header is not None, line
        assert 0 <= int(header["pri"]) <= 191
        element, message = _structured_data(line[header.end() :])
        assert message.startswith(" \ufeff")
        records.append(Exported(element["origin"], int(element["index"]), element["leafHash"], message[2:]))
    return records


def _structured_data(text: str) -> tuple[dict[str, str], str]:
    start = re.match(r"\[[\x21\x23-\x3c\x3e-\x5c\x5e-\x7e]{1,32}", text)
    assert start is not None
    position, parameters = start.end(), {}
    while match := _SD_PARAMETER.match(text, position):
        assert match[1] not in parameters
        parameters[match[1]] = re.sub(r'\\(["\\\]])', r"\1", match[2])
        position = match.end()
    assert text[position] == "]"
    return parameters, text[position + 1 :]


def read_cef(output: bytes) -> list[Exported]:
    """CEF implementation standard, version 0."""
    records = []
    for line in lines(output):
        header = _CEF_HEADER.match(line)
        assert header is not None, line
        pairs = cef_extension(line[header.end() :])
        labels = {value: pairs[key.removesuffix("Label")] for key, value in pairs.items() if "Label" in key}
        records.append(Exported(labels["origin"], int(labels["index"]), labels["leaf_hash"], labels["entry"]))
    return records


def cef_extension(text: str) -> dict[str, str]:
    """Key-value pairs; an equals sign inside a value is escaped, so every other one follows a key."""
    places = [match for match in _CEF_KEY.finditer(text) if not text[: match.end() - 1].endswith("\\")]
    pairs = {}
    for match, following in zip(places, [*places[1:], None], strict=True):
        value = text[match.end() : None if following is None else following.start()]
        assert not re.search(r"(?<!\\)(?:\\\\)*=", value)
        assert match[1] not in pairs, f"{match[1]} comes twice"
        pairs[match[1]] = re.sub(r"\\([\\=])", r"\1", value)
    return pairs


def read_otlp(output: bytes) -> list[Exported]:
    records = []
    for request in map(json.loads, lines(output)):
        (resource,) = request["resourceLogs"]
        (scope,) = resource["scopeLogs"]
        (record,) = scope["logRecords"]
        keys = [pair["key"] for pair in record["attributes"]]
        assert len(keys) == len(set(keys))
        values = {pair["key"]: next(iter(pair["value"].values()), None) for pair in record["attributes"]}
        place = values["audit.origin"], int(values["audit.index"]), values["audit.leaf_hash"]
        records.append(Exported(*place, record["body"]["stringValue"]))
    return records


def read_csv(output: bytes) -> list[Exported]:
    """RFC 4180, and the mark before what could be a formula taken away."""
    lines(output, "\r\n")
    names, *rows = csv.reader(io.StringIO(output.decode(), newline=""), strict=True)
    records = []
    for row in rows:
        assert len(row) == len(names)
        for cell in row:
            assert not is_formula(cell), cell
        cells = dict(zip(names, [CSV_MARK.sub(r"\1", cell) for cell in row], strict=True))
        records.append(Exported(cells["origin"], int(cells["index"]), cells["leaf_hash"], cells["entry"]))
    return records


def is_formula(cell: str) -> bool:
    """Whether some spreadsheet may compute the cell, or a part of it behind another separator."""
    parts = re.split(r"[,;|\t\r\n，；]", cell)
    return any(re.match('[\\s"“”]*[=+\\-@＝＋－＠﹢﹣﹦﹫−]', part) for part in parts)


READERS: dict[str, Callable[[bytes], list[Exported]]] = {
    "jsonl": read_jsonl,
    "ocsf": read_ocsf,
    "cloudevents": read_cloudevents,
    "syslog": read_syslog,
    "cef": read_cef,
    "otlp-json": read_otlp,
    "csv": read_csv,
}


def entry_line(index: int, event_type: str, fields: dict[str, Any], **envelope: Any) -> bytes:
    """A line of the form of an entry, whoever may have written such fields."""
    values = {
        "index": index,
        "timestamp": "2025-10-02T10:00:00.000123Z",
        "event_type": event_type,
        "service_id": "worker-gpu-0",
        "audit_id": f"0123abcd-{index}",
        **envelope,
        **fields,
    }
    body = json.dumps(values, ensure_ascii=False, separators=(",", ":"))[:-1]
    return f'{body},"mac":"{"0" * 64}"}}'.encode()
