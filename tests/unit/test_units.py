"""Sizes, times and shares as the sentences show them."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vram_residency.narration.units import milliseconds, number, percent, rate, size, sizes_apart

KB, MB, GB = 1 << 10, 1 << 20, 1 << 30


@pytest.mark.parametrize(
    ("size_bytes", "text"),
    [
        (0, "0 B"),
        (1, "1 B"),
        (1023, "1023 B"),
        (KB, "1 KB"),
        (512 * KB, "512 KB"),
        (1_000_000, "976.6 KB"),
        (MB - 1, "1 MB"),
        (MB, "1 MB"),
        (MB + MB // 2, "1.5 MB"),
        (16_000_000_000, "14.9 GB"),
        (80 * GB, "80 GB"),
        (3 << 40, "3 TB"),
        (1 << 62, "4096 PB"),
    ],
)
def test_sizes_pick_the_unit_that_fits(size_bytes: int, text: str) -> None:
    """Units of 1024, one decimal at most."""
    assert size(size_bytes) == text


@given(st.integers(1, 1 << 63))
def test_no_size_but_nothing_is_shown_as_zero(size_bytes: int) -> None:
    """And none with four digits before the last unit."""
    value, unit = size(size_bytes).split()
    assert float(value) > 0
    assert float(value) < 1024 or unit == "PB"


def test_two_sizes_that_differ_look_different() -> None:
    """A request one byte too large does not read "16 MB requested, 16 MB available"."""
    assert sizes_apart(16 * MB, 16 * MB - 1) == ("16777216 B", "16777215 B")
    assert sizes_apart(16 * MB, 16 * MB) == ("16 MB", "16 MB")
    assert sizes_apart(2 * MB, MB) == ("2 MB", "1 MB")


@pytest.mark.parametrize(
    ("duration_ms", "text"),
    [
        (None, "n/a ms"),
        (math.nan, "n/a ms"),
        (math.inf, "n/a ms"),
        (-1, "n/a ms"),
        (0, "0 ms"),
        (0.0001, "<0.001 ms"),
        (0.42, "0.42 ms"),
        (2, "2 ms"),
        (2.0, "2 ms"),
        (2.345, "2.35 ms"),
        (12.34, "12.3 ms"),
        (148.6, "149 ms"),
        (1_234_567.8, "1234568 ms"),
    ],
)
def test_durations_keep_about_three_digits(duration_ms: float | None, text: str) -> None:
    """Fractions of a millisecond matter, those of a second do not."""
    assert milliseconds(duration_ms) == text


@pytest.mark.parametrize(
    ("part", "whole", "text"),
    [
        (0, 0, "n/a"),
        (5, 0, "n/a"),
        (0, 10, "0%"),
        (1, 4, "25%"),
        (1, 8, "12.5%"),
        (1, 100_000, "<0.1%"),
        (3, 3, "100%"),
    ],
)
def test_a_percentage_of_zero_is_not_applicable(part: int, whole: int, text: str) -> None:
    """And a small share is not nothing."""
    assert percent(part, whole) == text


def test_a_rate_needs_time_to_have_passed() -> None:
    """No division by zero, no infinite rate."""
    assert rate(MB, 1000) == "1 MB"
    assert rate(MB, 0) == "n/a"
    assert rate(MB, None) == "n/a"
    assert rate(MB, math.inf) == "n/a"


def test_numbers_have_no_superfluous_fraction() -> None:
    """As in the console form."""
    assert [number(value) for value in (2.0, 2, 2.5, 0.1234)] == ["2", "2", "2.5", "0.123"]
