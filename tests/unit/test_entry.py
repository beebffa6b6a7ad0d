"""Entries: one form of bytes for each."""

from __future__ import annotations

import pytest

from vram_residency.audit.format.entry import (
    ENTRY_BYTES_MAX,
    MAC_SUFFIX_BYTES,
    EntryFormatError,
    encode_body,
    join_line,
    parse_entry,
    split_line,
)

MAC = bytes(range(32))
LINE = (
    b'{"index":41,"timestamp":"2025-10-02T10:00:00.000000Z","event_type":"vram_sealed",'
    b'"service_id":"worker-gpu-0","audit_id":"5f1c9a02-41","shard_id":"shard-abc123","gpu_device":0,'
    b'"vram_bytes":1048576,"digest":"blake3:a1b2","worker_id":"worker-gpu-0","mac":"'
    + MAC.hex().encode()
    + b'"}'
)
FIELDS = {
    "shard_id": "shard-abc123",
    "gpu_device": 0,
    "vram_bytes": 1048576,
    "digest": "blake3:a1b2",
    "worker_id": "worker-gpu-0",
}


def _body(fields: dict[str, object], sanitized: tuple[str, ...] = ()) -> bytes:
    return encode_body(
        index=41,
        timestamp="2025-10-02T10:00:00.000000Z",
        event_type="vram_sealed",
        service_id="worker-gpu-0",
        audit_id="5f1c9a02-41",
        fields=fields,
        sanitized=sanitized,
    )


def test_the_example_of_the_specification_is_written_byte_for_byte() -> None:
    assert join_line(_body(FIELDS), MAC) == LINE


def test_a_line_splits_into_body_and_mac() -> None:
    body, mac = split_line(LINE)
    assert body == LINE[:-MAC_SUFFIX_BYTES]
    assert mac == MAC


def test_a_line_parses_into_what_was_written() -> None:
    entry = parse_entry(LINE)
    assert entry.fields == FIELDS
    assert (entry.index, entry.event_type, entry.service_id) == (41, "vram_sealed", "worker-gpu-0")
    assert entry.unverified_mac == MAC
    assert entry.sanitized == ()


def test_sanitized_stands_between_the_fields_and_the_mac() -> None:
    line = join_line(_body({"a": "b"}, ("a",)), MAC)
    assert b'"a":"b","sanitized":["a"],"mac":"' in line
    assert parse_entry(line).sanitized == ("a",)


def test_strings_are_escaped_as_in_rfc_8785() -> None:
    line = join_line(_body({"a": '\x00\x1f\b\t\n\f\r"\\/\x7fé€😀'}), MAC)
    assert '"a":"\\u0000\\u001f\\b\\t\\n\\f\\r\\"\\\\/\x7fé€😀"'.encode() in line


def test_an_entry_that_would_be_too_long_is_not_written() -> None:
    with pytest.raises(EntryFormatError, match="at most 65535 bytes"):
        _body({"a": "x" * ENTRY_BYTES_MAX})


def test_the_longest_entry_is_read_and_one_byte_more_is_not() -> None:
    room = ENTRY_BYTES_MAX - len(join_line(_body({"a": ""}), MAC))
    longest = join_line(_body({"a": "x" * room}), MAC)
    assert len(longest) == ENTRY_BYTES_MAX
    assert parse_entry(longest).index == 41
    with pytest.raises(EntryFormatError, match="at most 65535 bytes"):
        parse_entry(longest.replace(b"xx", b"xxx", 1))


