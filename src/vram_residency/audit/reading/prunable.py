"""What may be pruned from a log, and why not more (spec: audit-log.md section 7). Read-only.

Evidence is removed only where a policy asks for it and where somebody else holds what shows later that it was
there: a checkpoint that a witness cosigned or that was kept elsewhere covers every entry that goes.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import pairwise
from typing import Final

import msgspec

from vram_residency.audit.events.own import SegmentsPruned
from vram_residency.audit.format import cosignature, note
from vram_residency.audit.format.checkpoint import CheckpointFormatError, SignedCheckpoint, open_signed
from vram_residency.audit.format.cosignature import WitnessKey
from vram_residency.audit.reading import source as reading
from vram_residency.audit.reading.examination import Examination
from vram_residency.audit.reading.pruned import Boundary, PruneRecord
from vram_residency.audit.reading.replay import Replay
from vram_residency.audit.reading.survey import Progress
from vram_residency.audit.reading.trust import TrustedKeys
from vram_residency.audit.reading.verdict import Verdict
from vram_residency.audit.store.directory import Directory, LogConfig
from vram_residency.core.clock import rfc3339
from vram_residency.core.errors import ConfigurationError, InvalidInputError, LogDamagedError

POLICY_BYTES_MAX: Final = 1024
_NS: Final = 1_000_000_000
_UNITS_S: Final = {"s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 7 * 86_400}
_DURATION: Final = re.compile(r"[1-9][0-9]{0,9}[smhdw]\Z")
_AGE_S_MAX: Final = 100 * 366 * 86_400
_TIMESTAMP: Final = re.compile(rb'^\{"index":[0-9]+,"timestamp":"([^"]{27})"', re.MULTILINE)
_GOOD: Final = frozenset({"intact", "pruned", "unsealed"})
_NOTE_ERRORS: Final = (note.NoteFormatError, note.NoteVerificationError, CheckpointFormatError)


class Retention(msgspec.Struct, frozen=True, kw_only=True):
    """How long entries are kept, and the text that asks that they be removed then.

    ``older_than`` is a number and a unit: 365d (s, m, h, d or w). ``text`` cites what asks for it. Raises
    InvalidInputError.
    """

    older_than: str
    text: str

    def __post_init__(self) -> None:
        if _DURATION.match(self.older_than) is None or self.age_ns > _AGE_S_MAX * _NS:
            hint = "Write a number and s, m, h, d or w, such as 365d; at most a hundred years."
            raise InvalidInputError("older_than", "is not a duration", hint=hint)
        if not self.text.strip() or len(self.policy.encode("utf-8", "replace")) > POLICY_BYTES_MAX:
            raise InvalidInputError(
                "policy",
                f"must be a text of at most {POLICY_BYTES_MAX} bytes",
                hint="Cite the rule that asks for the removal: law and article, or your own policy's name.",
            )

    @property
    def age_ns(self) -> int:
        """How old an entry must be, in nanoseconds."""
        return int(self.older_than[:-1]) * _UNITS_S[self.older_than[-1]] * _NS

    @property
    def policy(self) -> str:
        """The text that the log keeps of it."""
        return f"older than {self.older_than}: {self.text.strip()}"


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """The segments that go: entries ``first_index`` to ``next_index`` (exclusive).

    ``event`` is what the log is to record of it; None where a pruning that was cut short is only completed.
    ``kept_back`` counts segments that are old enough and stay, since no such checkpoint covers them.
    """

    first_index: int
    next_index: int
    segments: tuple[reading.Segment, ...]
    boundary: Boundary
    policy: str
    event: SegmentsPruned | None
    kept_back: int


def outside_checkpoint(
    place: Directory, config: LogConfig, *, given: bytes | None, witnesses: Sequence[WitnessKey]
) -> SignedCheckpoint | None:
    """The largest of the checkpoint given and those under ``cosignatures/`` that one of the witnesses signed.

    Raises InvalidInputError where the one given is not of this log.
    """
    found = []
    if given is not None:
        try:
            found.append(open_signed(given, config.verifier_keys(), origin=config.origin))
        except _NOTE_ERRORS as error:
            raise InvalidInputError(
                "checkpoint", f"is not a checkpoint of this log: {error}", hint="Give one that it signed."
            ) from None
    for path in sorted(place.cosignatures.glob("*.note")):
        try:
            data = reading.read_small(path)
            signed = open_signed(data, config.verifier_keys(), origin=config.origin)
            found += [signed] if cosignature.verify(data, witnesses) else []
        except (OSError, *_NOTE_ERRORS):
            continue  # not one that counts
    return max(found, key=lambda signed: signed.size, default=None)


def listed_segments(place: Directory) -> list[reading.Segment]:
    """The segments that are there. Raises LogDamagedError where the disk does not say."""
    try:
        return reading.segments(place.entries)
    except OSError as error:
        raise LogDamagedError(str(place.entries), None, error.strerror or str(error)) from error


def make_plan(
    place: Directory,
    retention: Retention,
    *,
    trusted: TrustedKeys,
    outside: SignedCheckpoint | None,
    now_ns: int,
    on_progress: Progress | None = None,
) -> Plan | None:
    """What the policy asks to remove now and may be removed; None where there is nothing.

    The whole log is verified first. Raises LogDamagedError (it is not intact: it is evidence),
    ConfigurationError (nothing that was kept elsewhere covers what is to go).
    """
    # 1. Only a log that is as it was written: nothing is removed that somebody may have to look at.
    note_bytes = None if outside is None else outside.note_bytes
    examination = Examination(place, trusted, note_bytes, workers=None, on_progress=on_progress)
    verdict, replay = examination.run(), examination.replay
    _require_good(place, verdict)
    if replay is None or not replay.boundaries:
        return None
    # 2. What was recorded before and is still there goes in any case.
    segments = listed_segments(place)
    recorded = _recorded(place, replay, verdict)
    done = replay.start_index if recorded is None else max(recorded.next_index, replay.start_index)
    # 3. Closed segments from the front that are old enough, as far as they are covered.
    old = _old_enough(segments, done, rfc3339(now_ns - retention.age_ns))
    limit = min(0 if outside is None else outside.size, _key_size(trusted))
    covered = [index for index in old if index <= limit]
    next_index = max(covered, default=done)
    going = tuple(segment for segment in segments if segment.first_index < next_index)
    if old and not covered and not going:
        raise _uncovered(old[0], outside)
    if not going:
        return None
    boundary = replay.boundaries[next_index]
    policy = retention.policy if covered or recorded is None else recorded.event.policy
    return Plan(
        first_index=going[0].first_index,
        next_index=next_index,
        segments=going,
        boundary=boundary,
        policy=policy,
        event=_event(done, boundary, policy) if covered else None,
        kept_back=len(old) - len(covered),
    )


def _require_good(place: Directory, verdict: Verdict) -> None:
    if verdict.verdict in _GOOD:
        return
    reason = "" if verdict.first_bad is None else f": {verdict.first_bad.reason}"
    raise LogDamagedError(
        str(place),
        None,
        f"it is {verdict.verdict}{reason}",
        hint="Nothing was removed: keep the directory as evidence and run `vram audit verify` on it.",
    )


def _recorded(place: Directory, replay: Replay, verdict: Verdict) -> PruneRecord | None:
    """The newest record, authenticated."""
    record = replay.newest_record
    is_signed = record is None or record.index < (verdict.checkpoint_size or 0)
    if record is None or is_signed or replay.has_checked_mac(record.index):
        return record
    raise LogDamagedError(
        str(place),
        None,
        f"no checkpoint covers the record of an earlier pruning at entry {record.index}",
        hint="Open and close the log once, which signs one; then prune again.",
    )


def _old_enough(segments: Sequence[reading.Segment], start: int, limit: str) -> list[int]:
    """Where the closed segments end, from ``start`` on, whose newest entry is older than ``limit``."""
    ends = []
    for segment, successor in pairwise(segments):
        if segment.first_index < start:
            continue
        if _newest_timestamp(segment) >= limit:
            break
        ends.append(successor.first_index)
    return ends


def _newest_timestamp(segment: reading.Segment) -> str:
    with reading.open_segment(segment.path) as file:
        found = (max(_TIMESTAMP.findall(block), default=b"") for block, _ in reading.blocks(file))
        return max(found, default=b"").decode("ascii")


def _key_size(trusted: TrustedKeys) -> int:
    """Nothing of the running epoch may go: opening checks its entries against mac.key."""
    return 0 if trusted.mac_state is None else trusted.mac_state.tree_size


def _uncovered(end: int, outside: SignedCheckpoint | None) -> ConfigurationError:
    covers = "there is none" if outside is None else f"it covers {outside.size} entries"
    return ConfigurationError(
        "checkpoint",
        f"entries up to {end - 1} are old enough, but no checkpoint kept elsewhere covers them: {covers}",
        hint="Run `vram audit witness` and give --witness-vkey, or give --checkpoint a copy kept elsewhere.",
    )


def _event(first_index: int, boundary: Boundary, policy: str) -> SegmentsPruned:
    return SegmentsPruned(
        first_index=first_index,
        next_index=boundary.index,
        next_epoch=boundary.epoch,
        last_mac=boundary.mac.hex(),
        root_hash=boundary.root.hex(),
        policy=policy,
    )
