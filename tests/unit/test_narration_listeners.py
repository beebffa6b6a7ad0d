"""Listeners hear the story as it is told, from everywhere, and cost nothing where there are none."""

from __future__ import annotations

import contextvars
import io
import threading
from collections.abc import Iterator

import pytest
from tests.narration_calls import call

from vram_residency.narration import NarrationEvent, configure, narrate
from vram_residency.narration.gate import gate
from vram_residency.narration.listeners import listen
from vram_residency.narration.output import lost_events
from vram_residency.narration.vocabulary import DEBUG, INFO, TRACE, WARN


@pytest.fixture
def heard() -> Iterator[list[NarrationEvent]]:
    """Everything of level info and above."""
    events: list[NarrationEvent] = []
    stop = listen(events.append)
    yield events
    stop()


def test_a_listener_hears_what_no_output_shows(heard: list[NarrationEvent]) -> None:
    """Standard logging without configuration drops info; whoever listens does not."""
    configure(level="error", form="json", stream=io.StringIO())
    call("seal", shard_id="s1")
    assert [(each.action, each.target) for each in heard] == [("seal", "s1")]


def test_a_listener_hears_every_thread_and_context(heard: list[NarrationEvent]) -> None:
    """Unlike a capture, which belongs to one context."""
    thread = threading.Thread(target=call, args=("seal",), kwargs={"shard_id": "of a thread"})
    thread.start()
    thread.join()
    contextvars.Context().run(lambda: call("seal", shard_id="of a context"))
    assert [each.target for each in heard] == ["of a thread", "of a context"]


def test_below_its_level_nothing_is_heard(heard: list[NarrationEvent]) -> None:
    """The digest is told at debug; mute events are told to captures alone."""
    call("digest")
    narrate(action="worker_state", target="w", human="silent", level="mute")
    assert heard == []


def test_what_is_heard_is_redacted(heard: list[NarrationEvent]) -> None:
    """Listeners get the very event that outputs get."""
    narrate(action="worker_state", target="w", human="token Bearer abcdefghijklmnopqrstuvwxyz")
    assert "abcdefghijklmnop" not in heard[0].human


def test_the_gate_opens_and_closes_with_the_lowest_listener() -> None:
    """Nobody listening leaves the one comparison that every silent call makes."""
    before = gate.floor
    stop_debug = listen(lambda _event: None, level=DEBUG)
    stop_trace = listen(lambda _event: None, level=TRACE)
    assert gate.floor == TRACE
    stop_trace()
    assert gate.floor == DEBUG
    stop_debug()
    stop_debug()
    assert gate.floor == before == INFO


def test_a_listener_does_not_make_outputs_louder(heard: list[NarrationEvent]) -> None:
    """The threshold of the outputs stays what was configured."""
    shown = io.StringIO()
    configure(level="warn", form="json", stream=shown)
    call("seal", shard_id="s1")
    assert shown.getvalue() == ""
    assert len(heard) == 1
    assert gate.level == WARN


def test_a_listener_that_fails_is_passed_over_and_counted(heard: list[NarrationEvent]) -> None:
    """The operation goes on, the others hear it, and the loss is counted."""

    def fail(_event: NarrationEvent) -> None:
        raise RuntimeError("boom")

    before = lost_events()
    stop = listen(fail)
    call("seal", shard_id="s1")
    stop()
    assert lost_events() == before + 1
    assert len(heard) == 1
