"""Numbers as people read them: the unit that fits, and no more digits than they can use."""

from __future__ import annotations

import math

_UNITS = ("B", "KB", "MB", "GB", "TB", "PB")
_STEP = 1024
NOT_APPLICABLE = "n/a"


def size(size_bytes: int) -> str:
    """``512 KB``, ``1 MB``, ``14.9 GB``: units of 1024, at most one decimal. Never ``0 MB``."""
    value = float(max(size_bytes, 0))
    for unit in _UNITS:
        # 1023.95 would be printed as 1024.0 of this unit: it is 1 of the next.
        if round(value, 1) < _STEP:
            return f"{_plain(value, 1)} {unit}"
        value /= _STEP
    return f"{_plain(value * _STEP, 1)} {_UNITS[-1]}"


def sizes_apart(first_bytes: int, second_bytes: int) -> tuple[str, str]:
    """Two sizes; exact bytes where rounding would make different sizes look the same."""
    first, second = size(first_bytes), size(second_bytes)
    if first == second and first_bytes != second_bytes:
        return f"{first_bytes} B", f"{second_bytes} B"
    return first, second


def milliseconds(duration_ms: float | None) -> str:
    """``2 ms``, ``2.35 ms``, ``148 ms``: three digits where there are that many, never an exponent."""
    if duration_ms is None or not 0 <= duration_ms < math.inf:
        return f"{NOT_APPLICABLE} ms"
    if 0 < duration_ms < 0.001:  # noqa: PLR2004 - the last decimal shown
        return "<0.001 ms"
    decimals = 3 if duration_ms < 1 else 2 if duration_ms < 10 else 1 if duration_ms < 100 else 0  # noqa: PLR2004
    return f"{_plain(duration_ms, decimals)} ms"


def percent(part: int, whole: int) -> str:
    """``25%``, ``12.5%``; ``n/a`` of zero."""
    if whole <= 0:
        return NOT_APPLICABLE
    share = 100 * part / whole
    return "<0.1%" if 0 < share < 0.05 else f"{_plain(share, 1)}%"  # noqa: PLR2004 - would show as 0%


def rate(size_bytes: int, duration_ms: float | None) -> str:
    """Bytes per second without the ``/s``: ``9.1 GB``; ``n/a`` where no time has passed."""
    if duration_ms is None or not 0 < duration_ms < math.inf:
        return NOT_APPLICABLE
    return size(int(size_bytes * 1000 / duration_ms))


def number(value: float) -> str:
    """A number without a superfluous fraction: ``2`` for 2.0."""
    return _plain(float(value), 3)


def _plain(value: float, decimals: int) -> str:
    text = f"{value:.{decimals}f}"
    return text.rstrip("0").rstrip(".") if "." in text else text
