"""Scopes: how much of a shard one verification reads."""

from __future__ import annotations

import pytest

from vram_residency.core.errors import InvalidInputError
from vram_residency.residency.scope import FAST, FULL, SAMPLE_BYTES, parse_scope, sample


def test_words_and_scopes_are_accepted_alike():
    assert parse_scope("full") == FULL
    assert parse_scope("fast") == FAST
    assert parse_scope("sample").bytes == SAMPLE_BYTES
    assert parse_scope(sample(0.5)).fraction == 0.5


@pytest.mark.parametrize("scope", ["", "FULL", "half", None, 3, b"full", ["full"]])
def test_any_other_word_is_refused(scope: object):
    with pytest.raises(InvalidInputError, match="scope"):
        parse_scope(scope)


@pytest.mark.parametrize("fraction", [0, -0.1, 1.1, float("nan")])
def test_a_fraction_outside_its_range_is_refused(fraction: float):
    with pytest.raises(InvalidInputError, match="fraction"):
        sample(fraction)


def test_a_sample_of_no_bytes_or_of_two_sizes_is_refused():
    with pytest.raises(InvalidInputError, match="at least 1 byte"):
        sample(bytes=0)
    with pytest.raises(InvalidInputError, match="not both"):
        sample(0.5, bytes=5)
