"""Removing the segments that a plan names (spec: audit-log.md section 7), step by step.

After a crash at any moment the log opens and verifies, and pruning again completes what was begun.
"""

from __future__ import annotations

from typing import Final

from vram_residency.audit.format.tree import leaf_hash
from vram_residency.audit.reading import source as reading
from vram_residency.audit.reading.prunable import Plan
from vram_residency.audit.reading.stored_leaves import fold, stored_leaves
from vram_residency.audit.store.directory import TORN_SUFFIX, Directory
from vram_residency.audit.store.files import Files
from vram_residency.audit.writing.writer import Writer
from vram_residency.core.errors import AuditWriteError, LogDamagedError, LogLockedError


class Pruning:
    """One plan, carried out by the log's writer, whose lock is held."""

    def __init__(self, writer: Writer, plan: Plan, files: Files) -> None:
        self._writer: Final = writer
        self._plan: Final = plan
        self._files: Final = files
        self._place: Final[Directory] = writer.ledger.directory

    def run(self) -> None:
        """Do all of it; may be repeated. Raises AuditWriteError, LogDamagedError, LogLockedError."""
        try:
            self._require_unchanged()
            # 1. The leaf hashes of all that goes: right, and durable. After a crash nothing has happened.
            self._keep_leaves()
            # 2. The record, and a checkpoint that covers it. After a crash all entries are there, and the
            #    record says of some that they may go.
            self._writer.record(self._plan.event)
            # 3. The segments, oldest first, each durably: after a crash the first of them are gone.
            for segment in self._plan.segments:
                self._remove(segment)
        except OSError as error:
            path = error.filename or str(self._place.entries)
            raise AuditWriteError(str(path), "prune", error.strerror or str(error)) from error

    def _require_unchanged(self) -> None:
        found = [segment.first_index for segment in reading.segments(self._place.entries)]
        if found[: len(self._plan.segments)] != [segment.first_index for segment in self._plan.segments]:
            raise LogLockedError(str(self._place), "a process that pruned it just now")

    def _keep_leaves(self) -> None:
        for segment in self._plan.segments:
            path = self._place.leaves(segment.first_index)
            with reading.open_segment(segment.path) as file:
                hashes = b"".join(leaf_hash(line.data) for line in reading.lines(file) if line.is_whole)
            # Also where they are right already: nothing else made sure that they would outlive the power.
            self._files.write_atomically(path, hashes)
        boundary = self._plan.boundary
        frontier, _ = fold(stored_leaves(self._place), [boundary.index])
        if (frontier.size, frontier.root()) != (boundary.index, boundary.root):
            reason = "the leaf hashes do not hash to the log's root"
            raise LogDamagedError(str(self._place.tree), None, reason)

    def _remove(self, segment: reading.Segment) -> None:
        plain, archive = (find(segment.first_index) for find in (self._place.segment, self._place.archived))
        torn = plain.with_name(plain.name + TORN_SUFFIX)
        # The segment may just be on its way into its archive.
        with self._writer.segments_lock:
            for path in (torn, archive, plain):
                if path.exists():
                    self._files.remove(path)
            self._files.sync_directory(self._place.entries)
