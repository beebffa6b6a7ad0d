"""The quick ways agree with the slow ones: in parsing an entry and in cleaning its fields."""

from __future__ import annotations

import json

from hypothesis import given
from hypothesis import strategies as st
from tests.independent_log import LogMaker, make_log

from vram_residency.audit.events import cleaning
from vram_residency.audit.events.cleaning import clean_fields
from vram_residency.audit.events.registry import LOG_OWN_TYPES
from vram_residency.audit.format.entry import parse_entry
from vram_residency.audit.reading.shapes import SHAPES_MAX, Shapes

MAKER = LogMaker()
MAKER.seal()
LINE = MAKER.lines[0]
ACTOR = {"user_id": "Zoë", "auth_method": "internal"}
MAKER.append("token_created", actor=ACTOR, scope=["read", "a\\b"], sanitized=["actor.user_id"])
MAKER.append("acme.thing", nested=[{"a": [None, True, -3]}, [1, 2], []], ratio=12)
SHAPES = Shapes(MAKER.service_id, MAKER.ident.hex())
for known in MAKER.lines:
    SHAPES.learn(parse_entry(known))
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


def require_sound(line: bytes) -> None:
    """Where a line is recognised, parsing accepts it and says the same."""
    for index, timestamp, mac in SHAPES.rows(line + b"\n"):
        entry = parse_entry(line)
        assert (entry.index, entry.timestamp) == (int(index), timestamp.decode())
        assert (entry.service_id, entry.unverified_mac.hex()) == (MAKER.service_id, mac.decode())
        assert entry.audit_id == f"{MAKER.ident.hex()}-{entry.index}"
        assert entry.event_type not in LOG_OWN_TYPES


@given(
    st.sampled_from(MAKER.lines),
    st.lists(st.tuples(st.integers(0, len(LINE)), st.integers(0, 40), st.sampled_from(SCRAPS)), max_size=3),
)
def test_what_is_recognised_is_what_parsing_accepts(line: bytes, edits: list[tuple[int, int, bytes]]) -> None:
    for where, length, scrap in edits:
        line = line[:where] + scrap + line[where + length :]
    if b"\n" not in line:
        require_sound(line)


@given(st.sampled_from(MAKER.lines), st.data())
def test_no_change_of_one_byte_is_recognised_that_parsing_refuses(line: bytes, data: st.DataObject) -> None:
    where = data.draw(st.integers(0, len(line) - 1))
    byte = data.draw(st.integers(0, 255).filter(lambda value: value != 10))
    require_sound(line[:where] + bytes([byte]) + line[where + 1 :])


@given(st.text() | st.integers() | st.booleans() | st.none() | st.lists(st.text()), st.text(max_size=9))
def test_values_of_any_kind_are_recognised_only_as_parsing_reads_them(value: object, text: str) -> None:
    """In another spelling than the canonical one, too."""
    for ascii_only in (False, True):
        inner = json.dumps(value, separators=(",", ":"), ensure_ascii=ascii_only)
        line = LINE.replace(b'"shard-0"', inner.encode("utf-8", "surrogatepass")).replace(
            b'"worker-1"', json.dumps(text, ensure_ascii=ascii_only).encode("utf-8", "surrogatepass")
        )
        require_sound(line)


def test_lines_of_known_shapes_are_recognised_and_no_others() -> None:
    block = b"".join(line + b"\n" for line in MAKER.lines)
    assert [int(index) for index, _, _ in SHAPES.rows(block)] == [0, 1, 2]
    assert SHAPES.rows(b"x" + block[: len(LINE) + 1]) == []
    assert SHAPES.rows(LINE) == []  # no newline
    assert SHAPES.rows(LINE.replace(b"vram_sealed", b"vram_sealer") + b"\n") == []


def test_the_logs_own_events_are_never_recognised() -> None:
    maker = make_log()
    shapes = Shapes(maker.service_id, maker.ident.hex())
    for line in maker.lines:
        shapes.learn(parse_entry(line))
    block = b"".join(line + b"\n" for line in maker.lines)
    assert len(shapes.rows(block)) == len(maker.lines) - 3


def test_only_so_many_shapes_are_learned() -> None:
    maker = LogMaker()
    shapes = Shapes(maker.service_id, maker.ident.hex())
    for number in range(SHAPES_MAX + 5):
        maker.append(f"acme.type{number}", value=number)
        shapes.learn(parse_entry(maker.lines[-1]))
    block = b"".join(line + b"\n" for line in maker.lines)
    assert len(shapes.rows(block)) == SHAPES_MAX


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
