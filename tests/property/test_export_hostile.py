# ruff: noqa: RUF001 - look-alikes are what is tested
"""Whatever stands in an entry, it is one record in every format, and no text in it makes another."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.event_table import EVENTS, OWN_EVENTS, sample
from tests.export_readers import READERS, canonical, entry_line, is_formula, leaf_hash

from vram_residency.audit.exporting.csv_rows import neutralised, restored
from vram_residency.audit.exporting.export import FORMATS, Export
from vram_residency.core.text import clean, visible

ORIGIN = "worker-gpu-0/00112233445566778899aabbccddeeff"
ALL_EVENTS = sorted({**EVENTS, **OWN_EVENTS})

#: What some format takes for an end, a beginning, an escape or a formula.
PIECES = [
    "\n", "\r\n", "\r", "\t", "\x00", "\x0b", "\x0c", "\x1b[2J", "\x7f", "\x85", "\u2028", "\u2029",
    "\u202e", "\u200b", "\ufeff", "\U000e0041", "=", "+", "-", "@", "＝", "＋", "－", "＠", "−", "%", "'",
    '"', "|", ";", ",", "，", "；", "]", "[", "\\", "\\n", "\\u{202E}", "{", "}", "…", " ",
    "\u00a0", "\u3000",
    '"}\n{"origin":"x","index":0,"leaf_hash":"', '","entry":{', ',"data":{', "<13>1 - - - - - -",
    '"] evil', "CEF:0|a|b|c|d|e|10|", " cs1=forged", " cs1Label=origin", "cn1=7", "=cmd|' /C calc'!A0",
    ";=1+1", '\r\n"=1+1","', "ä", "\U0001f600",
]  # fmt: skip
TEXT = st.lists(st.sampled_from(PIECES) | st.characters(exclude_categories=["Cs"]), max_size=12).map("".join)


def _with_texts(value: Any, draw: Any) -> Any:
    """The sample with every text in it replaced; times and statuses too, as a forger may write them."""
    if isinstance(value, str):
        return draw(TEXT)
    if isinstance(value, list):
        return [_with_texts(item, draw) for item in value]
    if isinstance(value, dict):
        return {name: _with_texts(item, draw) for name, item in value.items()}
    return value


@st.composite
def hostile_lines(draw: Any) -> list[bytes]:
    """A few entries with hostile text in every field that holds any."""
    found = []
    for index in range(draw(st.integers(1, 3))):
        event_type = draw(st.sampled_from(ALL_EVENTS))
        fields = _with_texts(sample(event_type), draw)
        envelope = {"service_id": draw(TEXT)} if draw(st.booleans()) else {}
        if draw(st.booleans()):
            envelope["correlation_id"] = draw(TEXT)
        name = event_type if draw(st.booleans()) else draw(TEXT)
        found.append(entry_line(index, name, fields, **envelope))
    return found


@pytest.mark.parametrize("name", sorted(FORMATS))
@given(hostile_lines())
def test_one_entry_is_one_record_that_says_where_it_stands(name: str, hostile: list[bytes]) -> None:
    export = Export(ORIGIN, hostile)
    records = READERS[name](b"".join(export.encoded(name)))
    assert export.left_out == 0
    assert [record.index for record in records] == list(range(len(hostile)))
    for record, line in zip(records, hostile, strict=True):
        assert record.origin == ORIGIN
        assert canonical(record.entry) == line.decode()
        assert record.leaf_hash == leaf_hash(line.decode())


@pytest.mark.parametrize("name", sorted(FORMATS))
@given(st.lists(st.sampled_from(PIECES) | st.characters(), max_size=12).map("".join))
def test_what_our_writer_leaves_in_an_entry_comes_out_byte_for_byte(name: str, text: str) -> None:
    """Cleaned text needs no escape of ours: the bytes hash to the leaf as they come."""
    line = entry_line(7, "vram_sealed", {**sample("vram_sealed"), "model_ref": clean(text)})
    (record,) = READERS[name](b"".join(Export(ORIGIN, [line]).encoded(name)))
    assert record.entry == line.decode()
    assert leaf_hash(record.entry) == record.leaf_hash


@given(TEXT)
def test_a_cell_is_no_formula_and_can_be_restored(text: str) -> None:
    cell = neutralised(text)
    assert not is_formula(cell)
    assert restored(cell) == visible(text)
    assert "\n" not in cell
    assert "\r" not in cell
    assert "\t" not in cell


@given(TEXT, TEXT)
def test_two_texts_never_become_one_cell(one: str, other: str) -> None:
    assert (neutralised(one) == neutralised(other)) == (visible(one) == visible(other))


@pytest.mark.parametrize("name", sorted(FORMATS))
@given(
    st.dictionaries(
        st.text(st.characters(exclude_categories=["Cs"]), max_size=20),
        st.recursive(
            st.none() | st.booleans() | st.integers(-(2**63), 2**63 - 1) | TEXT,
            lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
            max_leaves=8,
        ),
        max_size=5,
    )
)
def test_an_event_that_nobody_knows_is_one_record_too(name: str, fields: dict[str, Any]) -> None:
    """Fields of any name and type: those that have a meaning elsewhere may have another type here."""
    for envelope in ("index", "timestamp", "event_type", "service_id", "audit_id", "sanitized", "mac"):
        fields.pop(envelope, None)
    known = {
        "severity": 3,
        "actor": "nobody",
        "ip": {},
        "resource": [1],
        "result": {"status": 4},
        "reason": 1,
    }
    line = entry_line(5, "acme.model_promoted", {**known, **fields})
    (record,) = READERS[name](b"".join(Export(ORIGIN, [line]).encoded(name)))
    assert json.loads(record.entry) == json.loads(line)
    assert record.leaf_hash == leaf_hash(line.decode())
