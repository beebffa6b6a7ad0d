"""What is written at one go: the events that waited, their losses, and the log's own events around them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import msgspec

from vram_residency.audit.events.base import Event
from vram_residency.audit.events.cleaning import Pseudonymize
from vram_residency.audit.events.content import are_plain, fields_of
from vram_residency.audit.events.own import EventsDropped, LogClosed, LogOpened
from vram_residency.audit.format.receipt import Receipt
from vram_residency.audit.writing.buffer import Cut, Record
from vram_residency.audit.writing.draft import Draft, PlainEvent
from vram_residency.audit.writing.ring import Losses
from vram_residency.core.clock import rfc3339

#: Payloads that are looked at together.
_RUN: Final = 256


class Batch:
    """A cut turned into lines, once and for all: it is written until it is durable, byte for byte.

    ``closes_epoch`` and ``closes_log`` say what its last entries are (audit-log.md section 3: log_closed,
    then epoch_closed).
    """

    def __init__(self, draft: Draft, cut: Cut, *, pseudonymize: Pseudonymize | None) -> None:
        self.draft: Final = draft
        self.cut: Final = cut
        self.closes_epoch = False
        self.closes_log = False
        self.lost_count = 0
        self._indexes: list[int | None] = []
        self._pseudonymize = pseudonymize
        self._losses = cut.losses
        for start in range(0, len(cut.records), _RUN):
            self._add_run(cut.records[start : start + _RUN])
        if self._losses is not None:
            self._add_losses(self._losses)

    def open_log(self, entry: LogOpened) -> None:
        """Append log_opened, which tells of the records before it: they are recovered ones."""
        recovered = [index for index in self._indexes if index is not None]
        if recovered:
            entry = msgspec.structs.replace(
                entry, recovered_events=len(recovered), recovered_first_index=recovered[0]
            )
        self.draft.add_own(entry, self.cut.at_ns)

    def add_own(self, event: Event) -> None:
        """Append one of the log's own events."""
        self.draft.add_own(event, self.cut.at_ns)

    def close_log(self, reason: str) -> None:
        """Append log_closed; close_epoch() must follow."""
        self.draft.add_own(LogClosed(reason=reason), self.cut.at_ns)
        self.closes_log = True

    def close_epoch(self, epoch: int) -> None:
        """Append epoch_closed, the last entry under its key."""
        self.draft.add_epoch_closed(epoch, self.cut.at_ns)
        self.closes_epoch = True

    def give_receipts(self) -> None:
        """Tell those who wait. Only after the batch is durable."""
        for record, index in zip(self.cut.records, self._indexes, strict=True):
            if record.ticket is not None and index is not None:
                leaf_hash = self.draft.leaf_hashes[index - self.draft.start.size].hex()
                record.ticket.receipt = Receipt(index, leaf_hash, self.draft.audit_id(index))

    def _add_run(self, records: Sequence[Record]) -> None:
        """Append records: those that are clean as they are by the short way, which most are."""
        indexes = None
        if are_plain([record.content for record in records]):
            indexes = self.draft.add_plain(_plain_events(records))
        if indexes is not None:
            self._indexes.extend(indexes)
        elif len(records) == 1:
            self._indexes.append(self._add(records[0]))
        else:
            middle = len(records) // 2
            self._add_run(records[:middle])
            self._add_run(records[middle:])

    def _add(self, record: Record) -> int | None:
        """The record's index, or None where no entry could be made of it."""
        kind = record.content.kind
        try:
            fields, sanitized = fields_of(record.content, self._pseudonymize)
            return self.draft.add(kind.event_type, record.timestamp_ns, fields, sanitized)
        except Exception:  # noqa: BLE001 - one event must not stop the log: it is counted as dropped
            self.lost_count += 1
            loss = Losses(1, int(kind.is_critical), record.timestamp_ns, record.timestamp_ns)
            self._losses = self._losses.add(loss) if self._losses else loss
            return None

    def _add_losses(self, losses: Losses) -> None:
        dropped = EventsDropped(
            count=losses.count,
            critical_count=losses.critical_count,
            first_timestamp=rfc3339(losses.first_ns),
            last_timestamp=rfc3339(losses.last_ns),
        )
        self.draft.add_own(dropped, self.cut.at_ns)


def _plain_events(records: Sequence[Record]) -> list[PlainEvent]:
    events = []
    for record in records:
        content = record.content
        fields = content.payload
        if content.envelope:
            fields = content.envelope[:-1] + b"," + fields[1:] if fields != b"{}" else content.envelope
        events.append((content.kind.event_type, record.timestamp_ns, fields))
    return events
