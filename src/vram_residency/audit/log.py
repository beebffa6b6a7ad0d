"""AuditLogger: what the rest of the program sees of the audit log (spec: audit-log.md, api.md)."""

from __future__ import annotations

import atexit
import contextlib
import json
import os
import warnings
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from vram_residency.audit.events.base import Event
from vram_residency.audit.events.content import Content, accept, accept_own
from vram_residency.audit.events.own import AuditLogAccessed
from vram_residency.audit.events.pseudonym import Pseudonyms
from vram_residency.audit.format.checkpoint import SignedCheckpoint
from vram_residency.audit.format.receipt import Receipt
from vram_residency.audit.publishing.witness import WitnessAnchor
from vram_residency.audit.store import machine, signers
from vram_residency.audit.store.directory import Directory, WriterLock
from vram_residency.audit.store.keyring import Keyring
from vram_residency.audit.writing import placement
from vram_residency.audit.writing.buffer import BufferClosedError, EventBuffer, Ticket
from vram_residency.audit.writing.creation import create_log
from vram_residency.audit.writing.opening import Anchor, Opened, open_ledger
from vram_residency.audit.writing.options import DEFAULT_OPTIONS, LogOptions
from vram_residency.audit.writing.stats import NO_STATS, LogStats
from vram_residency.audit.writing.telling import WrittenHook
from vram_residency.audit.writing.writer import Writer
from vram_residency.core import context
from vram_residency.core.errors import AuditWriteError, InvalidEventError, LogClosedError

#: Logs to close at exit and to abandon in a forked child.
_open_logs: set[AuditLogger] = set()


