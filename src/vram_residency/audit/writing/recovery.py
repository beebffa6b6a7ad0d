"""Opening a log: where it stands, or why it must not go on (spec: audit-log.md sections 3 and 4). Read-only.

Steps, each a clause of the specification:

1. the newest checkpoint is signed by the log's key for its origin;
2. mac.key holds a key, made on this host;
3. the segments follow each other without a gap; every complete line read is a canonical entry with the
   right index; only the last line of the last segment may be torn;
4. the tree folds to the signed root at the checkpoint's size, and to the anchor's at the anchor's;
5. from mac.key's tree size on, every mac is right under its key;
6. an epoch_closed under that key can only be the last entry: mac.key is then exactly one epoch behind;
7. the log is not shorter than the checkpoint, mac.key or the anchor.

Whatever fails is evidence: the directory stays as it is. Old segments are not read: reading starts at the
beginning of the running epoch, where the stored frontier stands. Where that serves not, as beside an anchor
from before, the stored leaf hashes are folded. Neither can be wrong and fold to the signed root: then the
tree is built again from entry 0, or, in a pruned log, from the leaf hashes of what is gone.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import msgspec

from vram_residency.audit.events.registry import LOG_OWN_TYPES
from vram_residency.audit.format import chain, tree
from vram_residency.audit.format.checkpoint import SignedCheckpoint
from vram_residency.audit.format.entry import Entry, EntryFormatError, parse_entry, split_line
from vram_residency.audit.reading.pruned import is_recorded
from vram_residency.audit.reading.stored_leaves import fold, stored_leaves
from vram_residency.audit.reading.verdict import Fault
from vram_residency.audit.store.directory import Directory
from vram_residency.audit.store.keyring import MacState
from vram_residency.audit.store.segments import read_lines
from vram_residency.audit.writing.draft import Position
from vram_residency.core.clock import parse_rfc3339
from vram_residency.core.errors import LogDamagedError

_LOG_CLOSED: Final = "log_closed"
_EPOCH_CLOSED: Final = "epoch_closed"
_KEY_ROTATED: Final = "key_rotated"
_EVENTS_DROPPED: Final = "events_dropped"


class Evidence(msgspec.Struct, frozen=True, kw_only=True):
    """What is known of the log from outside its entries, each part already verified by itself."""

    checkpoint: SignedCheckpoint
    mac_state: MacState
    anchor: SignedCheckpoint | None = None


class Written(msgspec.Struct, frozen=True):
    """An entry that the journal's header does not know of: time (RFC 3339), type, losses that it tells of."""

    timestamp: str
    event_type: str
    lost_count: int = 0
    lost_critical_count: int = 0


class Standing(msgspec.Struct, frozen=True, kw_only=True):
    """Where an opened log stands.

    ``is_turning``: its last entry closed the epoch of ``mac_state``, whose successor is still to be
    written. ``segment_start`` names the last segment with a complete line, ``segment_before`` the one before
    it, ``hollow_start`` one after it without such a line; None where there is none. ``segment_begun_us`` is
    the time of its first entry, in microseconds since the epoch. ``segment_bytes`` counts complete lines,
    ``segment_hash`` has their SHA-256; ``torn`` follows them, or lies in the hollow segment. ``leaf_hashes``
    are those of entries ``leaves_from`` on, all in the last segment. ``written`` are the entries from the
    journal's size on, less those of the log's own that tell of no loss. ``new_vkey`` is what the last entry
    names, if it is a key_rotated.
    """

    position: Position
    is_turning: bool
    is_clean: bool
    segment_start: int | None
    segment_before: int | None
    hollow_start: int | None
    segment_begun_us: int | None
    segment_bytes: int
    segment_hash: Any
    torn: bytes
    leaves_from: int
    leaf_hashes: list[bytes]
    written: list[Written]
    new_vkey: str | None


class _RootError(Exception):
    """The tree does not fold to a root that is vouched for."""

    def __init__(self, size: int, authority: str) -> None:
        super().__init__(size, authority)
        self.size = size
        self.authority = authority


def examine(
    directory: Directory,
    evidence: Evidence,
    unverified_frontier: tree.Frontier,
    *,
    journal_size: int | None = None,
) -> Standing:
    """Steps 3 to 7. ``journal_size`` is the journal's tree size, if there is one. Raises LogDamagedError."""
    failure: _RootError | None = None
    for frontier in _frontiers(directory, evidence, unverified_frontier):
        try:
            return _Examination(directory, evidence, frontier, journal_size).run()
        except _RootError as error:
            failure = error
    assert failure is not None, "the last frontier is the empty one"  # noqa: S101
    raise _root_damage(directory, failure) from None


def _frontiers(
    directory: Directory, evidence: Evidence, unverified_frontier: tree.Frontier
) -> Iterator[tree.Frontier]:
    """Where to begin to read, the cheapest first; each is tried only where the one before led to no root."""
    # 1. A frontier beyond a vouched size could not be checked, one beyond mac.key's would skip macs' lines.
    limit = min(evidence.mac_state.tree_size, *(size for size, _, _ in _roots(evidence)))
    if 0 < unverified_frontier.size <= limit:
        yield unverified_frontier
    # 2. An old anchor is compared with the stored leaf hashes; they must go on to the newest root.
    folded = _fold_stored(directory, evidence)
    if folded.size:
        yield folded
    # 3. All entries.
    yield tree.Frontier()


