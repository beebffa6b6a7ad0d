"""Verification in the background, within a bounded share of time (residency.md section 5)."""

from __future__ import annotations

import contextvars
import threading
import time
from collections.abc import Callable
from functools import partial

from vram_residency.core.clock import Clock
from vram_residency.core.errors import InvalidInputError, VramError
from vram_residency.residency.registry import Record, Registry

PAUSE_S_MIN = 0.01


class Scrubber:
    """Verifies every shard wholly at least every ``interval_s`` where ``share`` of one thread's time allows.

    Damage is handled as by ``verify_sealed``: quarantined, recorded, narrated; the scrubber goes on.
    """

    def __init__(
        self,
        registry: Registry,
        verify: Callable[[Record], object],
        *,
        interval_s: float,
        share: float,
        clock: Clock,
    ) -> None:
        if interval_s <= 0:
            raise InvalidInputError("interval_s", "must be above 0 seconds")
        if not 0 < share <= 1:
            raise InvalidInputError("share", "must lie in (0, 1]")
        self._registry = registry
        self._verify = verify
        self._interval_ns = int(interval_s * 1e9)
        self._share = share
        self._clock = clock
        #: When each shard was last tried, by id: what fails without damage waits for its next turn too.
        self._tried_ns: dict[str, int] = {}
        self._stopped = threading.Event()
        # In the starter's context, so that its narration is captured and carries ids as the starter's does.
        run = partial(contextvars.copy_context().run, self._run)
        self._thread = threading.Thread(target=run, name="vram-scrub", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """End after the verification in progress, and wait for that."""
        self._stopped.set()
        if self._thread is not threading.current_thread():
            self._thread.join()

    def _run(self) -> None:
        while not self._stopped.is_set():
            started = time.monotonic()
            self._verify_next()
            busy_s = time.monotonic() - started
            # Rest so long that the busy part stays within the share.
            self._stopped.wait(max(PAUSE_S_MIN, busy_s * (1 / self._share - 1)))

    def _verify_next(self) -> None:
        record = self._most_overdue()
        if record is None:
            return
        self._tried_ns[record.shard.shard_id] = self._clock.now_ns()
        try:
            self._verify(record)
        except VramError:
            # Recorded, narrated and quarantined by the verification itself.
            return

    def _most_overdue(self) -> Record | None:
        due_ns = self._clock.now_ns() - self._interval_ns
        records = self._registry.records()
        held = {record.shard.shard_id for record in records}
        self._tried_ns = {shard_id: at for shard_id, at in self._tried_ns.items() if shard_id in held}
        overdue = [
            record for record in records if record.state == "sealed" and self._last_ns(record) <= due_ns
        ]
        return min(overdue, key=self._last_ns, default=None)

    def _last_ns(self, record: Record) -> int:
        return max(record.fully_verified_ns, self._tried_ns.get(record.shard.shard_id, 0))
