"""Capturing narration in tests: whole, redacted events, and assertions that show what was told."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import NoReturn

from vram_residency.narration.event import NarrationEvent, Value
from vram_residency.narration.gate import gate

#: A failed assertion points at the line of the test, not at ours (pytest reads this name).
__tracebackhide__ = True


class Story:
    """What was narrated in a context while it was captured. Safe to use from several threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()  # guards _events and _is_open
        self._events: list[NarrationEvent] = []
        self._is_open = True

    @property
    def events(self) -> list[NarrationEvent]:
        """All events so far, oldest first."""
        with self._lock:
            return list(self._events)

    def one(self, **fields: Value) -> NarrationEvent:
        """The one event with these fields; AssertionError where there is none or more than one."""
        found = [event for event in self.events if _has(event, fields)]
        if len(found) != 1:
            wanted = " ".join(f"{name}={value!r}" for name, value in fields.items())
            self._fail(f"{len(found)} events have {wanted or 'any fields'}, expected exactly one")
        return found[0]

    def includes(self, text: str) -> NarrationEvent:
        """The first event whose sentence includes ``text``; AssertionError where none does."""
        for event in self.events:
            if text in event.human:
                return event
        return self._fail(f"no sentence includes {text!r}")

    def field(self, name: str, value: Value) -> NarrationEvent:
        """The first event whose field ``name`` equals ``value``; AssertionError where none does."""
        for event in self.events:
            if _has(event, {name: value}):
                return event
        return self._fail(f"no event has {name}={value!r}")

    def correlation_id_present(self) -> NarrationEvent:
        """The first event with a correlation id; AssertionError where none has one."""
        for event in self.events:
            if event.correlation_id:
                return event
        return self._fail("no event has a correlation_id")

    def in_order(self, *actions: str) -> list[NarrationEvent]:
        """The events with these actions, one after the other, others between allowed; else AssertionError."""
        events = iter(self.events)
        found: list[NarrationEvent] = []
        for action in actions:
            event = next((event for event in events if event.action == action), None)
            if event is None:
                after = f" after {found[-1].action!r}" if found else ""
                self._fail(f"{action!r} did not happen{after}; expected in order: {', '.join(actions)}")
            found.append(event)
        return found

    def record(self, event: NarrationEvent) -> None:
        """Take one more event, unless the capture has ended."""
        with self._lock:
            if self._is_open:
                self._events.append(event)

    def close(self) -> None:
        """Take no more events; those captured stay."""
        with self._lock:
            self._is_open = False

    def __repr__(self) -> str:
        lines = "".join(f"\n  {_shown(event)}" for event in self.events)
        return f"captured narration:{lines or ' nothing'}"

    def _fail(self, finding: str) -> NoReturn:
        raise AssertionError(f"{finding}\n{self!r}")


_stories: ContextVar[tuple[Story, ...]] = ContextVar("vram_stories", default=())


def stories() -> tuple[Story, ...]:
    """The captures that this context takes part in, outermost first."""
    return _stories.get()


@contextmanager
def capture_narration() -> Iterator[Story]:
    """Capture everything narrated in this context, at every level, until the block ends.

    Tasks and ``asyncio.to_thread`` take their context along and are captured; a plain thread has its own
    context. Captures may be nested: the outer ones see what the inner ones see. Outputs go on as before.
    """
    story = Story()
    _stories.set((*_stories.get(), story))
    gate.capture_begins()
    try:
        yield story
    finally:
        gate.capture_ends()
        story.close()
        # Not reset(token): a fixture's teardown may run in another context than its setup.
        _stories.set(tuple(other for other in _stories.get() if other is not story))


def _has(event: NarrationEvent, fields: dict[str, Value]) -> bool:
    known = event.as_dict()
    return all(known.get(name) == value for name, value in fields.items())


def _shown(event: NarrationEvent) -> str:
    hidden = {"emitted_at", "level", "actor", "action", "target", "human", "cute", "emitted_by"}
    fields = " ".join(f"{name}={value}" for name, value in event.as_dict().items() if name not in hidden)
    return f"{event.level} {event.action} {event.target}: {event.human} [{fields}]"
