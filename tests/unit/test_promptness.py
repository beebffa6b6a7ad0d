"""Threads take turns quickly while somebody waits for the disk, and then as before."""

from __future__ import annotations

import sys
from collections.abc import Iterator

import pytest

from vram_residency.audit.writing.promptness import INTERVAL_S, prompt_interpreter


@pytest.fixture(autouse=True)
def _usual_interval() -> Iterator[None]:
    usual_s = sys.getswitchinterval()
    yield
    sys.setswitchinterval(usual_s)


def test_the_interval_is_short_until_the_last_waiter_is_done() -> None:
    sys.setswitchinterval(0.004)
    with prompt_interpreter():
        with prompt_interpreter():
            assert sys.getswitchinterval() == pytest.approx(INTERVAL_S)
        assert sys.getswitchinterval() == pytest.approx(INTERVAL_S)
    assert sys.getswitchinterval() == pytest.approx(0.004)


def test_an_interval_that_somebody_set_in_between_stays() -> None:
    with prompt_interpreter():
        sys.setswitchinterval(0.02)
    assert sys.getswitchinterval() == pytest.approx(0.02)


def test_a_shorter_interval_is_not_made_longer() -> None:
    sys.setswitchinterval(0.00002)
    with prompt_interpreter():
        assert sys.getswitchinterval() == pytest.approx(0.00002)
    assert sys.getswitchinterval() == pytest.approx(0.00002)
