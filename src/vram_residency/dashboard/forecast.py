"""When the device will be full, if it goes on as it has: from points in time, and honest about it. Pure.

Used bytes are a staircase. It is read at even moments of the time observed, and the slope is the median of
the slopes between all pairs of them (Theil, Sen): one large load among quiet hours is no trend. Earliest and
latest come from the slopes' quartiles.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import combinations, pairwise
from statistics import quantiles
from typing import Final, Literal

import msgspec

#: Below either of these there is nothing to tell.
CHANGES_MIN: Final = 4
OBSERVED_S_MIN: Final = 120.0
#: Only what happened in this time counts.
WINDOW_S: Final = 24 * 3600.0
#: A day that is that far away is no forecast.
HORIZON_S: Final = 30 * 24 * 3600.0
_MOMENTS: Final = 33


class Point(msgspec.Struct, frozen=True):
    """From ``at_s`` (Unix time) on, ``used_bytes`` were used."""

    at_s: float
    used_bytes: int


class Forecast(msgspec.Struct, frozen=True, kw_only=True):
    """What can be said: only ``full`` has times (Unix), and ``latest_s`` is None where it may never be.

    observed_s: the time that it rests on; changes: how often the used bytes changed in it.
    """

    kind: Literal["too_few", "steady", "falling", "full", "is_full"]
    observed_s: float
    changes: int
    full_s: float | None = None
    earliest_s: float | None = None
    latest_s: float | None = None


def forecast(points: Sequence[Point], *, now_s: float, usable_bytes: int) -> Forecast:
    """``points`` in order of time, ``usable_bytes`` all that shards may take."""
    seen = list(_within(points, now_s - WINDOW_S))
    observed_s = now_s - seen[0].at_s if seen else 0.0
    changes = sum(a.used_bytes != b.used_bytes for a, b in pairwise(seen))
    used_bytes = seen[-1].used_bytes if seen else 0
    if used_bytes >= usable_bytes:
        return Forecast(kind="is_full", observed_s=observed_s, changes=changes)
    if changes < CHANGES_MIN or observed_s < OBSERVED_S_MIN:
        return Forecast(kind="too_few", observed_s=observed_s, changes=changes)
    low, middle, high = _slopes(seen, now_s)
    left = usable_bytes - used_bytes
    if middle <= 0 or left / middle > HORIZON_S:
        kind: Literal["steady", "falling"] = "falling" if high < 0 else "steady"
        return Forecast(kind=kind, observed_s=observed_s, changes=changes)
    return Forecast(
        kind="full",
        observed_s=observed_s,
        changes=changes,
        full_s=now_s + left / middle,
        earliest_s=now_s + left / high,
        latest_s=now_s + left / low if low > 0 else None,
    )


def _within(points: Sequence[Point], from_s: float) -> Iterator[Point]:
    """The points since ``from_s``, led by what held then."""
    before = [point for point in points if point.at_s < from_s]
    if before:
        yield Point(from_s, before[-1].used_bytes)
    yield from (point for point in points if point.at_s >= from_s)


def _slopes(points: Sequence[Point], now_s: float) -> tuple[float, float, float]:
    """Quartiles of the slopes between all pairs of moments, in bytes per second."""
    step_s = (now_s - points[0].at_s) / (_MOMENTS - 1)
    moments = [points[0].at_s + number * step_s for number in range(_MOMENTS)]
    levels = [_level(points, moment) for moment in moments]
    slopes = [(b[1] - a[1]) / (b[0] - a[0]) for a, b in combinations(zip(moments, levels, strict=True), 2)]
    low, middle, high = quantiles(slopes, n=4)
    return low, middle, high


def _level(points: Sequence[Point], moment_s: float) -> int:
    """The used bytes at one moment."""
    held = [point.used_bytes for point in points if point.at_s <= moment_s]
    return held[-1] if held else points[0].used_bytes
