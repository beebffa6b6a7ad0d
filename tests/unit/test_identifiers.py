"""Identifiers: one form each, and no way round it."""

from __future__ import annotations

import string
import uuid

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vram_residency.core import identifiers
from vram_residency.core.errors import InvalidInputError

SHARD_CHARACTERS = string.ascii_letters + string.digits + "_-"


@given(st.text(SHARD_CHARACTERS, min_size=1, max_size=256))
def test_every_text_of_the_character_set_is_a_shard_id(text: str) -> None:
    """1 to 256 characters are taken unchanged."""
    assert identifiers.parse_shard_id(text) == text
    assert identifiers.parse_worker_id(text) == text


@given(st.text(min_size=1).filter(lambda text: not set(text) <= set(SHARD_CHARACTERS)))
def test_any_other_character_is_refused(text: str) -> None:
    """Spaces, slashes, newlines and the rest of Unicode have no place in an identifier."""
    with pytest.raises(InvalidInputError, match=r"shard_id: must be 1 to 256"):
        identifiers.parse_shard_id(text)


@pytest.mark.parametrize("value", ["", "a" * 257, "a\n", "a\x00", "ä", "../x", None, 7, b"a"])
def test_the_edges_of_a_shard_id_are_refused(value: object) -> None:
    """Empty, too long, a trailing newline, and what is not text at all."""
    with pytest.raises(InvalidInputError, match=r"must be"):
        identifiers.parse_shard_id(value)  # type: ignore[arg-type]


def test_an_error_names_the_field_it_is_about() -> None:
    """A worker id is not reported as a shard id."""
    with pytest.raises(InvalidInputError, match=r"^worker_id: "):
        identifiers.parse_worker_id("no spaces")


@pytest.mark.parametrize("text", ["worker-gpu-0", "a.b_c-d", "x" * 128])
def test_a_service_id_may_hold_dots(text: str) -> None:
    """1 to 128 of letters, digits, dot, underscore and dash."""
    assert identifiers.parse_service_id(text) == text


@pytest.mark.parametrize("text", ["", "x" * 129, "a/b", "a b", "a\n"])
def test_a_service_id_outside_its_set_is_refused(text: str) -> None:
    """A slash would change the origin of a log."""
    with pytest.raises(InvalidInputError, match="service_id"):
        identifiers.parse_service_id(text)


def test_new_shard_ids_are_valid_and_differ() -> None:
    """shard- and 32 random hex digits."""
    first, second = identifiers.new_shard_id(), identifiers.new_shard_id()
    assert identifiers.parse_shard_id(first) == first != second
    assert len(first) == len("shard-") + 32
    int(first.removeprefix("shard-"), 16)


def test_a_new_correlation_id_is_a_uuid_and_valid() -> None:
    """What is made here passes the check that callers' ids pass."""
    made = identifiers.new_correlation_id()
    assert str(uuid.UUID(made)) == made
    assert identifiers.is_correlation_id(made)
    assert not identifiers.is_correlation_id("two\nlines")
