"""The budget: concurrent seals never overshoot, whatever the order of their steps."""

from __future__ import annotations

import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vram_residency.core.errors import InsufficientMemoryError, InvalidInputError
from vram_residency.residency.budget import Budget


@given(
    total=st.integers(0, 1000),
    headroom=st.integers(0, 1000),
    requests=st.lists(st.integers(1, 400), max_size=30),
)
def test_used_never_exceeds_total_less_headroom(total: int, headroom: int, requests: list[int]):
    if headroom > total:
        with pytest.raises(InvalidInputError, match="headroom_bytes"):
            Budget(total_bytes=total, headroom_bytes=headroom)
        return
    budget, granted = Budget(total_bytes=total, headroom_bytes=headroom), []
    for request in requests:
        before = budget.capacity()
        if request <= before.available_bytes:
            budget.reserve(request)
            granted.append(request)
        else:
            with pytest.raises(InsufficientMemoryError, match=f"{request} bytes requested"):
                budget.reserve(request)
            assert budget.capacity() == before
        now = budget.capacity()
        assert now.used_bytes == sum(granted) <= total - headroom
        assert now.available_bytes == total - headroom - now.used_bytes
    for request in granted:
        budget.release(request)
    assert budget.capacity().used_bytes == 0


def test_threads_that_race_for_the_last_bytes_never_overshoot():
    budget, won = Budget(total_bytes=100), []
    start = threading.Barrier(8)

    def race() -> None:
        start.wait()
        for _ in range(200):
            try:
                budget.reserve(7)
                won.append(7)
            except InsufficientMemoryError:
                return

    threads = [threading.Thread(target=race) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sum(won) == 98 == budget.capacity().used_bytes


def test_releasing_what_was_never_reserved_is_a_bug_that_shows():
    with pytest.raises(AssertionError, match="more bytes released"):
        Budget(total_bytes=10).release(1)
