"""What is written at one go: the events that waited, their losses, and the log's own events around them."""

from __future__ import annotations

from typing import Final

from vram_residency.audit.buffer import Cut, Losses, Receipt, Record
from vram_residency.audit.cleaning import Pseudonymize
from vram_residency.audit.content import fields_of
from vram_residency.audit.draft import Draft
from vram_residency.audit.own_events import EventsDropped, LogClosed, LogOpened
from vram_residency.core.clock import rfc3339


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
        losses = cut.losses
        for record in cut.records:
            index = self._add(record, pseudonymize)
            self._indexes.append(index)
            if index is None:
                loss = Losses(1, int(record.content.is_critical), record.timestamp_ns, record.timestamp_ns)
                losses = losses.add(loss) if losses else loss
        if losses is not None:
            self._add_losses(losses)

    def open_log(self, entry: LogOpened) -> None:
        """Append log_opened."""
        self.draft.add_own(entry, self.cut.at_ns)

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

    def _add(self, record: Record, pseudonymize: Pseudonymize | None) -> int | None:
        """The record's index, or None where no entry could be made of it."""
        content = record.content
        try:
            fields, sanitized = fields_of(content, pseudonymize)
            return self.draft.add(content.event_type, record.timestamp_ns, fields, sanitized)
        except Exception:  # noqa: BLE001 - one event must not stop the log: it is counted as dropped
            self.lost_count += 1
            return None

    def _add_losses(self, losses: Losses) -> None:
        dropped = EventsDropped(
            count=losses.count,
            critical_count=losses.critical_count,
            first_timestamp=rfc3339(losses.first_ns),
            last_timestamp=rfc3339(losses.last_ns),
        )
        self.draft.add_own(dropped, self.cut.at_ns)
