"""The opened log as one thread sees it: position, keys, segment, checkpoint. No thread, no waiting, no time.

The order of writes is the promise (spec: audit-log.md sections 3 and 4); the comments say what survives a
crash after each step. Every step raises AuditWriteError and can be repeated.
"""

from __future__ import annotations

from typing import Final

from vram_residency.audit.format import chain
from vram_residency.audit.format.checkpoint import Checkpoint, SignedCheckpoint
from vram_residency.audit.format.checkpoint import sign as sign_checkpoint
from vram_residency.audit.store.directory import Directory
from vram_residency.audit.store.files import Files
from vram_residency.audit.store.keyring import Keyring, MacState
from vram_residency.audit.store.leaves import LeafStore
from vram_residency.audit.store.segments import SegmentWriter
from vram_residency.audit.writing.draft import Draft, Identity, Position
from vram_residency.audit.writing.recovery import Standing
from vram_residency.core.errors import AuditWriteError


class Ledger:
    """Appends drafts, turns epochs, signs checkpoints. Not thread-safe: the writer's commit lock guards it.

    Invariant: ``position`` is durable. While ``is_turning``, its last entry is the epoch_closed of
    ``epoch`` and nothing may be appended before turn_epoch().
    """

    def __init__(
        self,
        directory: Directory,
        keyring: Keyring,
        *,
        identity: Identity,
        mac_state: MacState,
        checkpoint: SignedCheckpoint,
        standing: Standing,
        files: Files,
        free_bytes_min: int,
    ) -> None:
        self.directory: Final = directory
        self.checkpoint = checkpoint
        self.position: Position = standing.position
        self.is_turning = standing.is_turning
        self._keyring = keyring
        self._identity = identity
        self._mac_state = mac_state
        self._files = files
        self._free_bytes_min = free_bytes_min
        self._leaves = LeafStore(directory)
        self._leaves.prepare()
        self._segment = self._open_segment(standing)

    @property
    def epoch(self) -> int:
        """The number of the running epoch."""
        return self._mac_state.epoch

    @property
    def has_unsigned_entries(self) -> bool:
        """Whether the newest checkpoint does not cover every entry."""
        return self.checkpoint.size < self.position.size

    def draft(self) -> Draft:
        """An empty draft on top of the position."""
        return Draft(self._identity, self.position, self._mac_state.key)

    def append(self, draft: Draft, *, closes_epoch: bool) -> None:
        """Make a draft durable. After an error the same one must be given again: it may be on disk."""
        # 1. After a crash: a prefix of the draft, none of it acknowledged. Afterwards: all of it.
        indexes = range(draft.start.size, draft.next_index)
        self._segment.append(draft.data, indexes, free_bytes_min=self._free_bytes_min)
        self.position = draft.end
        self.is_turning = closes_epoch
        # 2. Derived, not synced; opening makes it again.
        self._leaves.append(self._segment.first_index, draft.start.size, draft.leaf_hashes)

    def turn_epoch(self) -> None:
        """After the epoch_closed is durable: the next key, the checkpoint, and the end of the old key."""
        ended = self._mac_state
        started = MacState(
            epoch=ended.epoch + 1,
            key=chain.next_epoch_key(ended.key),
            tree_size=self.position.size,
            last_mac=self.position.mac,
            host_id=ended.host_id,
        )
        # 1. Before: mac.key is exactly one epoch behind a final epoch_closed, which opening ratchets.
        #    After: both keys are there, the newer one counts, and the checkpoint may be older.
        self._keyring.write_mac_state(started)
        # 2. The checkpoint covers the whole epoch. Opening erases the old key if step 3 never came.
        self.sign()
        # 3. Nobody can write an entry of the ended epoch any more.
        self._keyring.erase_other_slot(started.epoch)
        self._mac_state = started
        self.is_turning = False
        # 4. Derived; where opening begins to read. Not before step 1: it must not be ahead of mac.key.
        self._leaves.write_frontier(self.position.frontier)

    def sign(self) -> None:
        """Sign and replace the checkpoint. After a crash there is the old or the new one, both true.

        Only durable entries are ever signed, so no two checkpoints contradict each other.
        """
        position = self.position
        content = Checkpoint(self.checkpoint.origin, position.size, position.frontier.root())
        signed = sign_checkpoint(content, self._keyring.signer)
        path = self.directory.checkpoint
        try:
            self._files.write_atomically(path, signed.note_bytes)
        except OSError as error:
            raise AuditWriteError(str(path), "replace", error.strerror or str(error)) from error
        self.checkpoint = signed
        self._leaves.store()

    def erase_ended_key(self) -> None:
        """At opening: a crash may have come before step 3 of turn_epoch()."""
        self._keyring.erase_other_slot(self.epoch)

    def close(self) -> None:
        """Close the segment's descriptor."""
        self._segment.close()

    def _open_segment(self, standing: Standing) -> SegmentWriter:
        if standing.segment_start is None:
            return SegmentWriter.create(self.directory, self._files, self.position.size)
        self._restore_leaves(standing, standing.segment_start)
        return SegmentWriter(
            self.directory,
            self._files,
            first_index=standing.segment_start,
            acknowledged=(standing.segment_bytes, standing.position.size),
        )

    def _restore_leaves(self, standing: Standing, segment_start: int) -> None:
        """Bring the last segment's leaf hashes up to the position; what is missing before stays missing."""
        self._leaves.append(segment_start, standing.leaves_from, standing.leaf_hashes)
