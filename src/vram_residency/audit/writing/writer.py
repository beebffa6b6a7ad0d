"""The one writer of a log: drains the buffer into the ledger, on time and in order.

Whoever waits for durability writes in the calling thread; the background thread writes what nobody
waits for. Both go through commit(), one at a time.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Final

from vram_residency.audit.events.base import Event
from vram_residency.audit.events.cleaning import Pseudonymize
from vram_residency.audit.events.own import LogOpened
from vram_residency.audit.format import note
from vram_residency.audit.format.checkpoint import SignedCheckpoint
from vram_residency.audit.writing.archiving import Archivist
from vram_residency.audit.writing.batch import Batch
from vram_residency.audit.writing.buffer import Cut, EventBuffer, Ticket
from vram_residency.audit.writing.draft import Draft
from vram_residency.audit.writing.journal import Journal
from vram_residency.audit.writing.key_rotation import KeyRotation
from vram_residency.audit.writing.ledger import Ledger
from vram_residency.audit.writing.options import LogOptions
from vram_residency.audit.writing.promptness import prompt_interpreter
from vram_residency.audit.writing.rotation import Rotation
from vram_residency.audit.writing.telling import Telling
from vram_residency.core.errors import AuditWriteError

_NS: Final = 1_000_000_000
_RETRY_S: Final = 1.0


class Writer:
    """Commits, epochs, checkpoints and the thread that sees to them.

    ``_lock`` guards the ledger and everything below it in __init__; it is held during I/O, so emit()
    never takes it.
    """

    def __init__(
        self,
        ledger: Ledger,
        buffer: EventBuffer,
        *,
        options: LogOptions,
        epoch_interval_s: int,
        pseudonymize: Pseudonymize | None = None,
    ) -> None:
        self._buffer: Final = buffer
        self._options: Final = options
        self._epoch_interval_ns: Final = epoch_interval_s * _NS
        self._checkpoint_interval_ns: Final = int(options.checkpoint_interval_s * _NS)
        self._pseudonymize: Final = pseudonymize
        self._wake = threading.Event()
        self._thread: threading.Thread | None = None
        self._is_stopping = False
        #: Set by emit() for a critical event; cleared before the cut, so that none is missed.
        self._is_urgent = False
        #: Told of every failed write, outside all locks.
        self.failure_hooks: list[Callable[[AuditWriteError], object]] = []
        if options.on_failure is not None:
            self.failure_hooks.append(options.on_failure)
        self.failure_count = 0
        self.last_failure: AuditWriteError | None = None
        self.lost_count = 0
        #: Told of everything that has become durable, outside all locks.
        self.telling: Final = Telling()
        self._lock = threading.Lock()
        self.ledger: Final = ledger
        ledger.on_appended = self._note_appended
        self._append_ns = 0
        self._journal: Journal | None = None
        self._batch: Batch | None = None
        self._rotation: Rotation | None = None
        #: Used by the thread alone, but for look_again().
        self._archivist = Archivist(ledger.directory, options)
        self._key_rotation: KeyRotation | None = None
        self._is_finished = False
        self._signed_ns = 0
        self._unsigned_since_ns: int | None = None
        self._epoch_ns = self._epoch_wall_ns = 0
        self._waiting_since_ns: int | None = None
        self._retry_ns = 0

    @property
    def checkpoint(self) -> SignedCheckpoint:
        """The newest signed checkpoint."""
        return self.ledger.checkpoint

    def begin(self, entry: LogOpened, recovered: Cut) -> None:
        """What the journal of a killed writer held, then the first entry of this opening, durable.

        Raises AuditWriteError.
        """
        with self._lock:
            if self.ledger.is_turning:
                self.ledger.turn_epoch()
            else:
                self.ledger.erase_ended_key()
            self._start_epoch()
            batch = Batch(self.ledger.draft(), recovered, pseudonymize=self._pseudonymize)
            batch.open_log(entry)
            self._batch = batch
            self._write_batch()
            # The first flush() may sign at once.
            self._signed_ns -= self._checkpoint_interval_ns

    def watch(self, journal: Journal) -> None:
        """Have every commit look whether the journal is still there."""
        self._journal = journal

    def commit(
        self, *, until: Ticket | None = None, close_reason: str | None = None, timeout_s: float | None = None
    ) -> SignedCheckpoint:
        """Make everything durable that was accepted before; the newest checkpoint.

        ``until``: return as soon as this ticket has its receipt. Raises AuditWriteError: then nothing more
        is acknowledged than was before, and the events stay in the buffer.
        """
        if not self._lock.acquire(timeout=-1 if timeout_s is None else timeout_s):
            path = str(self.ledger.directory)
            raise self._failed(AuditWriteError(path, "flush", f"the disk has not answered in {timeout_s} s"))
        try:
            if until is None or until.receipt is None:
                with prompt_interpreter():
                    self._commit(close_reason)
        except AuditWriteError as error:
            failure = error
        else:
            return self.checkpoint
        finally:
            self._lock.release()
            self.telling.tell()
        told = self._failed(failure)
        if until is not None and until.receipt is not None:
            return self.checkpoint  # durable all the same: what failed came after it
        raise told

    def rotate_key(self, successor: note.Signer) -> None:
        """Let a new log key follow the old one, behind all that waits. Raises AuditWriteError.

        Where key_rotated was not written, the log stays with its old key; else the rest is done later.
        """
        failure: AuditWriteError | None = None
        with self._lock:
            try:
                self._commit()
                self.ledger.prepare_next_key(successor)
                cut = self._buffer.cut()
                at_ns = cut.records[0].timestamp_ns if cut.records else cut.at_ns
                self._key_rotation = KeyRotation(self.ledger, at_ns)
                self._change_key(self._key_rotation)
            except AuditWriteError as error:
                failure = error
        self.telling.tell()
        if failure is not None:
            raise self._failed(failure)

    @property
    def segments_lock(self) -> AbstractContextManager[object]:
        """To be held while closed segments change places or go."""
        return self._lock

    def record(self, event: Event | None) -> SignedCheckpoint:
        """Make what waits durable, then one of the log's own events if there is one; a checkpoint over all.

        Raises AuditWriteError; the event may then still come into the log.
        """
        failure: AuditWriteError | None = None
        with self._lock:
            try:
                self._commit()
                if event is not None:
                    cut = self._buffer.cut()
                    self._batch = Batch(self.ledger.draft(), cut, pseudonymize=self._pseudonymize)
                    self._batch.add_own(event)
                    self._write_batch()
                if self.ledger.has_unsigned_entries:
                    self._sign()
            except AuditWriteError as error:
                failure = error
        self.telling.tell()
        if failure is not None:
            raise self._failed(failure)
        return self.checkpoint

    def tick(self) -> None:
        """Do what is due by the clock. Failures are counted and told, not raised."""
        failure: AuditWriteError | None = None
        with self._lock:
            try:
                self._do_what_is_due()
            except AuditWriteError as error:
                failure = error
            except Exception as error:  # noqa: BLE001 - the thread must not die: that would be silence
                path = str(self.ledger.directory)
                failure = AuditWriteError(path, "write", f"{type(error).__name__}: {error}")
        self.telling.tell()
        if failure is not None:
            self._failed(failure)

    def notice(self, *, is_critical: bool) -> None:
        """Wake the thread: for the first event that waits, a full batch, a critical event."""
        if is_critical:
            self._is_urgent = True
        if not self._wake.is_set():
            self._wake.set()

    def start(self) -> None:
        """Start the thread. It is a daemon: the log is closed at exit, after which it has nothing to do."""
        self._thread = threading.Thread(target=self._run, name="vram-audit-writer", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """End the thread and wait for it; commit() still works."""
        self._is_stopping = True
        self._wake.set()
        if self._thread is not None and self._thread is not threading.current_thread():
            self._thread.join()

    def _run(self) -> None:
        while not self._is_stopping:
            self._wake.wait(0 if self._archivist.is_busy else self._wait_s())
            self._wake.clear()
            if not self._is_stopping:
                self.tick()
                self._archive()
        self._archivist.stop()

    def _archive(self) -> None:
        """A piece of the work that has time; what is due by the clock comes between two."""
        if self._archivist.is_busy:
            try:
                self._archivist.step(self._lock)
            except AuditWriteError as error:
                self._failed(error)

    def _commit(self, close_reason: str | None = None) -> None:
        # 1. What an earlier failure left half done comes first, byte for byte.
        self._finish_half_done()
        if self._is_finished:
            if self.ledger.has_unsigned_entries:
                self._sign()
            return
        # 2. Then everything that has come since.
        self._is_urgent = False
        cut = self._buffer.cut()
        # Of the day of what is written next: so no time steps back.
        at_ns = cut.records[0].timestamp_ns if cut.records else cut.at_ns
        if close_reason is None and self.ledger.is_rotation_due(at_ns):
            self._rotation = Rotation(self.ledger, at_ns)
            self._rotate(self._rotation)
        batch = Batch(self.ledger.draft(), cut, pseudonymize=self._pseudonymize)
        if close_reason is not None:
            batch.close_log(close_reason)
        if close_reason is not None or self._is_epoch_due():
            batch.close_epoch(self.ledger.epoch)
        if len(batch.draft):
            self._batch = batch
            self._write_batch()
        # 3. A checkpoint over it, if the last one is old enough, or nothing comes any more.
        is_old = (
            close_reason is not None or self._monotonic_ns() - self._signed_ns >= self._checkpoint_interval_ns
        )
        if is_old and self.ledger.has_unsigned_entries:
            self._sign()
        # 4. Only now: what a lost journal no longer keeps must not wait for it.
        if self._journal is not None and not self._is_finished:
            self._journal.require_in_place()

    def _change_key(self, rotation: KeyRotation) -> None:
        self._append_ns = self._monotonic_ns()
        rotation.run()
        self._note_signed()
        self._key_rotation = None

    def _finish_half_done(self) -> None:
        if self._rotation is not None:
            self._rotate(self._rotation)
        if self._key_rotation is not None:
            self._change_key(self._key_rotation)
        if self.ledger.is_turning:
            self.ledger.turn_epoch()
            self._start_epoch()
        self._write_batch()

    def _rotate(self, rotation: Rotation) -> None:
        self._append_ns = self._monotonic_ns()
        rotation.run()
        self._start_epoch()
        self._unsigned_since_ns = self._monotonic_ns()
        self._archivist.look_again()
        self.notice(is_critical=False)
        self._rotation = None

    def _write_batch(self) -> None:
        batch = self._batch
        if batch is None:
            return
        self._append_ns = self._monotonic_ns()
        self.ledger.append(batch.draft, closes_epoch=batch.closes_epoch)
        # From here on it is durable, whatever fails later. Each step may be repeated: an interrupt (Ctrl-C)
        # in the calling thread may come between any two.
        self._buffer.release(batch.cut, self.ledger.position.size)
        batch.give_receipts()
        self._batch = None
        self.lost_count += batch.lost_count
        self._waiting_since_ns = None
        self._retry_ns = 0
        self._is_finished = batch.closes_log
        if self._unsigned_since_ns is None:
            self._unsigned_since_ns = self._monotonic_ns()
        if self.ledger.is_turning:
            self.ledger.turn_epoch()
            self._start_epoch()

    def _note_appended(self, draft: Draft) -> None:
        now_ns = self._monotonic_ns()
        self.telling.note(draft, (now_ns - self._append_ns) / _NS)
        self._append_ns = now_ns

    def _do_what_is_due(self) -> None:
        now_ns = self._monotonic_ns()
        if now_ns < self._retry_ns or self._is_finished:
            return
        if len(self._buffer) and self._waiting_since_ns is None:
            self._waiting_since_ns = now_ns
        # Set before, reset by success: a failing disk is asked again after a pause, not in a loop.
        self._retry_ns = now_ns + int(_RETRY_S * _NS)
        if self._is_epoch_due() or self._is_batch_due(now_ns):
            self._commit()
        elif (due_ns := self._checkpoint_due_ns()) is not None and now_ns >= due_ns:
            self._sign()
        self._retry_ns = 0

    def _is_batch_due(self, now_ns: int) -> bool:
        is_half_done = any(part is not None for part in (self._batch, self._rotation, self._key_rotation))
        if self._is_urgent or is_half_done or self.ledger.is_turning:
            return True
        waiting_count = len(self._buffer)
        if waiting_count >= self._options.max_events:
            return True
        delay_ns = int(self._options.max_delay_s * _NS)
        return self._waiting_since_ns is not None and now_ns - self._waiting_since_ns >= delay_ns

    def _is_epoch_due(self) -> bool:
        # The wall clock too: after a machine's sleep the monotonic one knows nothing of the hours.
        return (
            self._monotonic_ns() - self._epoch_ns >= self._epoch_interval_ns
            or self._options.clock.now_ns() - self._epoch_wall_ns >= self._epoch_interval_ns
        )

    def _checkpoint_due_ns(self) -> int | None:
        """When entries that nobody flushes are to be signed; None where all are."""
        if self._unsigned_since_ns is None:
            return None
        return max(self._unsigned_since_ns, self._signed_ns) + self._checkpoint_interval_ns

    def _wait_s(self) -> float | None:
        """How long nothing will be due, unless an event comes."""
        now_ns = self._monotonic_ns()
        if now_ns < self._retry_ns:
            return (self._retry_ns - now_ns) / _NS
        due = [self._epoch_ns + self._epoch_interval_ns]
        waiting_count = len(self._buffer)
        if waiting_count >= self._options.max_events:
            return 0
        if waiting_count:
            since_ns = self._waiting_since_ns if self._waiting_since_ns is not None else now_ns
            due.append(since_ns + int(self._options.max_delay_s * _NS))
        if (checkpoint_due_ns := self._checkpoint_due_ns()) is not None:
            due.append(checkpoint_due_ns)
        return max(min(due) - now_ns, 0) / _NS

    def _sign(self) -> None:
        self.ledger.sign()
        self._note_signed()

    def _note_signed(self) -> None:
        self._signed_ns = self._monotonic_ns()
        self._unsigned_since_ns = None

    def _start_epoch(self) -> None:
        self._signed_ns = self._epoch_ns = self._monotonic_ns()
        # An epoch begins with a checkpoint over all that came before, unless the log key was away.
        self._unsigned_since_ns = self._epoch_ns if self.ledger.has_unsigned_entries else None
        self._epoch_wall_ns = self._options.clock.now_ns()

    def _monotonic_ns(self) -> int:
        return self._options.clock.monotonic_ns()

    def _failed(self, failure: AuditWriteError) -> AuditWriteError:
        """Count a failure and tell of it, outside the lock: the hook may emit and flush."""
        self.failure_count += 1
        self.last_failure = failure
        for hook in tuple(self.failure_hooks):
            with contextlib.suppress(Exception):  # telling of a failure must not become a second one
                hook(failure)
        return failure
