"""The worker's state follows from what holds; what is fatal is final."""

from __future__ import annotations

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from vram_residency.audit import WorkerStateChanged
from vram_residency.testing import MemoryLog, capture_narration
from vram_residency.worker.states import Conditions, State, step
from vram_residency.worker.watchman import Watchman

CONDITIONS = st.builds(
    Conditions,
    has_begun=st.booleans(),
    may_be_empty=st.booleans(),
    usable_shards=st.integers(0, 3),
    executions=st.integers(0, 3),
    is_draining=st.booleans(),
    has_ended=st.booleans(),
    stopped_by=st.none() | st.just("damage"),
)


@given(CONDITIONS)
def test_nothing_is_executed_without_a_verified_shard_or_the_wish_to_start_empty(conditions: Conditions):
    if conditions.is_ready and not conditions.executions:
        assert conditions.usable_shards or conditions.may_be_empty


@given(CONDITIONS)
def test_a_worker_that_was_stopped_admits_nothing(conditions: Conditions):
    stopped = msgspec.structs.replace(conditions, stopped_by="damage")
    assert (stopped.state, stopped.admits, stopped.is_ready) == (State.STOPPED, False, False)


@given(CONDITIONS)
def test_a_draining_worker_admits_nothing_new(conditions: Conditions):
    draining = msgspec.structs.replace(conditions, is_draining=True)
    assert not draining.admits
    assert not draining.is_ready


@given(CONDITIONS, CONDITIONS)
def test_a_step_is_told_exactly_where_the_state_differs(before: Conditions, after: Conditions):
    change = step(before, after, "because")
    assert (change is None) == (before.state is after.state)
    if change is not None:
        assert (change.from_state, change.to_state) == (before.state, after.state)
        assert change.reason == (after.stopped_by or "because")


def test_the_life_of_a_worker_is_recorded_and_narrated_in_order():
    log = MemoryLog()
    with capture_narration() as story:
        watchman = Watchman(log, worker_id="w", may_be_empty=False)
        watchman.note("begun", has_begun=True)
        watchman.note("sealed", usable_shards=1)
        with watchman.executing(), watchman.executing():
            assert watchman.conditions.executions == 2
        watchman.note("asked to end", is_draining=True)
        watchman.note("ended", has_ended=True)
    states = ["starting", "loading", "ready", "executing", "ready", "draining", "stopped"]
    changes = log.of_type("worker_state_changed")
    assert [(each["from_state"], each["to_state"]) for each in changes] == [
        (state, states[index + 1]) for index, state in enumerate(states[:-1])
    ]
    assert [each.action for each in story.events] == ["worker_state"] * len(changes)
    assert {each.level for each in story.events} == {"info"}
    assert WorkerStateChanged.__struct_fields__[-4:] == ("worker_id", "from_state", "to_state", "reason")


def test_the_first_reason_to_stop_stays():
    watchman = Watchman(MemoryLog(), worker_id="w", may_be_empty=True)
    with capture_narration() as story:
        watchman.stop("damage in shard a")
        watchman.stop("damage in shard b")
    assert [each.level for each in story.events] == ["error"]
    watchman.note("sealed", usable_shards=5)
    assert watchman.state is State.STOPPED
    assert watchman.conditions.stopped_by == "damage in shard a"