class AuditLogger:
    """An opened audit log: emit() from any thread, flush() for power loss, close() at the end.

    Make one with open() or disabled().
    """

    def __init__(self, opened: Opened, lock: WriterLock, pseudonyms: Pseudonyms, options: LogOptions) -> None:
        self._lock = lock
        self._pseudonymize = pseudonyms.name
        self._is_closed = False
        self._buffer = EventBuffer(capacity=options.capacity, reserved=options.reserved, clock=options.clock)
        self._notable_counts = (1, options.max_events)
        self._audits_queries = options.audit_queries
        self._writer = Writer(
            opened.ledger,
            self._buffer,
            options=options,
            epoch_interval_s=opened.config.epoch_interval_s,
            pseudonymize=pseudonyms.name,
        )
        try:
            opened.journal.prepare()
            self._writer.begin(opened.entry, opened.recovered)
            self._buffer.attach(opened.journal.install(opened.ledger.position.size))
            self._writer.watch(opened.journal)
        except BaseException:
            opened.ledger.close()
            raise

    @classmethod
    def open(
        cls,
        directory: str | os.PathLike[str],
        *,
        service_id: str,
        keys: str | os.PathLike[str] | None = None,
        create: bool = False,
        anchor: Anchor | WitnessAnchor | None = None,
        options: LogOptions = DEFAULT_OPTIONS,
    ) -> AuditLogger:
        """Open a log for writing; the entry log_opened is durable when this returns.

        ``service_id`` is the one that the log was made for. ``create`` makes log and keys where there are
        none, and warns; `vram audit init` is for production. ``keys`` names the key folder (default
        ``<directory>.keys``), ``anchor`` a signed checkpoint kept elsewhere, or a witness, which is asked
        before anything is signed: without its answer the log is not opened.
        Raises ConfigurationError, LogLockedError, LogDamagedError, AuditWriteError, WitnessError.
        """
        place = Directory(directory)
        key_folder = Path(keys) if keys is not None else place.default_keys
        if create and not place.is_log:
            create_log(place.path, service_id=service_id, keys=keys, keep_genesis=True, options=options)
            placement.warn_of_genesis_key(key_folder)
        elif keys is None and place.is_log:
            placement.warn_of_default_keys(key_folder)
        lock = _lock(place, options)
        try:
            keyring = Keyring(key_folder, files=options.files)
            pseudonyms = Pseudonyms(keyring.read_pseudonym_key())
            # Last, since it holds a descriptor.
            if isinstance(anchor, WitnessAnchor):
                anchor = anchor.ask(place.path, files=options.files)
            opened = open_ledger(place, keyring, service_id=service_id, anchor=anchor, options=options)
            logger = cls(opened, lock, pseudonyms, options)
        except BaseException:
            lock.close()
            raise
        _open_logs.add(logger)
        if options.background:
            logger._writer.start()
        return logger

    @staticmethod
    def disabled() -> AuditLogger:
        """A logger that takes every event and keeps none."""
        return _DISABLED

    def __repr__(self) -> str:
        return f"AuditLogger({str(self.directory)!r})" if self.is_enabled else "AuditLogger.disabled()"

    @property
    def directory(self) -> Path | None:
        """Where the log lies; None if disabled."""
        return self._writer.ledger.directory.path

    @property
    def is_enabled(self) -> bool:
        """Whether events are kept."""
        return True

    @property
    def checkpoint(self) -> SignedCheckpoint | None:
        """The newest signed checkpoint, as it is: nothing is written or signed for it. None if disabled."""
        return self._writer.checkpoint

    def on_failure(self, hook: Callable[[AuditWriteError], object]) -> None:
        """Have ``hook`` told of every failed write from now on, outside all locks.

        What it raises is passed over. A disabled logger never writes, and tells nobody.
        """
        self._writer.failure_hooks.append(hook)

    def on_written(self, hook: WrittenHook) -> None:
        """Have ``hook`` told of every entry that becomes durable from now on, in order, outside all locks.

        It gets lines of the log, without newlines, and the seconds that writing them took, in whichever
        thread wrote them: it must not wait. What it raises is passed over.
        """
        self._writer.telling.add(hook)

    def emit(self, event: Event, *, durable: bool = False) -> Receipt | None:
        """Accept an event, without waiting for I/O. With ``durable``, wait for the disk; the receipt.

        Raises InvalidEventError (nothing accepted), BufferFullError (counted as dropped), LogClosedError,
        and with ``durable`` AuditWriteError (the event stays in the buffer).
        """
        if self._is_closed:
            raise self._closed_error()
        accepted = accept(event, self._pseudonymize)
        ticket = Ticket() if durable else None
        try:
            waiting_count = self._buffer.put(accepted, ticket)
        except BufferClosedError:
            raise self._closed_error() from None
        if not waiting_count:
            raise self._buffer.refuse(accepted)
        if ticket is not None:
            self._writer.commit(until=ticket)
            return _receipt(ticket, accepted.kind.event_type)
        if waiting_count in self._notable_counts or accepted.kind.is_critical:
            self._writer.notice(is_critical=accepted.kind.is_critical)
        return None

    def emit_all(self, events: Iterable[Event]) -> list[Receipt]:
        """Accept events in order, waiting for room where there is none; receipts once all are durable.

        Raises as emit(..., durable=True) does, except BufferFullError; events before the one that was
        refused are accepted.
        """
        tickets: list[tuple[Ticket, str]] = []
        for event in events:
            if self._is_closed:
                raise self._closed_error()
            accepted = accept(event, self._pseudonymize)
            tickets.append((self._put_patiently(accepted), accepted.kind.event_type))
        if tickets:
            self._writer.commit(until=tickets[-1][0])
        return [_receipt(ticket, event_type) for ticket, event_type in tickets]

    def flush(self, timeout_s: float | None = None) -> SignedCheckpoint | None:
        """Make durable all that was accepted; the newest signed checkpoint (None if disabled).

        ``timeout_s`` bounds the wait for a write that is under way. The checkpoint may be up to a second
        behind. Raises AuditWriteError, LogClosedError.
        """
        if self._is_closed:
            raise self._closed_error()
        return self._writer.commit(timeout_s=timeout_s)

    def tick(self) -> None:
        """Do what is due by the clock: for logs without a background thread (options.background)."""
        if self._is_closed:
            raise self._closed_error()
        self._writer.tick()

    def rotate_key(self, signer: str = signers.FILE) -> str:
        """Let a new log key follow the old one, behind everything accepted so far; its vkey.

        ``signer`` is ``file``, or ``ssh-agent:SHA256:…`` for a key that lies in an ssh-agent. The entry and
        the next checkpoint are signed by both keys; then the old one is gone (docs/format/audit-log.md).
        Raises LogClosedError, InvalidInputError, MissingKeyError, AuditWriteError: then the old key is still
        in use, or the change is finished with the next write or opening.
        """
        if self._is_closed:
            raise self._closed_error()
        successor = signers.new_signer(signer, self._writer.checkpoint.origin)
        self._writer.rotate_key(successor)
        return str(successor.verifier)

    def close(self) -> None:
        """Write what waits, end the epoch, sign, give the lock back. May be called twice.

        Raises AuditWriteError where that fails: nothing more is accepted then, what waits still does, and
        close() can be called again.
        """
        self._close("closed")

    def query(self, **filters: Any) -> Iterator[bytes]:
        """The matching lines, without newline, as in audit.query. What waits is written first.

        Filters: event (a name or several), shard, actor, since, until, severity, limit, follow. With
        LogOptions.audit_queries the query is recorded first, or raises as record_access() does.
        """
        from vram_residency.audit.reading.query import query

        if self._audits_queries:
            self.record_access(**filters)
        with contextlib.suppress(AuditWriteError, LogClosedError):  # what is durable can still be read
            self.flush()
        return query(self._writer.ledger.directory.path, **filters)

    def record_access(self, **filters: Any) -> None:
        """Make it durable that somebody reads the log: audit_log_accessed, with the filters of a query().

        The accessor is the user of the context's actor, else the account that this process runs as. Raises
        LogClosedError, AuditWriteError.
        """
        if self._is_closed:
            raise self._closed_error()
        actor = context.actor.get() or {}
        event = AuditLogAccessed(
            accessor=actor.get("user_id") or machine.user(),
            query=json.dumps({name: value for name, value in filters.items() if value}, default=list),
        )
        self._writer.commit(until=self._put_patiently(accept_own(event)))

    def stats(self) -> LogStats:
        """Counts of this moment; takes no lock."""
        writer, buffer = self._writer, self._buffer
        return LogStats(
            accepted=buffer.accepted_count,
            waiting=len(buffer),
            capacity=buffer.capacity,
            dropped=buffer.dropped_count + writer.lost_count,
            dropped_critical=buffer.dropped_critical_count,
            tree_size=writer.ledger.position.size,
            checkpoint_size=writer.checkpoint.size,
            epoch=writer.ledger.epoch,
            write_failures=writer.failure_count,
            last_failure=None if writer.last_failure is None else str(writer.last_failure),
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def _put_patiently(self, accepted: Content) -> Ticket:
        """Put an event into the buffer, writing what waits where there is no room; its ticket."""
        ticket = Ticket()
        try:
            while not self._buffer.put(accepted, ticket):
                self._writer.commit()
        except BufferClosedError:
            raise self._closed_error() from None
        return ticket

    def _close(self, reason: str) -> None:
        if self._is_closed:
            return
        # 1. Nothing more comes in, so the last batch is the last.
        self._buffer.close()
        self._writer.stop()
        # 2. log_closed, epoch_closed, checkpoint. If this fails the lock is kept: the log is not closed.
        self._writer.commit(close_reason=reason)
        # 3. Somebody else may write.
        self._is_closed = True
        _open_logs.discard(self)
        self._buffer.detach()
        self._writer.ledger.close()
        self._lock.close()

    def _abandon(self) -> None:
        """In a forked child: the log is the parent's. Closing descriptors does not unlock."""
        self._is_closed = True
        self._buffer.detach()
        self._writer.ledger.close()
        self._lock.close()

    def _closed_error(self) -> LogClosedError:
        return LogClosedError(str(self.directory))


class _DisabledLogger(AuditLogger):
    """Takes everything, keeps nothing, has no resources."""

    def __init__(self) -> None:
        self._is_closed = False

    @property
    def directory(self) -> None:
        return None

    @property
    def is_enabled(self) -> bool:
        return False

    @property
    def checkpoint(self) -> None:
        return None

    def on_failure(self, hook: Callable[[AuditWriteError], object]) -> None:
        pass

    def on_written(self, hook: WrittenHook) -> None:
        pass

    def emit(self, event: Event, *, durable: bool = False) -> None:
        pass

    def emit_all(self, events: Iterable[Event]) -> list[Receipt]:
        for _ in events:
            pass
        return []

    def flush(self, timeout_s: float | None = None) -> None:
        pass

    def rotate_key(self, signer: str = signers.FILE) -> str:  # noqa: ARG002 - there is no key
        raise self._closed_error()

    def tick(self) -> None:
        pass

    def close(self) -> None:
        pass

    def query(self, **filters: Any) -> Iterator[bytes]:  # noqa: ARG002 - nothing is kept
        return iter(())

    def record_access(self, **filters: Any) -> None:
        pass

    def stats(self) -> LogStats:
        return NO_STATS


_DISABLED = _DisabledLogger()


def _lock(place: Directory, options: LogOptions) -> WriterLock:
    place.read_config()  # no lock file is left behind in a directory that is not a log
    place.require_private()
    return WriterLock(place, holder=machine.writer(), files=options.files)


def _receipt(ticket: Ticket, event_type: str) -> Receipt:
    if ticket.receipt is None:
        raise InvalidEventError(event_type, "no entry could be made of it; it was counted as dropped")
    return ticket.receipt


def _close_at_exit() -> None:
    for logger in tuple(_open_logs):
        is_told = logger._buffer.is_closed  # noqa: SLF001 - this module's own class
        try:
            logger._close("interpreter exit")  # noqa: SLF001
        except AuditWriteError as error:
            # Where close() failed before, its caller knows already.
            if not is_told:
                warnings.warn(f"the audit log could not be closed: {error}", RuntimeWarning, stacklevel=1)


def _abandon_in_child() -> None:
    for logger in tuple(_open_logs):
        logger._abandon()  # noqa: SLF001 - this module's own class
    _open_logs.clear()


atexit.register(_close_at_exit)
os.register_at_fork(after_in_child=_abandon_in_child)
