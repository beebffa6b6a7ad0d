"""The engines of a worker: one for each shard that was executed, closed before the shard goes."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext

from vram_residency.core.errors import ConfigurationError
from vram_residency.residency import ShardReport, Views
from vram_residency.worker.engine import Engine

ENTRY_POINTS = "vram_residency.engines"


class _Turn:
    """One shard's lock, and how many hold it or wait for it."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.takers = 0


class Engines:
    """Thread-safe; each engine runs one execution at a time."""

    def __init__(
        self,
        make: Callable[[], Engine],
        folder_of: Callable[[str], AbstractContextManager[str | None]] = lambda _shard_id: nullcontext(),
    ) -> None:
        """Take what makes an engine, and what opens the folder that a shard's file lies in."""
        self._make = make
        self._folder_of = folder_of
        self._lock = threading.Lock()  # guards the table, not the engines
        self._loaded: dict[str, Engine] = {}
        self._turns: dict[str, _Turn] = {}

    @contextmanager
    def turn(self, shard_id: str) -> Iterator[None]:
        """What an execution on this shard holds: loading and executing are one at a time.

        Nothing is kept of a turn that is over: ids come from outside, and may be any.
        """
        with self._lock:
            turn = self._turns.setdefault(shard_id, _Turn())
            turn.takers += 1
        try:
            with turn.lock:
                yield
        finally:
            with self._lock:
                turn.takers -= 1
                if not turn.takers:
                    del self._turns[shard_id]

    def engine_of(self, report: ShardReport, views: Views) -> Engine:
        """The shard's engine, loaded now if this is its first execution; call it in a ``turn``."""
        shard_id = report.shard.shard_id
        found = self._loaded.get(shard_id)
        if found is not None:
            return found
        engine = self._make()
        metadata = {"shard_id": shard_id, "format": report.format, "model_ref": report.shard.model_ref}
        with self._folder_of(shard_id) as directory:
            engine.load(views, {**metadata, "directory": directory})
        self._loaded[shard_id] = engine
        return engine

    def close(self, shard_id: str) -> None:
        """Have a shard's engine let go of its views, after the execution under way."""
        with self.turn(shard_id):
            found = self._loaded.pop(shard_id, None)
            if found is not None:
                found.close()

    def close_all(self) -> None:
        """Close every engine."""
        for shard_id in tuple(self._loaded):
            self.close(shard_id)


def engine_maker(name: str) -> Callable[[], Engine]:
    """The factory behind an entry point's name. Raises ConfigurationError for a name that is none."""
    from importlib.metadata import entry_points

    found = entry_points(group=ENTRY_POINTS)
    if name not in found.names:
        known = ", ".join(sorted(found.names)) or "none"
        raise ConfigurationError("engine", f"there is no engine '{name}': installed are {known}")
    make: Callable[[], Engine] = found[name].load()
    return make
