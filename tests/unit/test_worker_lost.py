"""What a worker that died had held is found backwards, segment by segment."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from vram_residency.worker.lost import Span, span_of

WORKER = "w"
IDS = st.sampled_from(["a", "b", "c", "d"])


def sealed(shard_id: str, worker_id: str = WORKER) -> dict[str, Any]:
    """The entry of a seal."""
    return {"event_type": "vram_sealed", "shard_id": shard_id, "worker_id": worker_id}


def freed(shard_id: str) -> dict[str, Any]:
    """The entry of memory that was given back."""
    return {"event_type": "vram_deallocated", "shard_id": shard_id, "worker_id": WORKER}


def began(to_state: str = "loading") -> dict[str, Any]:
    """The entry of a worker's first change of state."""
    return {
        "event_type": "worker_state_changed",
        "worker_id": WORKER,
        "from_state": "starting",
        "to_state": to_state,
    }


def lost(*shard_ids: str) -> dict[str, Any]:
    """The entry of shards that were lost."""
    return {"event_type": "shards_lost", "shard_ids": list(shard_ids)}


ENTRIES = st.lists(
    IDS.map(sealed) | IDS.map(freed) | st.just(began()) | IDS.map(lost) | st.just(sealed("a", "another")),
    max_size=20,
)


@given(ENTRIES, st.lists(st.integers(0, 20), max_size=4))
def test_a_log_in_segments_says_the_same_as_a_log_in_one(entries: list[dict[str, Any]], cuts: list[int]):
    edges = sorted({0, len(entries), *(cut for cut in cuts if cut < len(entries))})
    parts = [entries[start:end] for start, end in pairwise(edges)]
    whole = Span(WORKER)
    for part in reversed(parts):
        whole.put_before(span_of(part, WORKER))
        if whole.has_begun:
            break
    assert set(whole.held) == set(span_of(entries, WORKER).held)


def test_only_the_last_session_counts_and_in_the_order_of_sealing():
    entries = [sealed("old"), began(), sealed("b"), sealed("a"), sealed("c"), freed("a")]
    assert list(span_of(entries, WORKER).held) == ["b", "c"]


def test_what_was_recorded_as_lost_is_not_lost_again():
    assert not span_of([began(), sealed("a"), lost("a")], WORKER).held


def test_a_start_that_failed_hides_nothing():
    assert list(span_of([began(), sealed("a"), began("stopped")], WORKER).held) == ["a"]


def test_entries_of_another_form_are_passed_over():
    odd = [{}, {"event_type": 7}, {"event_type": "vram_sealed", "worker_id": WORKER, "shard_id": 7}]
    assert not span_of(odd, WORKER).held
