"""The writer's short ways give the bytes that the long ways give."""

from __future__ import annotations

import msgspec
from hypothesis import given
from hypothesis import strategies as st
from tests.audit_logs import sealed

from vram_residency.audit.events.cleaning import clean_fields
from vram_residency.audit.events.content import Content, accept, are_plain
from vram_residency.audit.format import chain, tree
from vram_residency.audit.writing.draft import Draft, Identity, Position
from vram_residency.core.redaction import forget_secret, register_secret

KIND = accept(sealed()).kind
TEXTS = st.one_of(
    st.text(max_size=40),
    st.sampled_from(
        ["password=hunter2", "Bearer abcdef", "\\u{202E}", "a\x7f", "plain", "https://a:b@c/d", "["]
    ),
    st.text("ab", min_size=1000, max_size=1100),
)
VALUES = st.one_of(TEXTS, st.integers(0, 2**63 - 1), st.booleans(), st.lists(st.integers(0, 9), max_size=300))
FIELDS = st.dictionaries(st.text("abcdefg_", min_size=1, max_size=9), VALUES, max_size=5)


def _content(fields: dict[str, object], envelope: dict[str, object] | None = None) -> Content:
    return Content(KIND, msgspec.json.encode(fields), b"", msgspec.json.encode(envelope) if envelope else b"")


@given(st.lists(st.tuples(FIELDS, FIELDS), min_size=1, max_size=3))
def test_what_is_called_plain_is_what_cleaning_leaves_alone(pairs: list[tuple[dict, dict]]) -> None:
    if are_plain([_content(fields, envelope) for fields, envelope in pairs]):
        for pair in pairs:
            for fields in pair:
                assert clean_fields(fields) == (fields, ())


def test_ordinary_events_are_plain_and_a_secret_among_them_is_seen() -> None:
    contents = [accept(sealed(number)) for number in range(5)]
    assert are_plain(contents)
    register_secret("shard-3")
    try:
        assert not are_plain(contents)
        assert are_plain(contents[:3])
    finally:
        forget_secret("shard-3")


@given(
    st.binary(min_size=32, max_size=32),
    st.lists(st.integers(0, 4 * 10**18), min_size=1, max_size=6),
    st.dictionaries(st.text("abc", min_size=1, max_size=5), st.integers(0, 9), min_size=1),
)
def test_a_plain_entry_is_the_same_as_an_entry_made_the_long_way(
    key: bytes, times_ns: list[int], fields: dict[str, object]
) -> None:
    long, short, one_by_one = (_draft(key) for _ in range(3))
    indexes = [long.add("acme.thing", time_ns, fields) for time_ns in sorted(times_ns)]
    events = [("acme.thing", time_ns, msgspec.json.encode(fields)) for time_ns in sorted(times_ns)]
    assert short.add_plain(events) == range(len(events))
    assert [one_by_one.add_plain([event]) for event in events] == [range(i, i + 1) for i in indexes]
    for draft in (short, one_by_one):
        assert long.data == draft.data
        assert long.leaf_hashes == draft.leaf_hashes
        assert long.end == draft.end


@given(st.lists(st.integers(0, 4 * 10**18), min_size=1, max_size=6))
def test_plain_entries_are_refused_together_where_the_clock_stepped_back(times_ns: list[int]) -> None:
    draft = _draft(b"k" * 32)
    draft.add("acme.thing", 10**18, {"a": 1})
    before = (draft.data, draft.end)
    times_us = [time_ns // 1000 for time_ns in (10**18, *times_ns)]
    added = draft.add_plain([("acme.thing", time_ns, b'{"a":1}') for time_ns in times_ns])
    assert (added is None) == (times_us != sorted(times_us))
    if added is None:
        assert (draft.data, draft.end) == before


def _draft(key: bytes) -> Draft:
    start = Position(tree.Frontier(), chain.initial_mac("w/0"), None)
    return Draft(Identity("worker-0", "0123abcd"), start, key)


@given(st.binary(min_size=32, max_size=32), st.binary(min_size=32, max_size=32), st.lists(st.binary()))
def test_copied_states_give_the_macs_of_the_specification(
    key: bytes, previous: bytes, bodies: list[bytes]
) -> None:
    expected = [previous]
    for body in bodies:
        expected.append(chain.next_mac(key, expected[-1], body))
        assert chain.MacChain(key).next(expected[-2], body) == expected[-1]
    assert chain.MacChain(key).macs(previous, bodies) == expected[1:]
