"""Canonical JSON: one value, one sequence of bytes."""

from __future__ import annotations

import json

from hypothesis import given
from hypothesis import strategies as st

from vram_residency.core.canonical import canonical_json

characters = st.characters(exclude_categories=["Cs"])
values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**63 - 1) | st.text(characters),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(characters), inner),
    max_leaves=20,
)


@given(values)
def test_the_bytes_parse_back_to_the_value(value: object) -> None:
    """Nothing is lost or changed on the way."""
    assert json.loads(canonical_json(value)) == value


@given(st.dictionaries(st.text(characters), st.integers(-(2**63), 2**63 - 1)))
def test_the_order_of_insertion_does_not_matter(mapping: dict[str, int]) -> None:
    """Two equal mappings give the same bytes."""
    assert canonical_json(mapping) == canonical_json(dict(reversed(mapping.items())))


@given(values)
def test_a_second_encoder_gives_the_same_bytes(value: object) -> None:
    """Sorted keys, no spaces, UTF-8: what `jq -cS` and Python's own encoder print."""
    plain = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    assert canonical_json(value) == plain.encode()


def test_strings_are_escaped_as_rfc_8785_asks() -> None:
    """Short escapes where there are such, four lower-case hex digits otherwise, the rest as it is."""
    value = '\b\t\n\f\r"\\\x01\x1f\x7f/é€'
    assert canonical_json(value).decode() == '"\\b\\t\\n\\f\\r\\"\\\\\\u0001\\u001f\x7f/é€"'
