"""Stored leaf hashes and frontier: derived from the entries, so neither synced nor trusted (``tree/``).

A failure here costs nothing but a longer opening: the files are then short, and are made again.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Sequence
from typing import Final

from vram_residency.audit.format import tree
from vram_residency.audit.store.directory import Directory
from vram_residency.audit.store.files import DIRECTORY_MODE, FILE_MODE

_PENDING_MAX: Final = 4096


class LeafStore:
    """Appends leaf hashes, 32 bytes each, to one file per segment.

    Invariant: a file is a prefix of its segment's leaf hashes; where hashes before an append are missing,
    nothing is stored.
    """

    def __init__(self, directory: Directory) -> None:
        self._directory: Final = directory
        #: First index of the segment, and of the first hash in ``_hashes``.
        self._pending: tuple[int, int] | None = None
        self._hashes: list[bytes] = []

    def prepare(self) -> None:
        """Make the folder again where somebody removed it, if the disk lets us."""
        with contextlib.suppress(OSError):
            self._directory.tree.mkdir(mode=DIRECTORY_MODE, exist_ok=True)

    def append(self, first_index: int, index: int, leaf_hashes: Sequence[bytes]) -> None:
        """Take the hashes of entries from ``index`` on, which lie in the segment ``first_index``.

        They are stored with the next checkpoint, or once there are many: no event waits for them.
        """
        if self._pending and self._pending[0] != first_index:
            self.store()
        if not self._pending:
            self._pending, self._hashes = (first_index, index), []
        # Given a second time after an interrupt: what was taken then is the same.
        del self._hashes[index - self._pending[1] :]
        self._hashes.extend(leaf_hashes)
        if len(self._hashes) >= _PENDING_MAX:
            self.store()

    def store(self) -> None:
        """Store what was taken."""
        if self._pending:
            (first_index, index), leaf_hashes = self._pending, self._hashes
            self._pending, self._hashes = None, []
            self._store(first_index, index, leaf_hashes)

    def finish(self, first_index: int) -> None:
        """Store what was taken, and sync the file of a segment that ends, if the disk lets us."""
        self.store()
        with contextlib.suppress(OSError):
            descriptor = os.open(self._directory.leaves(first_index), os.O_RDONLY | os.O_NOFOLLOW)
            try:
                os.fsync(descriptor)
            finally:
                os.close(descriptor)

    def _store(self, first_index: int, index: int, leaf_hashes: Sequence[bytes]) -> None:
        path = self._directory.leaves(first_index)
        offset = (index - first_index) * tree.HASH_BYTES
        try:
            descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW, FILE_MODE)
            try:
                if os.fstat(descriptor).st_size >= offset:
                    os.ftruncate(descriptor, offset)
                    os.pwrite(descriptor, b"".join(leaf_hashes), offset)
            finally:
                os.close(descriptor)
        except OSError:
            return

    def read_frontier(self) -> tree.Frontier:
        """The stored frontier, unverified; the empty one where there is none that can be read."""
        try:
            return tree.Frontier.parse(self._directory.frontier.read_bytes())
        except (OSError, tree.FrontierFormatError):
            return tree.Frontier()

    def write_frontier(self, frontier: tree.Frontier) -> None:
        """Store the frontier, if the disk lets us."""
        new = self._directory.frontier.with_name("frontier.new")
        try:
            new.unlink(missing_ok=True)
            descriptor = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, FILE_MODE)
            try:
                os.write(descriptor, frontier.encode())
            finally:
                os.close(descriptor)
            new.replace(self._directory.frontier)
        except OSError:
            return
