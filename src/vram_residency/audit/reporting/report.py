"""Building a report: the verdict on the log first, then what its entries show, control by control.

A report says what evidence there is. It never says that a standard is met: that is a judgement about an
organisation, and no log can make it.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable, Iterator
from typing import Final

import msgspec

from vram_residency.audit.reading.query import query
from vram_residency.audit.reading.survey import Progress
from vram_residency.audit.reading.verdict import Verdict
from vram_residency.audit.reading.verification import Note, verify
from vram_residency.audit.reporting.control import Control, Standard, StandardId
from vram_residency.audit.reporting.controls import STANDARDS, controls_of
from vram_residency.audit.reporting.kinds import CHAIN, KINDS
from vram_residency.audit.reporting.statements import LIMITS, MEANINGS, NOTICE, STATUSES, Status
from vram_residency.audit.reporting.tally import EventCount, Tally
from vram_residency.core.clock import SYSTEM_CLOCK, Clock, rfc3339
from vram_residency.core.errors import InvalidInputError, LogDamagedError
from vram_residency.core.version import __version__

FORMAT: Final = "vram-residency/report/v1"
_AVAILABLE, _PARTIAL, _NOT_PROVIDED = STATUSES


class Evidence(msgspec.Struct, frozen=True, kw_only=True):
    """A kind of evidence that bears on a control, and the entries of it; ``count`` may be 0.

    ``due``: it is there in ordinary work; without it the control is partial at best.
    """

    kind: str
    says: str
    due: bool
    count: int
    events: tuple[EventCount, ...] = ()


class Row(msgspec.Struct, frozen=True, kw_only=True):
    """One control as it stands: status, why, the evidence, and what it takes beyond."""

    id: str
    title: str
    status: Status
    reason: str
    evidence: tuple[Evidence, ...]
    beyond: str


class Period(msgspec.Struct, frozen=True, kw_only=True):
    """What was asked for (RFC 3339 or a date, or None), and the entries that fell into it."""

    since: str | None
    until: str | None
    entries: int
    first_timestamp: str | None
    last_timestamp: str | None


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """Evidence by the controls of one standard; ``exit_code`` is that of the verification."""

    format: str = FORMAT
    standard: StandardId
    standard_name: str
    generated_at: str
    generated_by: str
    service_id: str | None
    origin: str | None
    verification: Verdict
    period: Period
    summary: dict[Status, int]
    controls: tuple[Row, ...]
    events: tuple[EventCount, ...]
    notice: str = NOTICE
    statuses: dict[Status, str]
    limits: tuple[str, ...] = LIMITS

    @property
    def exit_code(self) -> int:
        """The exit code of ``vram audit report``."""
        return self.verification.exit_code

    @property
    def about(self) -> Standard:
        """The standard's name and words."""
        return STANDARDS[self.standard]


def make_report(
    directory: str | os.PathLike[str],
    standard: StandardId,
    *,
    since: str | None = None,
    until: str | None = None,
    vkey: str | None = None,
    mac_key: bytes | str | None = None,
    checkpoint: Note | None = None,
    keys: str | os.PathLike[str] | None = None,
    on_progress: Progress | None = None,
    clock: Clock = SYSTEM_CLOCK,
) -> Report:
    """Verify a log, count its entries from ``since`` (inclusive) to ``until``, and set them beside controls.

    The keys are those of ``verify``. Raises as ``verify`` and ``query`` do.
    """
    # 1. What was asked is well-formed: before the work.
    lines = _lines(directory, since, until)
    # 2. Is the log worth reading?
    verdict = verify(
        directory, vkey=vkey, mac_key=mac_key, checkpoint=checkpoint, keys=keys, on_progress=on_progress
    )
    # 3. What stands in it. Beside a live writer there may be more by now than was verified.
    tally = Tally.of(lines if verdict else _readable(lines), end=verdict.tree_size if verdict else None)
    return _assemble(standard, verdict, tally, period=(since, until), now=rfc3339(clock.now_ns()))


def _lines(directory: str | os.PathLike[str], since: str | None, until: str | None) -> Iterator[bytes]:
    try:
        return query(directory, since=since, until=until)
    except InvalidInputError as error:
        if error.field != "directory":
            raise
        return iter(())  # verify says better what is missing


def _readable(lines: Iterator[bytes]) -> Iterator[bytes]:
    """Those that can be read: of a log that does not verify, a file that cannot is no surprise."""
    with contextlib.suppress(OSError, LogDamagedError):
        yield from lines


def _assemble(
    standard: StandardId, verdict: Verdict, tally: Tally, *, period: tuple[str | None, str | None], now: str
) -> Report:
    rows = tuple(_row(control, verdict, tally) for control in controls_of(standard))
    since, until = period
    return Report(
        standard=standard,
        standard_name=STANDARDS[standard].name,
        generated_at=now,
        generated_by=f"vram-residency {__version__}",
        service_id=None if verdict.origin is None else verdict.origin.rpartition("/")[0],
        origin=verdict.origin,
        verification=verdict,
        period=Period(
            since=since,
            until=until,
            entries=tally.entries,
            first_timestamp=tally.first_timestamp,
            last_timestamp=tally.last_timestamp,
        ),
        summary={status: sum(row.status == status for row in rows) for status in STATUSES},
        controls=rows,
        events=tally.counts(),
        statuses=dict(MEANINGS),
    )


def _row(control: Control, verdict: Verdict, tally: Tally) -> Row:
    evidence = tuple(
        _evidence(kind, verdict, tally, due=due)
        for kinds, due in ((control.needs, True), (control.also, False))
        for kind in kinds
    )
    status, reason = _status(control, evidence, is_verified=bool(verdict))
    return Row(
        id=control.id,
        title=control.title,
        status=status,
        reason=reason,
        evidence=evidence,
        beyond=control.beyond,
    )


def _evidence(kind: str, verdict: Verdict, tally: Tally, *, due: bool) -> Evidence:
    about = KINDS[kind]
    if kind == CHAIN:
        return Evidence(kind=kind, says=about.says, due=due, count=verdict.entries if verdict else 0)
    events = tally.counts(about.events)
    return Evidence(
        kind=kind, says=about.says, due=due, count=sum(event.count for event in events), events=events
    )


def _status(control: Control, evidence: Iterable[Evidence], *, is_verified: bool) -> tuple[Status, str]:
    found = [each for each in evidence if each.count]
    missing = [each.says for each in evidence if each.due and not each.count]
    if not control.needs and not control.also:
        return _NOT_PROVIDED, "Nothing that this software records bears on it."
    if not is_verified:
        reason = "The log does not verify: until that is cleared up, its entries prove nothing."
        return (_PARTIAL if found else _NOT_PROVIDED), reason
    if not found:
        return _NOT_PROVIDED, "This log holds no entry in this period that bears on it."
    if missing:
        return _PARTIAL, f"No entry in this period that says: {'; '.join(missing)}."
    if not control.whole:
        return _PARTIAL, "The software sees one side of this control."
    return _AVAILABLE, "Every kind of entry that is due is there."
