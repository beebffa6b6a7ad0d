"""The quick ways agree with the slow ones: in parsing an entry and in cleaning its fields."""

from __future__ import annotations

import json

from hypothesis import given
from hypothesis import strategies as st
from tests.independent_log import LogMaker

from vram_residency.audit import cleaning
from vram_residency.audit.cleaning import clean_fields
from vram_residency.audit.entry import EntryFormatError, parse_entry
from vram_residency.audit.glance import Glance

MAKER = LogMaker()
MAKER.seal()
LINE = MAKER.lines[0]
GLANCE = Glance(MAKER.service_id, MAKER.ident.hex())
SCRAPS = [
    b" ",
    b'"',
    b",",
    b"{",
    b"}",
    b"\\",
    b"\n",
    b"0",
    b"-1",
    b"1.5",
    b"1e3",
    b"null",
    b"\xc3\xa9",
    b"\xff",
    b'"a":1,',
]
SCRAPS += [
    b"9" * 19,
    b'"sanitized":["a"],',
    b"\\u00e9",
    b"\\/",
    b'"index":0,',
    b'"mac":"00",',
    b'{"x":[1,{"y":true}]}',
    b'"gpu_device":0,',
]
SECRETISH = st.sampled_from(
    [
        "password",
        "token",
        "secret",
        "bearer",
        "Bearer abc",
        "=",
        ":",
        ": ",
        "hunter2",
        "has",
        "is",
        "of",
        "eyJ",
        ".",
        "eyJhbGciOiJIUzI1NiJ9.e30.abc",
        "https://",
        "user:pw@host",
        "-----BEGIN PRIVATE KEY-----",
        "monkey=x",
        '"',
        "'",
    ]
)


@given(
    st.lists(st.tuples(st.integers(0, len(LINE)), st.integers(0, 40), st.sampled_from(SCRAPS)), max_size=3)
)
def test_a_glance_accepts_only_what_parsing_accepts(edits: list[tuple[int, int, bytes]]) -> None:
    line = LINE
    for where, length, scrap in edits:
        line = line[:where] + scrap + line[where + length :]
    seen = GLANCE.look(line, 0)
    if seen is None:
        return
    entry = parse_entry(line)
    assert (entry.index, entry.timestamp, entry.event_type) == (0, seen.timestamp, seen.event_type)
    assert (entry.service_id, entry.audit_id) == (seen.service_id, seen.audit_id)
    assert (entry.unverified_mac, entry.sanitized) == (seen.unverified_mac, ())


@given(
    st.dictionaries(
        st.text(max_size=5),
        st.integers() | st.booleans() | st.none() | st.floats() | st.text() | st.lists(st.integers()),
    )
)
def test_a_glance_agrees_with_parsing_on_any_fields(fields: dict[str, object]) -> None:
    head = json.loads(LINE)
    body = {name: head[name] for name in list(head)[:5]} | fields
    line = (
        json.dumps(body, separators=(",", ":"), ensure_ascii=False).encode("utf-8", "replace")[:-1]
        + LINE[-74:]
    )
    seen = GLANCE.look(line, 0)
    try:
        parse_entry(line)
    except EntryFormatError:
        assert seen is None


def test_ordinary_entries_are_known_at_a_glance() -> None:
    assert GLANCE.look(LINE, 0) is not None
    assert GLANCE.look(LINE, 1) is None


@given(
    st.dictionaries(
        st.sampled_from("abc"),
        st.integers() | st.lists(SECRETISH, max_size=4).map("".join) | st.text(max_size=6),
    )
)
def test_the_short_way_of_cleaning_never_spares_what_the_long_way_changes(fields: dict[str, object]) -> None:
    if cleaning._is_plainly_clean(fields):
        seen = cleaning._Seen()
        assert cleaning._clean(fields, cleaning._LIMITS[0], seen) == (fields, ())
        assert clean_fields(fields) == (fields, ())
