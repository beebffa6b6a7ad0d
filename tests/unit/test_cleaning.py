"""Cleaning keeps what was said, shows what was hidden, fits the entry, and never refuses (audit-log.md 5)."""

from __future__ import annotations

import hashlib
import json
import unicodedata

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.event_table import EVENTS, sample

from vram_residency.audit import events as e
from vram_residency.audit.events.cleaning import clean_fields
from vram_residency.audit.events.pseudonym import Pseudonyms
from vram_residency.audit.format.entry import encode_body, join_line, parse_entry

HOSTILE = {
    "newline": "a\nb",
    "carriage return": "a\r\nb",
    "fake entry": '"}\n{"index":0,"event_type":"log_closed"',
    "escape": "\x1b[2J\x1b]0;title\x07",
    "NUL": "a\x00b",
    "delete": "a\x7fb",
    "C1": "a\x85\x9bb",
    "line separator": "a\u2028b\u2029c",
    "bidi": "user\u202e\u2066gpj.exe\u2069",
    "zero width": "ad\u200bm\u200din\ufeff",
    "soft hyphen": "ad\u00admin",
    "blank": "a\u2800b\u115f\u3164c",
    "tag": "a\U000e0041b",
    "surrogate": "a\ud800b\udfff",
    "private": "\ue000\U0010fffd",
    "noncharacter": "\uffff\ufdd0",
    "own escape": "\\u{202E}",
    "huge": "x" * 20_000,
    "huge wide": "\U0001f600" * 2000,
    "huge hidden": "\u200b" * 2000,
}
INVISIBLE = st.sampled_from(
    "\n\r\t\x00\x1b\x7f\x85\u2028\u202e\u200b\ufeff\u00ad\u2800\ud800\uffff\\{}u…[]\"'"
)
TEXT = st.text() | st.lists(INVISIBLE | st.characters(), max_size=40).map("".join)


def _line(fields: dict[str, object], names: tuple[str, ...]) -> bytes:
    body = encode_body(
        index=2**63 - 1,
        timestamp="2025-10-02T10:00:00.000000Z",
        event_type="x" * 128,
        service_id="s" * 128,
        audit_id=f"0123abcd-{2**63 - 1}",
        fields=fields,
        sanitized=names,
    )
    return join_line(body, bytes(32))


def _strings(value: object) -> list[str]:
    if isinstance(value, str):
        return [value]
    if isinstance(value, dict):
        return [*value, *(text for item in value.values() for text in _strings(item))]
    return [text for item in value for text in _strings(item)] if isinstance(value, list) else []


def _is_visible(value: object) -> bool:
    hidden = {"Cc", "Cf", "Cs", "Co", "Zl", "Zp"}
    return not any(unicodedata.category(char) in hidden for text in _strings(value) for char in text)


@pytest.mark.parametrize("event_type", EVENTS)
@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_text_in_any_string_of_any_event_is_shown_and_named(event_type: str, name: str) -> None:
    """The event is kept, on one line, visible, marked as sanitized; its other fields are untouched."""
    hostile = HOSTILE[name]
    fields = sample(event_type)
    for path in _string_paths(fields):
        event = e.from_mapping(event_type, _with(fields, path, hostile))
        e.validate(event)
        cleaned, changed = clean_fields(e.to_fields(event))
        assert changed == (".".join(path[:-1] if path[-1].isdigit() else path),)
        line = _line(cleaned, changed)
        assert b"\n" not in line
        assert parse_entry(line).sanitized == changed
        assert _is_visible(cleaned)
        assert json.loads(line)["index"] == 2**63 - 1
        assert _with(cleaned, path, "") == _with(fields, path, "")


def _string_paths(value: object, path: tuple[str, ...] = ()) -> list[tuple[str, ...]]:
    if isinstance(value, str):
        is_word = path[-1] in {"status", "completed_at", "expires_at", "claimed_at"}
        return [] if is_word else [path]
    if isinstance(value, dict):
        return [found for key, item in value.items() for found in _string_paths(item, (*path, key))]
    if isinstance(value, list):
        return [found for i, item in enumerate(value) for found in _string_paths(item, (*path, str(i)))]
    return []


def _with(value: object, path: tuple[str, ...], text: str) -> object:
    if not path:
        return text
    first, *rest = path
    if isinstance(value, list):
        return [_with(item, tuple(rest), text) if i == int(first) else item for i, item in enumerate(value)]
    assert isinstance(value, dict)
    return {key: _with(item, tuple(rest), text) if key == first else item for key, item in value.items()}


@pytest.mark.parametrize("event_type", EVENTS)
def test_what_is_clean_comes_out_as_it_went_in(event_type: str) -> None:
    fields = sample(event_type) | {
        "digest": "blake3:" + "ab" * 32,
        "id": "5f1c9a02-3b1d-4c58-9d6a-7d1f0a9be111",
    }
    assert clean_fields(fields) == (fields, ())


