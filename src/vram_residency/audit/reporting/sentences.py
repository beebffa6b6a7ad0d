"""What a report says in words, the same in each of its forms."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from vram_residency.audit.reading.verdict import Verdict
from vram_residency.audit.reporting.report import Report
from vram_residency.audit.reporting.tally import EventCount

_TEXT_CHARACTERS_MAX: Final = 128
_TRUST: Final = {
    "given": "by keys that were given",
    "local": "by the keys of the machine that made this report",
    "self-asserted": "by no trusted key",
}


def verdict(found: Verdict) -> str:
    """The verdict on the log in one sentence."""
    word, trust = found.verdict, _TRUST[found.trust]
    if found:
        return f"The log verifies: {word}, {trust}."
    if found.first_bad is None:
        return f"The log does not verify: {word}, {trust}. Its entries prove nothing yet."
    where = "" if found.first_bad.index is None else f" at entry {found.first_bad.index}"
    reason = short(found.first_bad.reason)
    return f"The log does not verify: {word}{where}, {trust}: {reason}. Its entries prove nothing yet."


def facts(report: Report) -> Iterator[tuple[str, str]]:
    """Name and value of what the head of a report shows."""
    found, period = report.verification, report.period
    yield "Service", report.service_id or "unknown"
    yield "Log", report.origin or "unknown"
    yield "Asked for", _span(period.since, period.until)
    yield "Entries in it", _entries(report)
    if found.pruned is not None:
        gone = f"entries before {found.pruned.next_index}, under the policy '{short(found.pruned.policy)}'"
        yield "Pruned", f"{gone}, recorded in entry {found.pruned.record_index}"
    yield "Root hash", found.root_hash or "unknown"
    tree = "the tree of all entries" if found.checked.tree else "not the tree of all entries"
    mac = "the mac of each entry" if found.checked.mac else "not the mac of each entry: that takes K_0"
    yield "Checked", f"{tree}; {mac}"
    yield "Vouched for by no key", f"{found.unvouched_entries} entries"
    owner = "the owner of the machine and its keys"
    yield "Unprotected", f"{found.unprotected_entries} entries that {owner} could still rewrite"
    yield "Made", f"{report.generated_at} by {report.generated_by}"


def examples(event: EventCount) -> str:
    """``vram_sealed: 12 (4, 9, 15, … 88)``."""
    return f"{short(event.event_type)}: {event.count} ({indexes(event)})"


def indexes(event: EventCount) -> str:
    """``4, 9, 15, … 88``: the indexes of some entries, the last among them."""
    *first, last = event.examples
    gap = "… " if event.count > len(event.examples) else ""
    return ", ".join([*map(str, first), f"{gap}{last}"])


def short(text: str) -> str:
    """The beginning of a text that may be of any length."""
    return text if len(text) <= _TEXT_CHARACTERS_MAX else text[: _TEXT_CHARACTERS_MAX - 1] + "…"


def _span(since: str | None, until: str | None) -> str:
    if since is None and until is None:
        return "the whole log"
    return f"{since or 'the beginning'} to {until or 'the end'}"


def _entries(report: Report) -> str:
    period = report.period
    if not period.entries:
        return "none"
    first, last = (short(moment or "") for moment in (period.first_timestamp, period.last_timestamp))
    return f"{period.entries}, from {first} to {last}"
