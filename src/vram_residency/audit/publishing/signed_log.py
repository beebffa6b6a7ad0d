"""A log as its newest checkpoint covers it: what proofs, publication and witnesses stand on. Read-only.

It may be read beside a live writer: the checkpoint is read first, and what it covers never changes.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from typing import Final, NamedTuple

from vram_residency.audit.format import note, proof, tree
from vram_residency.audit.format.checkpoint import CheckpointFormatError, SignedCheckpoint, open_signed
from vram_residency.audit.format.entry import ENTRY_BYTES_MAX
from vram_residency.audit.reading import source as reading
from vram_residency.audit.reading.stored_leaves import stored_leaves
from vram_residency.audit.store.directory import Directory, LogConfig
from vram_residency.core.errors import LogDamagedError

#: Called with how much is done and how much there is in all.
Progress = Callable[[int, int], None]
_BATCH_LEAVES: Final = 1 << 16


class Leaf(NamedTuple):
    """An entry's leaf hash, and its line (without newline) where the entry is still there."""

    hash: bytes
    line: bytes | None


class SignedLog:
    """A log's directory, its configuration and the checkpoint that its own keys signed."""

    def __init__(self, directory: Directory, config: LogConfig, checkpoint: SignedCheckpoint) -> None:
        self.directory: Final = directory
        self.config: Final = config
        self.checkpoint: Final = checkpoint

    @classmethod
    def open(cls, directory: str | os.PathLike[str]) -> SignedLog:
        """Read configuration and checkpoint. Raises ConfigurationError (no log), LogDamagedError."""
        place = Directory(directory)
        # The checkpoint first: a writer that changes keys in between adds the new one to log.json.
        data = _read_checkpoint(place)
        config, _ = place.read_config()
        if isinstance(data, OSError):
            reason = f"cannot be read: {data.strerror or data}"
            raise LogDamagedError(str(place.checkpoint), None, reason) from data
        try:
            checkpoint = open_signed(data, config.verifier_keys(), origin=config.origin)
        except (note.NoteFormatError, note.NoteVerificationError, CheckpointFormatError) as error:
            reason = f"not a checkpoint of this log: {error}"
            raise LogDamagedError(str(place.checkpoint), None, reason) from error
        return cls(place, config, checkpoint)

    @property
    def origin(self) -> str:
        """Whose log it is."""
        return self.config.origin

    @property
    def size(self) -> int:
        """The number of entries under the checkpoint."""
        return self.checkpoint.size

    def nodes(
        self, wanted: Iterable[proof.Node], on_progress: Progress | None = None
    ) -> dict[proof.Node, bytes]:
        """The roots of perfect subtrees, from leaves that hash to the signed root.

        ``on_progress`` gets leaves done and in all; it begins anew where a second pass is needed.
        The stored leaf hashes serve if they do; else they are made again from the entries, in memory.
        Raises LogDamagedError where neither hashes to it.
        """
        nodes = list(wanted)
        for leaf_hashes in (self._stored_leaves(0), self._entry_leaves()):
            collector = proof.NodeCollector(nodes)
            covered = islice(leaf_hashes, self.size)
            while batch := list(islice(covered, _BATCH_LEAVES)):
                collector.feed(batch)
                if on_progress is not None:
                    on_progress(collector.size, self.size)
            if (collector.size, collector.root()) == (self.size, self.checkpoint.root):
                return collector.found
        raise LogDamagedError(
            str(self.directory.entries), None, f"the first {self.size} entries do not hash to the signed root"
        )

    def line(self, index: int) -> bytes | None:
        """The line of an entry without its newline; None where it was pruned or is missing."""
        leaf = next(self.leaves(index), None)
        return None if leaf is None else leaf.line

    def leaves(self, start: int) -> Iterator[Leaf]:
        """Every entry from ``start`` up to the signed size; ends early where they are missing.

        Entries before a segment were pruned: their stored leaf hashes come without a line. Nothing is
        verified: the caller compares the root. Raises LogDamagedError where a file cannot be read.
        """
        try:
            yield from islice(self._leaves(start), max(self.size - start, 0))
        except OSError as error:
            path = error.filename or str(self.directory.entries)
            raise LogDamagedError(str(path), None, f"cannot be read: {error.strerror or error}") from error

    def cosigned_note(self) -> bytes:
        """The checkpoint's note with every kept cosignature that is of this very checkpoint.

        Which keys count is the reader's choice, so they are not judged here; what is no note is left out.
        """
        text, own = note.split(self.checkpoint.note_bytes)
        log_keys = {(key.name, key.id) for key in self.config.verifier_keys()}
        found = dict.fromkeys(own)
        for kept_text, signatures in self.kept_notes():
            for signature in signatures if kept_text == text else ():
                # The log signs its checkpoint itself; nobody adds a signature in its name.
                if (signature.name, signature.key_id) not in log_keys:
                    found[signature] = None
        return note.join(text, found)

    def kept_notes(self) -> Iterator[tuple[str, list[note.Signature]]]:
        """What witnesses cosigned, one note a witness: text and signatures, unverified.

        Files that cannot be read, or hold no note, are left out.
        """
        for path in sorted(self.directory.cosignatures.glob("*.note")):
            with contextlib.suppress(OSError, note.NoteFormatError):
                yield note.split(reading.read_small(path))

    def _entry_leaves(self) -> Iterator[bytes]:
        return (leaf.hash for leaf in self.leaves(0))

    def _leaves(self, start: int) -> Iterator[Leaf]:
        segments = reading.segments(self.directory.entries)
        index = start
        for position, segment in enumerate(segments):
            is_passed = position + 1 < len(segments) and segments[position + 1].first_index <= index
            if is_passed:
                continue
            for hash_ in islice(self._stored_leaves(index), max(segment.first_index - index, 0)):
                yield Leaf(hash_, None)
                index += 1
            if segment.first_index > index:
                return  # not even leaf hashes
            for line in _lines_from(segment, index):
                yield Leaf(tree.leaf_hash(line), line)
                index += 1

    def _stored_leaves(self, start: int) -> Iterator[bytes]:
        """As far as they can be read."""
        with contextlib.suppress(OSError):
            yield from stored_leaves(self.directory, start)


def _read_checkpoint(place: Directory) -> bytes | OSError:
    try:
        return reading.read_small(place.checkpoint)
    except OSError as error:
        return error


def _lines_from(segment: reading.Segment, index: int) -> Iterator[bytes]:
    """The whole lines of a segment from entry ``index`` on."""
    with reading.open_segment(segment.path) as file:
        for line in islice(reading.lines(file), index - segment.first_index, None):
            if line.is_whole and len(line.data) <= ENTRY_BYTES_MAX:
                yield line.data
