"""Reading a log's entries by filters (spec: cli.md, `vram audit query`). Entries come out unchanged.

Nothing is verified here: that is ``verify``. Types that nobody knows are read like any other; a line that
is not an entry is passed over, since it can match no filter.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice

import msgspec

from vram_residency.audit.events.registry import canonical_type
from vram_residency.audit.format.entry import ENTRY_BYTES_MAX, INTEGER_MAX
from vram_residency.audit.reading import source as reading
from vram_residency.audit.reading.prefilter import Prefilter
from vram_residency.audit.reading.pruned import find_pruning
from vram_residency.audit.store.directory import Directory
from vram_residency.core.clock import parse_rfc3339, rfc3339
from vram_residency.core.errors import InvalidInputError

FOLLOW_INTERVAL_S = 0.25


class Filters(msgspec.Struct, frozen=True, kw_only=True):
    """What an entry must have; None asks for nothing. Times are nanoseconds since the epoch."""

    events: frozenset[str] | None = None
    shard: str | None = None
    actor: str | None = None
    since_ns: int | None = None
    until_ns: int | None = None
    severity: str | None = None

    def match(self, entry: dict[str, object]) -> bool:
        """Whether a parsed entry passes all filters."""
        return (
            (self.events is None or _names_event(entry, self.events))
            and (self.shard is None or _names_shard(entry, self.shard))
            and (self.actor is None or _names_actor(entry, self.actor))
            and (self.severity is None or entry.get("severity") == self.severity)
            and self._is_in_time(entry)
        )

    def _is_in_time(self, entry: dict[str, object]) -> bool:
        if self.since_ns is None and self.until_ns is None:
            return True
        try:
            moment_ns = parse_rfc3339(str(entry.get("timestamp")))
        except ValueError:
            return False
        return (self.since_ns is None or moment_ns >= self.since_ns) and (
            self.until_ns is None or moment_ns < self.until_ns
        )

    def prefilter(self) -> Prefilter:
        """What finds all lines that match, and few others."""
        single = [(value,) for value in (self.shard, self.actor, self.severity) if value is not None]
        return Prefilter(
            single if self.events is None else [*single, self.events],
            since=None if self.since_ns is None else rfc3339(self.since_ns),
            until=None if self.until_ns is None else rfc3339(self.until_ns),
        )


def query(
    directory: str | os.PathLike[str],
    *,
    event: str | Iterable[str] | None = None,
    shard: str | None = None,
    actor: str | None = None,
    since: str | None = None,
    until: str | None = None,
    severity: str | None = None,
    limit: int | None = None,
    follow: bool = False,
) -> Iterator[bytes]:
    """The lines (without newline) of matching entries, in order of index.

    ``event`` is one name or several, snake_case or dotted; ``since`` (inclusive) and ``until`` (exclusive)
    are RFC 3339 times, or dates, which begin at midnight UTC; ``limit`` ends after so many; ``follow``
    goes on waiting for new entries. Raises InvalidInputError.
    """
    place = _open_place(directory)
    if limit is not None and limit < 0:
        raise InvalidInputError("limit", "must not be negative")
    filters = Filters(
        events=_event_types(event),
        shard=shard,
        actor=actor,
        since_ns=_moment("since", since),
        until_ns=_moment("until", until),
        severity=None if severity is None else severity.upper(),
    )
    return _select(_blocks(place, follow=follow), filters, limit)


def newest_segments(
    directory: str | os.PathLike[str], *, event: Iterable[str]
) -> Iterator[Iterator[dict[str, object]]]:
    """Backwards through a log: for each segment, from the newest on, its entries of these types in order.

    Unverified. Raises InvalidInputError.
    """
    place = _open_place(directory)
    filters = Filters(events=_event_types(event))
    for segment in reversed(reading.segments(place.entries)):
        blocks = (block for block, _ in _whole_lines(segment, 0))
        lines = _select(blocks, filters, None)
        yield (entry for line in lines if (entry := parse(line)) is not None)


class Found(msgspec.Struct, frozen=True):
    """An entry's line (without newline) and where it lies: file relative to the log, byte of its start."""

    line: bytes
    file: str
    offset: int


