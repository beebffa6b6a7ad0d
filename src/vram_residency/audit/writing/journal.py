"""The file ``journal``: what emit() has accepted and no segment holds yet (spec: audit-log.md section 4).

A journal is read before anything is written, and made anew or taken over only after the events found in it
are durable in a segment: a crash at any step of an opening leaves them where the next opening finds them.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Sequence
from typing import Final

from vram_residency.audit.events.content import recover
from vram_residency.audit.store.directory import TORN_SUFFIX, Directory
from vram_residency.audit.store.files import Files
from vram_residency.audit.writing.buffer import Cut, Record
from vram_residency.audit.writing.recovery import Written
from vram_residency.audit.writing.ring import (
    HEADER_BYTES,
    OVERHEAD_BYTES,
    Losses,
    Ring,
    RingContent,
    RingFormatError,
    new_header,
    read_ring,
)
from vram_residency.core.clock import rfc3339
from vram_residency.core.errors import AuditWriteError, ConfigurationError, LogDamagedError

#: Room for each ordinary event on average, for each reserved slot, and for one event as large as they come.
EVENT_BYTES: Final = 2048
RESERVED_EVENT_BYTES: Final = 16_384
LARGEST_EVENT_BYTES: Final = 65_536 + OVERHEAD_BYTES
#: A larger file is not one of ours, and a larger ring no use.
_JOURNAL_BYTES_MAX: Final = 1 << 32
_EMPTY: Final = RingContent(ring_bytes=0, drained=0, tree_size=0, losses=None, records=(), missing=())


class Journal:
    """One opening of the file: what it held, then the ring for the events to come."""

    def __init__(
        self, directory: Directory, files: Files, *, origin: str, capacity: int, reserved: int
    ) -> None:
        """Read what is there. Raises LogDamagedError for what no dying process can have left."""
        self.path: Final = directory.journal
        self._new: Final = self.path.with_name("journal.new")
        self._files = files
        self._origin = origin
        self._reserved_bytes = reserved * RESERVED_EVENT_BYTES
        self._ring_bytes = capacity * EVENT_BYTES + LARGEST_EVENT_BYTES + self._reserved_bytes
        if self._ring_bytes > _JOURNAL_BYTES_MAX:
            raise ConfigurationError("capacity", "a journal for so many events would pass 4 GiB")
        self.content: Final = self._read()
        self._memory: memoryview | None = None
        self._identity: os.stat_result | None = None

    @property
    def tree_size(self) -> int | None:
        """How many entries the log had, at least, when the journal was last written; None without one."""
        return self.content.tree_size if self.content.ring_bytes else None

    def find_unwritten(self, written: Sequence[Written], now_ns: int) -> Cut:
        """The events and losses that no entry holds; ``written`` are the entries from its tree size on."""
        # Each entry accounts for one event of its time and type.
        accounted = Counter((entry.timestamp, entry.event_type) for entry in written)
        records = []
        lost_count = 0
        for record in self.content.records:
            try:
                content = recover(record.body)
            except ValueError:
                lost_count += 1  # a right checksum over what no emit() wrote
                continue
            place = (rfc3339(record.timestamp_ns), content.kind.event_type)
            if accounted[place]:
                accounted[place] -= 1
            else:
                records.append(Record(record.timestamp_ns, content, None, 0))
        # Damaged records: the first ones after the header's sequence are those that the entries hold.
        last_written = self.content.drained + sum(not entry.lost_count for entry in written)
        lost_count += sum(sequence > last_written for sequence in self.content.missing)
        losses = _untold(self.content.losses, written)
        if lost_count:
            damage = Losses(lost_count, 0, now_ns, now_ns)
            losses = losses.add(damage) if losses else damage
        return Cut(tuple(records), losses, now_ns)

    def prepare(self) -> None:
        """Make room for the ring before anything is written elsewhere. Raises AuditWriteError.

        Without a journal, with one of another size, or a damaged one, a new file waits beside it.
        """
        needs_new = self.content.ring_bytes != self._ring_bytes or bool(self.content.missing)
        path = self._new if needs_new else self.path
        size = HEADER_BYTES + self._ring_bytes
        try:
            self._new.unlink(missing_ok=True)  # left by a crash: never had the final name
            descriptor = self._files.create(path) if needs_new else self._files.open_update(path)
            try:
                self._identity = os.fstat(descriptor)
                if needs_new:
                    self._files.allocate(descriptor, size)
                self._memory = self._files.map(descriptor, size)
                if needs_new:
                    header = new_header(self._ring_bytes, self._origin)
                    self._memory[: len(header)] = header
            finally:
                os.close(descriptor)
        except OSError as error:
            raise AuditWriteError(str(path), "prepare", error.strerror or str(error)) from error

    def install(self, tree_size: int) -> Ring:
        """An empty ring in the journal's place: what it held is now below ``tree_size``.

        Raises AuditWriteError.
        """
        memory = self._memory
        assert memory is not None, "prepare() comes first"  # noqa: S101
        last = self.content.records[-1].sequence if self.content.records else self.content.drained
        ring = Ring(memory, reserved_bytes=self._reserved_bytes, drained=last, tree_size=tree_size)
        try:
            if self._new.exists():
                # Its first slot too must be on the disk: without one it is no journal of ours.
                self._sync_new()
                if self.content.missing:
                    self._keep_evidence()
                self._files.replace(self._new, self.path)
                self._files.sync_directory(self.path.parent)
        except OSError as error:
            raise AuditWriteError(str(self.path), "replace", error.strerror or str(error)) from error
        return ring

    def _sync_new(self) -> None:
        descriptor = self._files.open_update(self._new)
        try:
            self._files.sync_data(descriptor)
        finally:
            os.close(descriptor)

    def require_in_place(self) -> None:
        """Raise AuditWriteError where the path no longer names the ring's file: emit() would promise in vain.

        Whoever removed it can read the ring no more than the next writer can find it.
        """
        try:
            here = self.path.lstat()
        except OSError:
            here = None
        if here is None or self._identity is None or not os.path.samestat(here, self._identity):
            reason = "it was removed or replaced under the writer"
            hint = "Events are still written; close the log and open it again, and ask who could do that."
            raise AuditWriteError(str(self.path), "look for the journal", reason, hint=hint)

    def _keep_evidence(self) -> None:
        """A damaged journal stays, under the first free of ``journal.torn``, ``journal.torn.2``, …"""
        torn = self.path.with_name(self.path.name + TORN_SUFFIX)
        number = 1
        while torn.exists():
            number += 1
            torn = self.path.with_name(f"{self.path.name}{TORN_SUFFIX}.{number}")
        self._files.replace(self.path, torn)

    def _read(self) -> RingContent:
        try:
            descriptor = os.open(self.path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
        except FileNotFoundError:
            return _EMPTY
        except OSError as error:
            raise LogDamagedError(str(self.path), None, f"cannot be read: {error.strerror}") from error
        with os.fdopen(descriptor, "rb") as file:
            try:
                data = file.read(_JOURNAL_BYTES_MAX + HEADER_BYTES)
                return read_ring(data, self._origin)
            except (OSError, RingFormatError) as error:
                raise LogDamagedError(str(self.path), None, str(error)) from error


def _untold(losses: Losses | None, written: Sequence[Written]) -> Losses | None:
    """The header's losses less those that entries after its tree size tell of already."""
    if losses is None:
        return None
    count = losses.count - sum(entry.lost_count for entry in written)
    critical_count = losses.critical_count - sum(entry.lost_critical_count for entry in written)
    if count <= 0:
        return None
    return Losses(count, max(critical_count, 0), losses.first_ns, losses.last_ns)