@pytest.mark.parametrize(
    ("old", "new", "rule"),
    [
        (b'"}', b'"} ', "does not end"),
        (b'"}', b'" }', "does not end"),
        (b',"mac"', b', "mac"', "does not end"),
        (MAC.hex().encode(), MAC.hex().upper().encode(), "does not end"),
        (b'"index":41', b'"index": 41', "canonical"),
        (b'"index":41', b'"index":41.0', "floats"),
        (b'"index":41', b'"index":041', "JSON"),
        (b'"index":41', b'"index":4.1e1', "floats"),
        (b'"index":41', b'"index":42', "audit_id"),
        (b'"index":41', b'"index":true', "integer"),
        (b'"index":41', b'"index":-41', "integer"),
        (b'"index":41,', b"", "do not begin"),
        (b'"gpu_device":0', b'"gpu_device":0.5', "floats"),
        (b'"gpu_device":0', b'"gpu_device":-0', "canonical"),
        (b'"gpu_device":0', b'"gpu_device":9223372036854775808', "64 bits"),
        (b'"gpu_device":0', b'"gpu_device":NaN', "JSON"),
        (b'"gpu_device":0', b'"gpu_device":0,"gpu_device":0', "canonical"),
        (b'"gpu_device":0', b'"gpu_device":{"a":1,"a":1}', "canonical"),
        (b'"gpu_device":0', b'"gpu_device":[{"a":[1.5]}]', "floats"),
        (b'"gpu_device":0', b'"gpu_device":' + b"[" * 5000 + b"]" * 5000, "JSON|nested over 32 deep"),
        (b'"gpu_device":0', b'"gpu_device":' + b"[" * 32 + b"]" * 32, "nested over 32 deep"),
        (b'"gpu_device":0', b'"gpu_device":' + b"9" * 5000, "JSON|64 bits"),
        (b"shard-abc", b"shard-\\u0061bc", "canonical"),
        (b"shard-abc", b"shard\\/bc", "canonical"),
        (b"shard-abc", b"shard-\xff", "JSON"),
        (b"shard-abc", b"shard-\xed\xa0\x80", "JSON"),
        (b"shard-abc", b"shard-\\ud800", "JSON"),
        (b"shard-abc", b"shard\n", "JSON"),
        (b"T10:00:00.000000Z", b"T10:00:00.000Z", "timestamp"),
        (b"T10:00:00.000000Z", b"T10:00:00.000000+00:00", "timestamp"),
        (b"5f1c9a02-41", b"5F1C9A02-41", "audit_id"),
        (b'"5f1c9a02-41"', b"7", "strings"),
        (b'"worker_id"', b'"sanitized":["a"],"worker_id"', "sanitized must be the last"),
        (b'"worker_id":"worker-gpu-0"', b'"sanitized":[]', "list of names"),
        (b'"worker_id":"worker-gpu-0"', b'"sanitized":"a"', "list of names"),
        (b'{"index"', b'["index"', "JSON"),
    ],
)
def test_any_other_form_is_refused(old: bytes, new: bytes, rule: str) -> None:
    assert old in LINE
    with pytest.raises(EntryFormatError, match=rule):
        parse_entry(LINE.replace(old, new))


def test_the_refusal_names_the_byte_where_the_form_differs() -> None:
    with pytest.raises(EntryFormatError, match="canonical") as caught:
        parse_entry(LINE.replace(b'"index":41', b'"index": 41'))
    assert caught.value.offset == len(b'{"index":')
    assert str(caught.value) == f"byte {caught.value.offset}: not in canonical form"


@pytest.mark.parametrize("line", [b"", b"{}", b"\n", LINE[1:], LINE[:-1], LINE + b"\n", b" " + LINE])
def test_what_is_no_line_is_refused(line: bytes) -> None:
    with pytest.raises(EntryFormatError, match=r"."):
        parse_entry(line)


def test_nesting_up_to_the_limit_is_read() -> None:
    line = LINE.replace(b'"gpu_device":0', b'"gpu_device":' + b"[" * 31 + b"]" * 31)
    assert parse_entry(line).index == 41


def test_events_of_unknown_types_are_read() -> None:
    assert parse_entry(LINE.replace(b"vram_sealed", b"acme.of_the_future")).event_type == "acme.of_the_future"
