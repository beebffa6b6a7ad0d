"""Processes that emit from several threads are killed at random moments, two hundred times."""

from __future__ import annotations

import pytest
from tests.faults.kills import KILLS_PER_LOG, kill_many
from tests.faults.workplace import workplace


@pytest.mark.parametrize("seed", range(8))
def test_every_acknowledged_event_is_in_the_log_once_and_in_order(seed: int) -> None:
    with workplace() as folder:
        tally = kill_many(folder, KILLS_PER_LOG, seed)
    assert tally.early < tally.kills, "no writer lived long enough to emit"
    assert tally.recovered > 0
