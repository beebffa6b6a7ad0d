"""Who hears the story as it is told, beside the outputs: the event stream of a worker, for one.

A listener is called in the thread that narrates, so it must be quick and take no lock of its caller's.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Final, NamedTuple

from vram_residency.narration.event import NarrationEvent
from vram_residency.narration.gate import gate
from vram_residency.narration.vocabulary import INFO, MUTE

Listener = Callable[[NarrationEvent], object]


class _Place(NamedTuple):
    level: int
    listener: Listener


_lock: Final = threading.Lock()  # guards changes of _places; they are read without it, as one tuple
_places: tuple[_Place, ...] = ()


def listen(listener: Listener, *, level: int = INFO) -> Callable[[], None]:
    """Have ``listener`` called with every event of ``level`` or above, from any thread and context.

    What the outputs are told to show makes no difference. What the listener raises is passed over.
    Returns what ends it; that may be called twice.
    """
    global _places  # noqa: PLW0603 - one narration per process
    place = _Place(level, listener)
    with _lock:
        _places = (*_places, place)
        _settle()
    return lambda: _leave(place)


def wanted(level: int) -> bool:
    """Whether a listener wants an event of this level."""
    return any(place.level <= level < MUTE for place in _places)


def hear(level: int, event: NarrationEvent) -> int:
    """Give one event to those who want it; how many of them failed. Raises nothing."""
    failed = 0
    for place in _places:
        if place.level <= level < MUTE:
            try:
                place.listener(event)
            except Exception:  # noqa: BLE001 - whatever a listener does, the operation told of goes on
                failed += 1
    return failed


def _leave(place: _Place) -> None:
    global _places  # noqa: PLW0603 - as in listen()
    with _lock:
        _places = tuple(other for other in _places if other is not place)
        _settle()


def _settle() -> None:
    gate.set_listening(min((place.level for place in _places), default=None))