def find(directory: str | os.PathLike[str], index: int) -> Found:
    """The line that stands at ``index``. Raises InvalidInputError where there is none."""
    place = _open_place(directory)
    earlier = [segment for segment in reading.segments(place.entries) if segment.first_index <= index]
    found = _line_of(earlier[-1], index) if earlier and index <= INTEGER_MAX else None
    if found is None:
        raise _not_found(place, index)
    return found


def _not_found(place: Directory, index: int) -> InvalidInputError:
    record = find_pruning(place, index)
    if record is None:
        hint = "Entries are numbered from 0; `vram audit query` lists them."
        return InvalidInputError("index", f"the log has no entry {index}", hint=hint)
    policy = record.event.policy
    return InvalidInputError(
        "index",
        f"entry {index} was pruned, as entry {record.index} of {record.timestamp} says, for: {policy}",
        hint="Its leaf hash is kept: `vram audit prove inclusion` still proves it to who has the line.",
    )


def _line_of(segment: reading.Segment, index: int) -> Found | None:
    with reading.open_segment(segment.path) as file:
        line = next(islice(reading.lines(file), index - segment.first_index, None), None)
    return Found(line.data, segment.name, line.offset) if line is not None and line.is_whole else None


def _open_place(directory: str | os.PathLike[str]) -> Directory:
    place = Directory(directory)
    if not place.is_log:
        raise InvalidInputError(
            "directory",
            f"{place} is not an audit log",
            hint="Name the directory that holds log.json; `vram audit init` makes one.",
        )
    return place


def parse(line: bytes) -> dict[str, object] | None:
    """An entry as a mapping, or None where the line is too long or not a JSON object. Unverified."""
    if len(line) > ENTRY_BYTES_MAX:
        return None
    try:
        entry = msgspec.json.decode(line)
    except (ValueError, RecursionError):
        return None
    return entry if isinstance(entry, dict) else None


def _select(blocks: Iterator[bytes], filters: Filters, limit: int | None) -> Iterator[bytes]:
    prefilter = filters.prefilter()
    candidates = (line for block in blocks for line in prefilter.candidates(block))
    matching = (line for line in candidates if (entry := parse(line)) is not None and filters.match(entry))
    return islice(matching, limit)


def _blocks(place: Directory, *, follow: bool) -> Iterator[bytes]:
    done: reading.Segment | None = None
    offset = 0
    while True:
        for segment in reading.segments(place.entries):
            if done is not None and segment.first_index < done.first_index:
                continue
            start = offset if done is not None and segment.first_index == done.first_index else 0
            done, offset = segment, start
            for block, end in _whole_lines(segment, start):
                offset = end
                yield block
        if not follow:
            return
        time.sleep(FOLLOW_INTERVAL_S)


def _whole_lines(segment: reading.Segment, start: int) -> Iterator[tuple[bytes, int]]:
    try:
        with reading.open_segment(segment.path) as file:
            file.seek(start)
            yield from reading.blocks(file)
    except FileNotFoundError:
        return  # pruned since it was listed


def _event_types(event: str | Iterable[str] | None) -> frozenset[str] | None:
    if event is None:
        return None
    names = [event] if isinstance(event, str) else list(event)
    return frozenset(canonical_type(name) for name in names) or None


def _moment(name: str, text: str | None) -> int | None:
    if text is None:
        return None
    try:
        return parse_rfc3339(text if "T" in text or " " in text else f"{text}T00:00:00Z")
    except (ValueError, OverflowError):
        raise InvalidInputError(
            name, "is not an RFC 3339 time", hint="Write 2025-10-02T10:00:00Z, or a date: 2025-10-02."
        ) from None


def _names_event(entry: dict[str, object], events: frozenset[str]) -> bool:
    found = entry.get("event_type")
    return isinstance(found, str) and found in events


def _names_shard(entry: dict[str, object], shard: str) -> bool:
    several = entry.get("shard_ids")
    return entry.get("shard_id") == shard or (isinstance(several, list) and shard in several)


def _names_actor(entry: dict[str, object], actor: str) -> bool:
    found = entry.get("actor")
    names: Sequence[object] = [entry.get("worker_id"), entry.get("customer_id"), entry.get("accessor")]
    return (isinstance(found, dict) and found.get("user_id") == actor) or actor in names
