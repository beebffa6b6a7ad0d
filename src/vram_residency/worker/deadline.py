"""The moment after which a request's answer is of no use to who asked (header X-Deadline-Ms)."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable
from contextvars import ContextVar
from typing import Final, TypeVar

from vram_residency.worker import problem
from vram_residency.worker.problem import Refused

HEADER: Final = "X-Deadline-Ms"
DEADLINE_MS_MAX: Final = 86_400_000

T = TypeVar("T")

#: By ``time.monotonic()``; None waits for ever.
_deadline_s: ContextVar[float | None] = ContextVar("vram_deadline", default=None)


def start(unverified: str | None) -> None:
    """Take over what a request asks for. Raises Refused for what is no number of milliseconds."""
    if unverified is None:
        _deadline_s.set(None)
        return
    is_number = unverified.isascii() and unverified.isdigit() and len(unverified) <= len(str(DEADLINE_MS_MAX))
    if not is_number or not 1 <= int(unverified) <= DEADLINE_MS_MAX:
        raise Refused(problem.INVALID_PARAMS, f"{HEADER} must be a whole number from 1 to {DEADLINE_MS_MAX}")
    _deadline_s.set(time.monotonic() + int(unverified) / 1e3)


def lift() -> None:
    """From here on this context waits for ever: an answer that has begun is not cut off."""
    _deadline_s.set(None)


def remaining_s() -> float | None:
    """Seconds left, 0 or below when it has passed; None without a deadline."""
    deadline_s = _deadline_s.get()
    return None if deadline_s is None else deadline_s - time.monotonic()


def check() -> None:
    """Raise Refused where the deadline has passed."""
    left_s = remaining_s()
    if left_s is not None and left_s <= 0:
        raise _exceeded()


async def within(work: Awaitable[T]) -> T:
    """Wait no longer than the deadline; ``work`` is cancelled then. Raises Refused."""
    limit = asyncio.timeout(remaining_s())
    try:
        async with limit:
            return await work
    except TimeoutError:
        if limit.expired():
            raise _exceeded() from None
        raise  # the work's own


def _exceeded() -> Refused:
    return Refused(problem.DEADLINE_EXCEEDED, "the deadline that the request set has passed")
