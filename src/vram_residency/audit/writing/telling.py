"""Tells those who want to know what has become durable: in order, and outside the writer's lock."""

from __future__ import annotations

import contextlib
import threading
from collections import deque
from collections.abc import Callable, Sequence
from typing import Final

from vram_residency.audit.writing.draft import Draft

#: Called with lines that are durable now, without newlines, and the seconds that writing them took.
WrittenHook = Callable[[Sequence[bytes], float], object]


class Telling:
    """``note`` under the writer's lock, ``tell`` after it was released. A hook may emit and flush."""

    def __init__(self) -> None:
        self._hooks: tuple[WrittenHook, ...] = ()
        self._untold: Final[deque[tuple[Sequence[bytes], float]]] = deque()
        self._lock = threading.Lock()  # held by whoever tells

    def add(self, hook: WrittenHook) -> None:
        """Tell ``hook`` of everything that is noted from now on."""
        self._hooks = (*self._hooks, hook)

    def note(self, draft: Draft, duration_s: float) -> None:
        """A draft is durable."""
        if self._hooks:
            self._untold.append((draft.lines, duration_s))

    def tell(self) -> None:
        """Tell what nobody was told yet. Who tells already, tells this too."""
        while self._untold and self._lock.acquire(blocking=False):
            try:
                while self._untold:
                    self._tell(*self._untold.popleft())
            finally:
                self._lock.release()

    def _tell(self, lines: Sequence[bytes], duration_s: float) -> None:
        for hook in self._hooks:
            with contextlib.suppress(Exception):  # what is durable is so, whoever chokes on it
                hook(lines, duration_s)
