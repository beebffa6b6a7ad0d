"""The change from one segment to the next (spec: audit-log.md sections 3 and 7), step by step."""

from __future__ import annotations

from typing import Final

from vram_residency.audit.writing.draft import Draft
from vram_residency.audit.writing.ledger import Ledger


class Rotation:
    """One rotation at one moment: epoch_closed ends the old segment, segment_rotated begins the new one.

    After an error run() again, before anything else is appended: what may have reached the disk is kept as it
    is. A crash leaves the old segment closed or not: the next writer goes on in it, and rotates again.
    """

    def __init__(self, ledger: Ledger, at_ns: int) -> None:
        """``at_ns``: no later than the first event that waits, so that times stay in order."""
        self._ledger: Final = ledger
        self._at_ns: Final = at_ns
        self._ending = ledger.draft()
        self._ending.add_epoch_closed(ledger.epoch, at_ns)
        self._beginning: Draft | None = None

    def run(self) -> None:
        """Go on to the end. Raises AuditWriteError."""
        ledger = self._ledger
        # 1. The old segment's last entry.
        if ledger.position.size < self._ending.next_index:
            ledger.append(self._ending, closes_epoch=True)
        # 2. The next key, and a checkpoint over all that the old segment holds.
        if ledger.is_turning:
            ledger.turn_epoch()
        # 3. The new segment's first entry, under the new key.
        if self._beginning is None:
            beginning = ledger.draft()
            beginning.add_own(ledger.segment_rotated(), self._at_ns)
            self._beginning = beginning
        if ledger.position.size < self._beginning.next_index:
            ledger.begin_segment(self._beginning)
