"""What a manager holds, and how it is given back: each shard once, audited, never from under a view."""

from __future__ import annotations

import atexit
import contextvars
import os
import threading
from queue import SimpleQueue

from vram_residency.core import context
from vram_residency.device.base import Device
from vram_residency.residency.budget import Budget
from vram_residency.residency.recorder import Recorder
from vram_residency.residency.registry import Record, Registry
from vram_residency.residency.scrub import Scrubber

#: How long a finaliser waits for the thread that does its work.
ABANDONED_WAIT_S = 1.0


class Custody:
    """Owns the shards and the device of one manager, and outlives it if the manager is just dropped.

    Closed by the manager, by its finaliser, or at the interpreter's end, whichever comes first. A forked
    child inherits the object but not the custody: there it does nothing.
    """

    def __init__(self, *, device: Device, registry: Registry, budget: Budget, recorder: Recorder) -> None:
        self._device = device
        self._registry = registry
        self._budget = budget
        self._recorder = recorder
        self._scrubbers: list[Scrubber] = []
        self._process = os.getpid()
        # Registered after the audit log was opened, so that it runs before the log closes.
        atexit.register(self._close_at_exit)

    def add_scrubber(self, scrubber: Scrubber) -> None:
        """Stop this scrubber at the end."""
        self._scrubbers.append(scrubber)

    def give_back(self, record: Record) -> None:
        """Free one shard, after the verifications of it that are under way.

        Raises DeviceBusyError while a block or a view of it lives, UnknownShardError.
        """
        with self._registry.sole(record):
            wiped = record.content.free()
            self._registry.remove(record)
        self._settle(record, wiped=wiped)

    def close(self) -> None:
        """Free everything; what is still in use is freed when its last view dies. Never raises."""
        if os.getpid() != self._process or not self._registry.close():
            return
        for scrubber in self._scrubbers:
            scrubber.stop()
        with context.operation(self._recorder.worker_id):
            for record in self._registry.records():
                if not self._is_given_back(record):
                    self._give_back_later(record)
        self._device.close()
        self._forget_if_empty()

    def close_abandoned(self) -> None:
        """Close on behalf of a manager that was dropped. Never raises.

        A garbage collection may call this with any lock held by this very thread, the audit log's included:
        the work is done by another thread, and waited for only a moment.
        """
        if os.getpid() != self._process or self._registry.is_closed:
            return
        here = contextvars.copy_context()
        closing = threading.Thread(target=here.run, args=(self.close,), name="vram-close", daemon=True)
        try:
            closing.start()
        except RuntimeError:
            # No thread can be had, as when the interpreter ends: _close_at_exit() does it.
            return
        closing.join(ABANDONED_WAIT_S)

    def _close_at_exit(self) -> None:
        """Close, and record as freed what somebody still looks at: the kernel frees it with the process."""
        self.close()
        if os.getpid() != self._process:
            return
        with context.operation(self._recorder.worker_id):
            for record in self._registry.records():
                if self._registry.remove(record):
                    self._settle(record, wiped=False)

    def _is_given_back(self, record: Record) -> bool:
        try:
            self.give_back(record)
        except Exception:  # noqa: BLE001 - close() never raises: what cannot be freed now is freed later
            return False
        return True

    def _give_back_later(self, record: Record) -> None:
        waiting = threading.Thread(
            target=self._give_back_when_unused, args=(record,), name="vram-settle", daemon=True
        )
        try:
            waiting.start()
        except RuntimeError:
            # No thread can be had: the memory goes with its last view, and is recorded at exit.
            record.content.free_when_unused(lambda _wiped: None)

    def _give_back_when_unused(self, record: Record) -> None:
        """Settle a shard once its last block has ended and its last view has died.

        Memory may be freed inside a garbage collection with any lock held, so that moment only notes it;
        SimpleQueue.put is made for that (it is reentrant).
        """
        self._registry.wait_until_idle(record)
        freed: SimpleQueue[bool] = SimpleQueue()
        record.content.free_when_unused(freed.put)
        wiped = freed.get()
        if self._registry.remove(record):
            with context.operation(self._recorder.worker_id):
                self._settle(record, wiped=wiped)
            self._forget_if_empty()

    def _settle(self, record: Record, *, wiped: bool) -> None:
        freed_bytes = record.content.charged_bytes
        self._budget.release(freed_bytes)
        self._recorder.deallocated(record.shard.shard_id, freed_bytes, self._budget.capacity(), wiped=wiped)

    def _forget_if_empty(self) -> None:
        if not self._registry.records():
            atexit.unregister(self._close_at_exit)
