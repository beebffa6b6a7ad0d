"""Whatever a disk kept of what was not synced, the log opens and has every durable event."""

from __future__ import annotations

from functools import cache

from hypothesis import given
from hypothesis import strategies as st
from tests.faults import power
from tests.faults.scenarios import SCENARIOS
from tests.faults.workplace import workplace


@cache
def _moments(name: str) -> list[power.Moment]:
    """Of one run: choices are made from them again and again."""
    with workplace() as folder:
        return power.moments(SCENARIOS[name], folder / "log")


@given(st.sampled_from(sorted(SCENARIOS)), st.data(), st.integers(0, 2**32 - 1))
def test_the_log_survives_any_loss_of_power(name: str, data: st.DataObject, seed: int) -> None:
    moments = _moments(name)
    number = data.draw(st.integers(0, len(moments) - 1), label="call")
    with workplace() as folder:
        power.try_moment(SCENARIOS[name], moments[number], folder / "log", seed)