def _fold_stored(directory: Directory, evidence: Evidence) -> tree.Frontier:
    """The stored leaf hashes, folded up to the running epoch; the empty frontier where they serve no one."""
    size = min(evidence.mac_state.tree_size, evidence.checkpoint.size)
    stops = {size_: root for size_, root, _ in _roots(evidence) if size_ <= size}
    try:
        frontier, roots = fold(stored_leaves(directory), [*stops, size])
    except OSError:
        return tree.Frontier()
    is_right = frontier.size == size and all(roots[stop] == root for stop, root in stops.items())
    return frontier if is_right else tree.Frontier()


def _roots(evidence: Evidence) -> list[tuple[int, bytes, str]]:
    roots = [(evidence.checkpoint.size, evidence.checkpoint.root, "its newest checkpoint")]
    if evidence.anchor is not None:
        roots.append((evidence.anchor.size, evidence.anchor.root, "its anchor"))
    return roots


def _root_damage(directory: Directory, error: _RootError) -> LogDamagedError:
    reason = f"the first {error.size} entries are not those of {error.authority}"
    return LogDamagedError(str(directory.entries), None, reason)


class _Examination:
    """One pass over the entries from the start of the running epoch on."""

    def __init__(
        self, directory: Directory, evidence: Evidence, frontier: tree.Frontier, journal_size: int | None
    ) -> None:
        self._directory = directory
        self._mac_state = evidence.mac_state
        self._roots = _roots(evidence)
        self._frontier = frontier
        self._mac = evidence.mac_state.last_mac
        self._last: Entry | None = None
        self._last_types: tuple[str, ...] = ()
        self._is_turning = False
        self._segment_start: int | None = None
        self._segment_before: int | None = None
        self._hollow_start: int | None = None
        self._segment_begun_us: int | None = None
        self._segment_bytes = 0
        self._segment_hash = hashlib.sha256()
        self._torn = b""
        self._leaves_from = frontier.size
        self._leaf_hashes: list[bytes] = []
        # Without a journal nothing can be missing from the log that it would tell of.
        self._journal_size = evidence.mac_state.tree_size if journal_size is None else journal_size
        self._written: list[Written] = []

    def run(self) -> Standing:
        size = self._read()
        # 7.
        for needed, name in (
            *((size_, name) for size_, _, name in self._roots),
            (self._mac_state.tree_size, "mac.key"),
            # A torn line says by itself that entries were lost, and is kept.
            (0 if self._torn else self._journal_size, "the journal"),
        ):
            if size < needed:
                reason = f"{size} entries, but {name} knows of {needed}: cut off or rolled back"
                raise LogDamagedError(str(self._directory.entries), None, reason)
        timestamp_us = parse_rfc3339(self._last.timestamp) // 1000 if self._last else None
        return Standing(
            position=Position(self._frontier, self._mac, timestamp_us),
            is_turning=self._is_turning,
            is_clean=size == 0 or self._last_types == (_LOG_CLOSED, _EPOCH_CLOSED),
            segment_start=self._segment_start,
            segment_before=self._segment_before,
            hollow_start=self._hollow_start,
            segment_begun_us=self._segment_begun_us,
            segment_bytes=self._segment_bytes,
            segment_hash=self._segment_hash,
            torn=self._torn,
            leaves_from=self._leaves_from,
            leaf_hashes=self._leaf_hashes,
            written=self._written,
            new_vkey=self._new_vkey(),
        )

    def _new_vkey(self) -> str | None:
        if self._last is None or self._last.event_type != _KEY_ROTATED:
            return None
        return str(self._last.fields.get("new_vkey"))

    def _read(self) -> int:
        """Steps 3 to 6 for every line that is needed; how many entries the log has."""
        starts = self._directory.segment_starts()
        if starts and starts[0]:
            self._begin_pruned(starts[0])
        # Two entries before the first that is replayed tell how the epoch before ended.
        wanted = max(min(self._frontier.size, self._mac_state.tree_size, self._journal_size) - 2, 0)
        index: int | None = None
        self._check_roots()
        for path, start in self._segments_from(starts, wanted):
            # 3. The first segment read sets the count; each later one must continue it.
            if index is not None and (start != index or self._torn):
                reason = f"entry {index} was expected here; the segment before ends wrongly"
                raise LogDamagedError(str(path), 0, reason)
            index = self._read_segment(path, start, wanted)
        return index or 0

    def _read_segment(self, path: Path, start: int, wanted: int) -> int:
        """The index of the entry after its last complete line."""
        index = start
        for offset, line in read_lines(path):
            if not line.endswith(b"\n"):
                self._torn = line
                break
            if index == start:
                self._begin_segment(path, start, line[:-1])
            if index >= wanted:
                self._take(path, offset, line[:-1], index)
            index += 1
            self._segment_bytes = offset + len(line)
            self._segment_hash.update(line)
        if index == start:
            self._hollow_start = start
        return index

    def _begin_pruned(self, first_index: int) -> None:
        """Section 7: what is missing was pruned, and its leaf hashes stayed.

        Whether the record is authentic is for verification to say, as of all old entries.
        """
        entries = str(self._directory.entries)
        try:
            if not is_recorded(self._directory, first_index):
                raise LogDamagedError(entries, None, f"entries 0 to {first_index - 1} are missing")
            if self._frontier.size >= first_index:
                return
            sizes = [size for size, _, _ in self._roots if size < first_index]
            frontier, roots = fold(stored_leaves(self._directory), [*sizes, first_index])
        except Fault as fault:
            raise LogDamagedError(entries, None, fault.reason) from None
        except OSError as error:
            raise LogDamagedError(entries, None, f"cannot be read: {error.strerror or error}") from error
        if frontier.size != first_index:
            reason = f"the leaf hashes of the pruned entries 0 to {first_index - 1} are missing"
            raise LogDamagedError(str(self._directory.tree), None, reason)
        for size, root, name in self._roots:
            if roots.get(size, root) != root:
                raise _RootError(size, name)
        self._frontier, self._leaves_from = frontier, first_index

    def _segments_from(self, starts: list[int], wanted: int) -> Iterator[tuple[Path, int]]:
        first = max((number for number, start in enumerate(starts) if start <= wanted), default=0)
        for start in starts[first:]:
            path = self._directory.segment(start)
            yield (path if path.exists() else self._directory.archived(start)), start

    def _begin_segment(self, path: Path, start: int, line: bytes) -> None:
        try:
            self._segment_begun_us = parse_rfc3339(parse_entry(line).timestamp) // 1000
        except ValueError as error:
            raise LogDamagedError(str(path), 0, f"entry {start}: {error}") from error
        self._segment_before, self._segment_start = self._segment_start, start
        self._segment_bytes, self._segment_hash = 0, hashlib.sha256()
        self._leaves_from, self._leaf_hashes = max(start, self._frontier.size), []

    def _take(self, path: Path, offset: int, line: bytes, index: int) -> None:
        try:
            entry = parse_entry(line)
        except EntryFormatError as error:
            raise LogDamagedError(str(path), offset, f"entry {index}: {error}") from error
        if entry.index != index:
            raise LogDamagedError(str(path), offset, f"entry {index} was expected, not {entry.index}")
        try:
            self._check_mac(entry, line)
        except ValueError as error:
            raise LogDamagedError(str(path), offset, f"entry {index}: {error}") from error
        if index >= self._frontier.size:
            self._leaf_hashes.append(tree.leaf_hash(line))
            self._frontier = self._frontier.append(self._leaf_hashes[-1])
            self._check_roots()
        if index >= self._journal_size:
            self._note_written(entry)
        self._last = entry
        self._last_types = (*self._last_types[-1:], entry.event_type)

    def _note_written(self, entry: Entry) -> None:
        if entry.event_type == _EVENTS_DROPPED:
            counts = [entry.fields.get(name) for name in ("count", "critical_count")]
            count, critical_count = (value if isinstance(value, int) else 0 for value in counts)
            self._written.append(Written(entry.timestamp, entry.event_type, count, critical_count))
        elif entry.event_type not in LOG_OWN_TYPES:
            self._written.append(Written(entry.timestamp, entry.event_type))

    def _check_mac(self, entry: Entry, line: bytes) -> None:
        state = self._mac_state
        body, unverified_mac = split_line(line)
        if entry.index < state.tree_size:
            if entry.index == state.tree_size - 1:
                self._check_boundary(entry)
            return
        # 6.
        if self._is_turning:
            raise ValueError("an entry follows the end of its epoch, whose key mac.key still holds")
        # 5.
        self._mac = chain.next_mac(state.key, self._mac, body)
        if unverified_mac != self._mac:
            raise ValueError("its mac is wrong")
        if entry.event_type == _EPOCH_CLOSED:
            self._check_epoch_closed(entry, state.epoch)
            self._is_turning = True

    def _check_boundary(self, entry: Entry) -> None:
        """mac.key was written right after this entry, the last of the epoch before."""
        if entry.unverified_mac != self._mac_state.last_mac:
            raise ValueError("its mac is not the one that mac.key remembers")
        fields = entry.fields
        if entry.event_type != _EPOCH_CLOSED or fields.get("epoch") != self._mac_state.epoch - 1:
            raise ValueError("it does not close the epoch before mac.key's")

    def _check_epoch_closed(self, entry: Entry, epoch: int) -> None:
        expected = {"epoch": epoch, "tree_size": entry.index, "root_hash": self._frontier.root().hex()}
        if {name: entry.fields.get(name) for name in expected} != expected:
            raise ValueError("its epoch, tree size or root hash is wrong")

    def _check_roots(self) -> None:
        # 4.
        for size, root, name in self._roots:
            if size == self._frontier.size and root != self._frontier.root():
                raise _RootError(size, name)
