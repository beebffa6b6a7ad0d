"""The change from one log key to the next (spec: audit-log.md section 3), step by step."""

from __future__ import annotations

from typing import Final

from vram_residency.audit.writing.ledger import Ledger


class KeyRotation:
    """One rotation at one moment. The key that follows lies in the key folder already, as ``log.key.next``.

    After an error run() again, before anything else is appended: what may have reached the disk is kept as it
    is. After a crash opening goes on where it stopped, if the entry is there, and else forgets the next key.
    """

    def __init__(self, ledger: Ledger, at_ns: int) -> None:
        """Raises AuditWriteError where the old key does not sign."""
        self._ledger: Final = ledger
        self._draft: Final = ledger.draft_key_rotated(at_ns)

    def run(self) -> None:
        """Go on to the end. Raises AuditWriteError."""
        # 1. From here on the log says itself which key follows.
        if self._ledger.position.size < self._draft.next_index:
            self._ledger.append(self._draft, closes_epoch=False)
        # 2. log.json, the checkpoint by both keys, and the end of the old one.
        self._ledger.change_key()