def test_a_long_text_keeps_both_ends_around_length_and_hash_of_the_original() -> None:
    original = "".join(f"{number} " for number in range(1000))
    cleaned, changed = clean_fields({"details": original})
    data = original.encode()
    mark = f"…[{len(data)} bytes, sha256:{hashlib.sha256(data).hexdigest()}]…"
    assert cleaned == {"details": original[:640] + mark + original[-192:]}
    assert changed == ("details",)


def test_length_and_hash_are_of_the_text_before_it_was_escaped() -> None:
    original = "\n" * 2000
    text = clean_fields({"details": original})[0]["details"]
    assert isinstance(text, str)
    assert f"…[2000 bytes, sha256:{hashlib.sha256(original.encode()).hexdigest()}]…" in text


@pytest.mark.parametrize("size", [1023, 1024, 1025])
def test_the_limit_is_1024_bytes(size: int) -> None:
    assert (clean_fields({"a": "x" * size})[1] == ()) is (size <= 1024)


def test_a_long_list_ends_in_count_and_hash() -> None:
    items = [f"t{number}" for number in range(300)]
    cleaned, changed = clean_fields({"tensors": items})
    sha256 = hashlib.sha256(json.dumps(items, separators=(",", ":")).encode()).hexdigest()
    assert cleaned == {"tensors": [*items[:256], f"…[300 items, sha256:{sha256}]"]}
    assert changed == ("tensors",)
    assert clean_fields({"tensors": items[:256]}) == ({"tensors": items[:256]}, ())


def test_map_keys_are_cleaned_and_none_vanishes() -> None:
    fields = {"changes": {"a\nb": {"old": 1, "new": 2}, "password=1": {"old": 1, "new": 2}, "password=2": 3}}
    cleaned, changed = clean_fields(fields)
    assert list(cleaned["changes"]) == ["a\\u{000A}b", "password=[REDACTED]", "password=[REDACTED]~2"]  # type: ignore[call-overload]
    assert changed == tuple(f"changes.{key}" for key in cleaned["changes"])  # type: ignore[attr-defined]


def test_secrets_are_redacted_before_anything_else() -> None:
    cleaned, changed = clean_fields({"details": "got Bearer abcdef0123456789 and password=hunter2", "n": 1})
    assert cleaned["details"] == "got Bearer [REDACTED] and password=[REDACTED]"
    assert changed == ("details",)


@pytest.mark.parametrize("name", ["token_prefix", "token_fingerprint"])
def test_a_whole_token_that_strayed_into_the_log_becomes_its_fingerprint(name: str) -> None:
    token = "hf_" + "A1b2" * 10
    cleaned, changed = clean_fields({name: token})
    assert cleaned == {name: hashlib.sha256(token.encode()).hexdigest()[:6]}
    assert changed == (name,)
    assert clean_fields({name: "a1b2c3"}) == ({name: "a1b2c3"}, ())


def test_customers_are_pseudonyms_that_differ_by_key() -> None:
    one, two = Pseudonyms(b"1" * 32), Pseudonyms(b"2" * 32)
    cleaned, _ = clean_fields({"customer_id": "c-1", "job_id": "c-1"}, pseudonymize=one.name)
    assert cleaned == {"customer_id": one.name("c-1"), "job_id": "c-1"}
    assert one.name("c-1") == one.name("c-1")
    assert len({one.name("c-1"), one.name("c-2"), two.name("c-1")}) == 3
    assert one.name("c-1").startswith("pseudonym:")
    assert "1111" not in repr(one)


@given(
    st.dictionaries(
        st.sampled_from(["a", "b", "details"]), TEXT | st.lists(TEXT) | st.dictionaries(TEXT, TEXT)
    )
)
def test_anything_fits_on_one_canonical_visible_line(fields: dict[str, object]) -> None:
    cleaned, changed = clean_fields(fields)
    assert parse_entry(_line(cleaned, changed)).sanitized == changed
    assert _is_visible(cleaned)
    assert bool(changed) is (cleaned != fields)


@given(TEXT, TEXT)
def test_two_texts_never_give_one(one: str, two: str) -> None:
    """Redaction apart, which is meant to forget."""
    first, second = clean_fields({"a": one})[0], clean_fields({"a": two})[0]
    assert (first == second) is (one == two) or "[REDACTED]" in str(first)


@pytest.mark.parametrize("text", ["\\" * 1024, '"' * 5000, "\n" * 5000, "é" * 600, "ab" * 512])
def test_the_largest_events_fit_an_entry(text: str) -> None:
    """A class of 100 texts is the most that can be registered; lists and maps of the longest texts."""
    for fields in (
        {f"field_{number:058}": text for number in range(100)},
        {f"list_{number}": [text] * 400 for number in range(40)},
        {"changes": {f"{number}{text}": {"old": text, "new": [text] * 9} for number in range(400)}},
    ):
        cleaned, changed = clean_fields(fields)
        assert len(_line(cleaned, changed)) <= 65_535
        assert set(cleaned) == set(fields)
        assert len(msgspec.json.encode(cleaned)) > 4000


def test_a_huge_text_is_cut_in_linear_time() -> None:
    cleaned, _ = clean_fields({"details": "\u200b" * 1_000_000})
    assert "…[3000000 bytes, sha256:" in str(cleaned)
