"""Going through a log's entries as its writer did, and comparing (audit-log.md sections 2, 3, 6). Pure.

Lines go in one after the other; a Fault comes out at the first that is not what it must be. Stretches of
ordinary entries that a scan vouches for may go in at once. Memory is flat: what is kept does not grow with
the log, and leaf hashes are folded in batches.
"""

from __future__ import annotations

import hmac
from collections.abc import Callable, Iterable
from typing import Final

import msgspec

from vram_residency.audit.events import own as own_events
from vram_residency.audit.events.registry import BUILT_IN, LOG_OWN_TYPES
from vram_residency.audit.format import chain, tree
from vram_residency.audit.format.entry import MAC_SUFFIX_BYTES, Entry, EntryFormatError, parse_entry
from vram_residency.audit.reading.key_chain import KeyChain
from vram_residency.audit.reading.pruned import Boundary, PruneRecord, Start
from vram_residency.audit.reading.scan import Stretch
from vram_residency.audit.reading.segment_check import SegmentCheck
from vram_residency.audit.reading.verdict import Fault
from vram_residency.audit.store.directory import LogConfig
from vram_residency.audit.store.keyring import MacState
from vram_residency.core.clock import parse_rfc3339, rfc3339

_BATCH_LEAVES: Final = 4096
_NS_PER_US: Final = 1000
_NS_PER_S: Final = 1_000_000_000
#: What a writer that recovers may append before it says so.
_BEFORE_OPENING: Final = frozenset({"events_dropped", "clock_stepped_back"})
_END_OF_TIME: Final = "9999-12-31T23:59:59.999999Z"


