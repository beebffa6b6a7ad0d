"""The opened log as one thread sees it: position, keys, segment, checkpoint. No thread, no waiting, no time.

The order of writes is the promise (spec: audit-log.md sections 3 and 4); the comments say what survives a
crash after each step. Every step raises AuditWriteError and can be repeated.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Final

import msgspec

from vram_residency.audit.events.own import SegmentRotated
from vram_residency.audit.format import chain, note
from vram_residency.audit.format.checkpoint import Checkpoint, SignedCheckpoint
from vram_residency.audit.format.checkpoint import sign as sign_checkpoint
from vram_residency.audit.store.directory import Directory
from vram_residency.audit.store.keyring import Keyring, MacState
from vram_residency.audit.store.leaves import LeafStore
from vram_residency.audit.store.segments import Acknowledged, SegmentWriter
from vram_residency.audit.writing.draft import Draft, Identity, Position
from vram_residency.audit.writing.options import LogOptions
from vram_residency.audit.writing.recovery import Standing
from vram_residency.core.errors import AuditWriteError, ConfigurationError

#: The operation that an AuditWriteError names where the log key did not sign.
SIGNING: Final = "sign"
_DAY_NS: Final = 86_400_000_000_000


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
        options: LogOptions,
    ) -> None:
        self.directory: Final = directory
        self.checkpoint = checkpoint
        self.position: Position = standing.position
        self.is_turning = standing.is_turning
        #: Told of every draft that has become durable.
        self.on_appended: Callable[[Draft], object] = _tell_nobody
        self._keyring = keyring
        self._identity = identity
        self._mac_state = mac_state
        self._files = options.files
        self._free_bytes_min = options.free_bytes_min
        self._rotate_bytes = options.rotate_bytes
        self._begun_us = standing.segment_begun_us
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

    def is_rotation_due(self, now_ns: int) -> bool:
        """Whether a new segment must begin before anything is written at that time (section 7)."""
        if self._begun_us is None:
            return False
        is_another_day = now_ns // _DAY_NS != self._begun_us * 1000 // _DAY_NS
        return is_another_day or self._segment.size_bytes >= self._rotate_bytes

    def segment_rotated(self) -> SegmentRotated:
        """What is to be said of the segment as it ends now."""
        return SegmentRotated(
            closed_segment=self._segment.path.name,
            sha256=self._segment.sha256,
            entries=self.position.size - self._segment.first_index,
        )

    def draft(self) -> Draft:
        """An empty draft on top of the position."""
        return Draft(self._identity, self.position, self._mac_state.key)

    def prepare_next_key(self, signer: note.Signer) -> None:
        """Keep the key that is to follow the log key, durably. Nothing names it yet."""
        self._keyring.prepare_next(signer)

    def draft_key_rotated(self, at_ns: int) -> Draft:
        """The entry by which the log key hands over to the next one."""
        draft, next_signer = self.draft(), self._keyring.next_signer
        assert next_signer is not None, "prepare_next_key() comes first"  # noqa: S101
        try:
            draft.add_key_rotated(self._keyring.signer, next_signer.verifier, at_ns)
        except note.SignerUnavailableError as error:
            raise self._unsigned(error) from None
        return draft

    def append(self, draft: Draft, *, closes_epoch: bool) -> None:
        """Make a draft durable. After an error the same one must be given again: it may be on disk."""
        # 1. After a crash: a prefix of the draft, none of it acknowledged. Afterwards: all of it.
        indexes = range(draft.start.size, draft.next_index)
        self._segment.append(draft.data, indexes, free_bytes_min=self._free_bytes_min)
        if self._segment.first_index == draft.start.size:
            self._begun_us = draft.end.timestamp_us
        self.position = draft.end
        self.is_turning = closes_epoch
        # 2. Derived, not synced; opening makes it again.
        self._leaves.append(self._segment.first_index, draft.start.size, draft.leaf_hashes)
        self.on_appended(draft)

    def begin_segment(self, draft: Draft) -> None:
        """Make a draft durable as the beginning of a new segment. To be repeated after an error."""
        # 1. After pruning nothing could make these leaf hashes again.
        self._leaves.finish(self._segment.first_index)
        # 2. After a crash: an empty segment, which opening removes.
        self._segment.begin_next(draft.start.size)
        # 3. After a crash: empty, torn, or whole. Once it is durable, the segment before becomes read-only.
        self.append(draft, closes_epoch=False)

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
        #    A log key that lies elsewhere may be away: the log goes on, and a later checkpoint covers this.
        try:
            self.sign()
        except AuditWriteError as error:
            if error.operation != SIGNING:
                raise
        # 3. Nobody can write an entry of the ended epoch any more.
        self._keyring.erase_other_slot(started.epoch)
        self._mac_state = started
        self.is_turning = False
        # 4. Derived; where opening begins to read. Not before step 1: it must not be ahead of mac.key.
        self._leaves.write_frontier(self.position.frontier)

    def change_key(self) -> None:
        """After key_rotated is durable: log.json, the checkpoint, and the end of the old key.

        May be repeated, also by the next opening. Until it is done nothing may be appended.
        """
        next_signer = self._keyring.next_signer
        if next_signer is None:
            return
        # 1. Before: the last entry alone names the new key. After: log.json does too.
        try:
            config, _ = self.directory.read_config()
        except ConfigurationError as error:
            raise AuditWriteError(str(self.directory.log_json), "read", error.rule) from error
        vkey = str(next_signer.verifier)
        if vkey not in config.vkeys:
            config = msgspec.structs.replace(config, vkeys=(*config.vkeys, vkey))
            self._replace(self.directory.log_json, config.encode())
        # 2. Whoever knows one of the two keys can follow to the other.
        self.sign(next_signer)
        # 3. The old key signs nothing any more.
        self._keyring.adopt_next()
        self._identity = Identity(self._identity.service_id, next_signer.verifier.id.hex())

    def sign(self, *next_signers: note.Signer) -> None:
        """Sign and replace the checkpoint. After a crash there is the old or the new one, both true.

        Only durable entries are ever signed, so no two checkpoints contradict each other.
        """
        position = self.position
        content = Checkpoint(self.checkpoint.origin, position.size, position.frontier.root())
        try:
            signed = sign_checkpoint(content, self._keyring.signer, *next_signers)
        except note.SignerUnavailableError as error:
            raise self._unsigned(error) from None
        self._replace(self.directory.checkpoint, signed.note_bytes)
        self.checkpoint = signed
        self._leaves.store()

    def erase_ended_key(self) -> None:
        """At opening: a crash may have come before step 3 of turn_epoch()."""
        self._keyring.erase_other_slot(self.epoch)

    def close(self) -> None:
        """Close the segment's descriptor."""
        self._segment.close()

    def _replace(self, path: Path, data: bytes) -> None:
        try:
            self._files.write_atomically(path, data)
        except OSError as error:
            raise AuditWriteError(str(path), "replace", error.strerror or str(error)) from error

    def _unsigned(self, error: note.SignerUnavailableError) -> AuditWriteError:
        hint = (
            "Bring the log's key back (ssh-agent, SSH_AUTH_SOCK, ssh-add); until then entries are unsigned."
        )
        return AuditWriteError(str(self.directory.checkpoint), SIGNING, str(error), hint=hint)

    def _open_segment(self, standing: Standing) -> SegmentWriter:
        if standing.segment_start is None:
            return SegmentWriter.create(self.directory, self._files, self.position.size)
        self._restore_leaves(standing, standing.segment_start)
        before = standing.segment_before
        return SegmentWriter(
            self.directory,
            self._files,
            first_index=standing.segment_start,
            acknowledged=Acknowledged(
                standing.segment_bytes, standing.position.size, standing.segment_hash.copy()
            ),
            predecessor=None if before is None else self.directory.segment(before),
        )

    def _restore_leaves(self, standing: Standing, segment_start: int) -> None:
        """Bring the last segment's leaf hashes up to the position; what is missing before stays missing."""
        self._leaves.append(segment_start, standing.leaves_from, standing.leaf_hashes)


def _tell_nobody(_draft: Draft) -> None:
    pass
