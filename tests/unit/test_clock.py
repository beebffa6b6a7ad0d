"""Times of records: UTC, microseconds, and back again."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vram_residency.core.clock import SYSTEM_CLOCK, parse_rfc3339, rfc3339

YEAR_9999_S = 253_402_300_799


def test_the_epoch_has_its_known_form() -> None:
    """Microseconds are always written, the zone is Z."""
    assert rfc3339(0) == "1970-01-01T00:00:00.000000Z"
    assert rfc3339(1_759_399_200_123_456_789) == "2025-10-02T10:00:00.123456Z"


@given(st.integers(min_value=0, max_value=YEAR_9999_S * 10**6))
def test_a_printed_time_parses_to_itself(epoch_us: int) -> None:
    """Print and parse are inverse down to the microsecond."""
    assert parse_rfc3339(rfc3339(epoch_us * 1000)) == epoch_us * 1000


@given(st.integers(min_value=0, max_value=YEAR_9999_S * 10**9))
def test_printing_keeps_the_order_of_times(epoch_ns: int) -> None:
    """Texts sort as the times do, which queries rely on."""
    assert rfc3339(epoch_ns) <= rfc3339(epoch_ns + 1)


def test_an_offset_is_taken_into_account() -> None:
    """Times of other zones mean the same instant."""
    assert parse_rfc3339("2025-10-02T12:00:00+02:00") == parse_rfc3339("2025-10-02T10:00:00Z")


@pytest.mark.parametrize("text", ["2025-10-02T10:00:00", "yesterday", "", "2025-13-01T00:00:00Z"])
def test_a_time_without_zone_or_sense_is_refused(text: str) -> None:
    """ValueError is the answer, whatever the text."""
    with pytest.raises(ValueError, match=r"zone|format|month"):
        parse_rfc3339(text)


def test_the_monotonic_clock_never_steps_back() -> None:
    """Durations are never negative."""
    readings = [SYSTEM_CLOCK.monotonic_ns() for _ in range(100)]
    assert readings == sorted(readings)