class Replay:
    """The state after the entries fed so far."""

    def __init__(
        self,
        config: LogConfig,
        *,
        genesis_key: bytes | None = None,
        mac_state: MacState | None = None,
        sizes: Iterable[int] = (),
        sha256_of: Callable[[str], str],
        start: Start | None = None,
    ) -> None:
        """``mac_state`` serves where there is no genesis key; ``sizes`` are those whose roots are wanted.

        ``sha256_of`` gives the SHA-256 (hex) of an earlier segment by its file's name; ``start`` is what a
        log without its first entries begins with.
        """
        self.start = start
        self.index = self.start_index = 0 if start is None else start.boundary.index
        self.recovered_entries = 0
        #: Root hashes by tree size, for the sizes asked for.
        self.roots: dict[int, bytes] = {} if start is None else dict(start.roots)
        #: From which entry on macs were checked.
        self.mac_checked_from: int | None = None if genesis_key is None else self.start_index
        #: Where each segment that was read begins.
        self.boundaries: dict[int, Boundary] = {}
        #: The newest segments_pruned, and the one that tells of ``start``.
        self.newest_record: PruneRecord | None = None
        self.start_record: PruneRecord | None = None
        #: The first entry that came too late after the last epoch_closed.
        self.unsealed: Fault | None = None
        self.segment = SegmentCheck(sha256_of, self.start_index)

        self._config = config
        self._sizes = frozenset(sizes)
        self._key = genesis_key
        self._mac_state = mac_state if genesis_key is None else None
        self._previous_mac = chain.initial_mac(config.origin)
        self._epoch = 0
        #: Later keys must follow by key_rotated; macs and tree show that nobody changed the first entry.
        self.log_keys = KeyChain(config, None if start is None else start.key_id)
        self.key_id = self.log_keys.key_id
        self._frontier = tree.Frontier()
        self._leaves: list[bytes] = []
        self._seal_deadline = _END_OF_TIME
        self._late: Fault | None = None
        self._last_types = ("", "")
        self._last_timestamp = ""
        if start is not None:
            self._begin_at(start)

    @property
    def checks_every_mac(self) -> bool:
        """Whether the macs of all entries that are there are checked."""
        return self.mac_checked_from == self.start_index

    def has_checked_mac(self, index: int) -> bool:
        """Whether the mac of this entry, which was read, is one of those."""
        return self.mac_checked_from is not None and index >= self.mac_checked_from

    def _begin_at(self, start: Start) -> None:
        boundary = start.boundary
        self._epoch, self._previous_mac, self._frontier = boundary.epoch, boundary.mac, start.frontier
        if self._key is not None:
            self._key = chain.epoch_key(self._key, boundary.epoch)

    def root(self) -> bytes:
        """The root hash of all entries so far."""
        self._frontier = self._frontier.extend(self._leaves)
        self._leaves.clear()
        return self._frontier.root()

    def feed(self, line: bytes, *, file: str | None = None, offset: int | None = None) -> None:
        """Check the next line (without newline), which lies there. Raises Fault, placed."""
        try:
            self._feed(line)
        except Fault as fault:
            raise fault.at(self.index, file, offset) from None
        if self._late is not None and self._late.file is None:
            self._late.at(self.index, file, offset)
        self.index += 1

    def _feed(self, line: bytes) -> None:
        self._note_root()
        # 1. The form of the line (section 2).
        entry = self._parse(line)
        # 2. Its mac: that comes before anything it says is believed.
        self._check_mac(entry, line)
        # 3. Its place and its log.
        self._check_place(entry)
        self._check_order(entry)
        # 4. What the log says of itself is recomputed.
        self._check_seal_time(entry)
        if entry.event_type in LOG_OWN_TYPES:
            self._check_own(entry)
        self._last_types = (self._last_types[1], entry.event_type)
        self._last_timestamp = entry.timestamp
        # 5. The entry becomes a leaf.
        self._previous_mac = entry.unverified_mac
        self._leaves.append(tree.leaf_hash(line))
        if len(self._leaves) >= _BATCH_LEAVES:
            self.root()
        self.segment.add()

    def absorb(self, stretch: Stretch) -> bool:
        """Take ordinary entries that were scanned elsewhere; False: nothing was taken, feed them.

        Taken only where the same lines, fed one by one, would raise no fault and lead to the same state.
        """
        self._note_root()
        # 1. The scan must have begun with what the entries so far led to.
        epoch = None if self._key is None else self._epoch
        assumed = (stretch.first_index, stretch.previous_mac, stretch.epoch, stretch.key_id)
        if assumed != (self.index, self._previous_mac, epoch, self.key_id):
            return False
        # 2. No entry on the way at which this replay has something to do.
        end = self.index + stretch.count
        key_from = 0 if self._mac_state is None else self._mac_state.tree_size
        stops = (key_from, *self._sizes)
        if self.index in {self.start_index, key_from} or any(self.index < stop < end for stop in stops):
            return False
        # 3. None may come too late; once one did, later ones change nothing.
        is_late = self._late is not None or stretch.last_timestamp > self._seal_deadline
        if is_late and self.unsealed is None:
            return False
        # 4. No time may step back unseen.
        if stretch.first_timestamp < self._last_timestamp:
            return False
        # 5. The entries become leaves.
        self.root()
        self._frontier = self._frontier.extend_subtrees(stretch.subtrees)
        self.index = end
        self._previous_mac = stretch.last_mac
        self._last_types = ("", "")
        self._last_timestamp = stretch.last_timestamp
        self.segment.add(stretch.count)
        return True

    def keys(self) -> tuple[bytes | None, int, int]:
        """A key, its epoch, and the index of the entry from which on macs are checked."""
        state = self._mac_state
        if self._key is None and state is not None:
            return state.key, state.epoch, state.tree_size
        return self._key, self._epoch, self.start_index if state is None else state.tree_size

    def finish(self) -> None:
        """To be called after the last line."""
        self._note_root()
        self.unsealed = self.unsealed or self._late

    def begin_segment(self, name: str) -> None:
        """The next line is the first of this file."""
        self.segment.begin(name)
        self.boundaries[self.index] = Boundary(self.index, self._epoch, self._previous_mac, self.root())

    def _note_root(self) -> None:
        if self.index in self._sizes and self.index not in self.roots:
            self.roots[self.index] = self.root()

    def _parse(self, line: bytes) -> Entry:
        try:
            return parse_entry(line)
        except EntryFormatError as error:
            raise Fault("tampered", str(error)) from None

    def _check_mac(self, entry: Entry, line: bytes) -> None:
        state = self._mac_state
        if state is not None and self.index == state.tree_size:
            if self._previous_mac != state.last_mac or self._epoch != state.epoch:
                raise Fault("tampered", "the entries before this one do not lead to the machine's mac.key")
            self._key, self.mac_checked_from = state.key, self.index
        if self._key is None:
            return
        expected = chain.next_mac(self._key, self._previous_mac, line[:-MAC_SUFFIX_BYTES])
        if not hmac.compare_digest(expected, entry.unverified_mac):
            raise Fault("tampered", "the mac is wrong: the entry or the one before it was changed")

    def _check_place(self, entry: Entry) -> None:
        if entry.index != self.index:
            raise Fault("tampered", f"index {entry.index} stands where {self.index} must")
        if entry.service_id != self._config.service_id:
            raise Fault("tampered", "the entry belongs to another service")
        if entry.audit_id != f"{self.key_id}-{self.index}":
            raise Fault("tampered", "audit_id does not begin with the log key's id")

    def _check_order(self, entry: Entry) -> None:
        """Sections 2 and 6: order is by index, and a clock that steps back is itself an entry."""
        if entry.timestamp < self._last_timestamp and entry.event_type != "clock_stepped_back":
            raise Fault("tampered", "the timestamp steps back without a clock_stepped_back before it")

    def _check_seal_time(self, entry: Entry) -> None:
        """Section 6, unsealed: nothing may come later than two intervals after the last epoch_closed."""
        if self._is_fresh_start(entry):
            # What a recovery writes before its log_opened {clean: false} is excused by that.
            self._late = None
            self._seal_deadline = self._deadline(entry.timestamp)
        elif self._late is not None and entry.event_type not in _BEFORE_OPENING:
            self.unsealed = self.unsealed or self._late
        if entry.timestamp > self._seal_deadline and self._late is None:
            self._late = Fault("unsealed", f"no epoch was closed by {self._seal_deadline}")
            if entry.event_type not in _BEFORE_OPENING:
                self.unsealed = self.unsealed or self._late
        if entry.event_type == "epoch_closed":
            self._seal_deadline = self._deadline(entry.timestamp)

    def _is_fresh_start(self, entry: Entry) -> bool:
        """Whether time without a writer is accounted for: a new log, a crash, or a close in due form.

        What came before the first entry of a pruned log nobody can tell.
        """
        if self.index == self.start_index or entry.event_type != "log_opened":
            return self.index == self.start_index
        was_closed = self._last_types == ("log_closed", "epoch_closed")
        return was_closed or entry.fields.get("clean") is False

    def _deadline(self, timestamp: str) -> str:
        try:
            start_ns = parse_rfc3339(timestamp)
        except ValueError:
            raise Fault("tampered", "the timestamp is no time that exists") from None
        try:
            return rfc3339(start_ns + 2 * self._config.epoch_interval_s * _NS_PER_S)
        except OverflowError:
            return _END_OF_TIME

    def _check_own(self, entry: Entry) -> None:
        try:
            event = msgspec.convert(entry.fields, BUILT_IN[entry.event_type], strict=True)
        except msgspec.ValidationError as error:
            raise Fault("tampered", f"{entry.event_type} is malformed: {error}") from None
        match event:
            case own_events.EpochClosed():
                self._check_epoch_closed(event)
            case own_events.LogOpened():
                self._check_log_opened(event)
            case own_events.SegmentRotated():
                if self.index != self.start_index and self._last_types[1] != "epoch_closed":
                    raise Fault("tampered", "segment_rotated does not follow the end of an epoch")
                self.segment.check(event)
            case own_events.KeyRotated():
                self._check_key_rotated(event)
            case own_events.ClockSteppedBack() if self._last_timestamp or not self.start_index:
                self._check_clock(event, entry.timestamp)
            case own_events.SegmentsPruned():
                self._check_pruned(PruneRecord(self.index, entry.timestamp, event))
            case _:
                pass  # the others hold no number that could be recomputed from here

    def _check_epoch_closed(self, event: own_events.EpochClosed) -> None:
        found = (event.epoch, event.tree_size, event.root_hash)
        if found[:2] != (self._epoch, self.index):
            raise Fault(
                "tampered", f"epoch_closed names epoch and size {found[:2]}, not {(self._epoch, self.index)}"
            )
        if event.root_hash != self.root().hex():
            raise RootFault("the root hash in epoch_closed is not that of the entries before it")
        self._epoch += 1
        if self._key is not None:
            self._key = chain.next_epoch_key(self._key)

    def _check_log_opened(self, event: own_events.LogOpened) -> None:
        first = event.recovered_first_index
        if event.recovered_events and (first is None or first + event.recovered_events > self.index):
            raise Fault("tampered", "log_opened counts more recovered entries than there are")
        self.recovered_entries += event.recovered_events
        self.log_keys.note_opening(event.log_json_sha256)

    def _check_clock(self, event: own_events.ClockSteppedBack, timestamp: str) -> None:
        try:
            step_ns = parse_rfc3339(self._last_timestamp or timestamp) - parse_rfc3339(timestamp)
        except ValueError:
            raise Fault("tampered", "the timestamp is no time that exists") from None
        # The writer may have measured in nanoseconds and rounded.
        if abs(step_ns // _NS_PER_US - event.by_us) > 1:
            raise Fault("tampered", "clock_stepped_back does not agree with the timestamps")

    def _check_pruned(self, record: PruneRecord) -> None:
        """Section 7: what it says of the log at next_index is recomputed, and records follow each other."""
        event, previous = record.event, self.newest_record
        follows = previous.next_index if previous else 0 if self.start is None else event.first_index
        if not follows == event.first_index < event.next_index <= self.index:
            raise Fault("tampered", "segments_pruned does not name the entries that could be removed then")
        try:
            stated = Boundary.of(event)
        except ValueError as error:
            raise Fault("tampered", f"segments_pruned is malformed: {error}") from None
        known = self.boundaries.get(event.next_index)
        is_gone = event.next_index < self.start_index
        if known != stated and not (is_gone and self.roots.get(event.next_index) == stated.root):
            raise Fault("tampered", "segments_pruned does not agree with the entries that it names")
        self.newest_record = record
        if self.start is not None and event.next_index == self.start_index:
            self.start_record = record

    def _check_key_rotated(self, event: own_events.KeyRotated) -> None:
        try:
            self.log_keys.follow(self.index, event)
        except ValueError as error:
            raise Fault("tampered", f"key_rotated is not signed by the log's key: {error}") from None
        self.key_id = self.log_keys.key_id


class RootFault(Fault):
    """A root hash is wrong: the fault lies in this entry or in any before it."""

    def __init__(self, reason: str) -> None:
        super().__init__("tampered", reason)
