"""A report says what evidence there is, by a table that names real events; never that a standard is met."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import msgspec
import pytest
from tests.audit_logs import ManualClock, open_log, sealed
from tests.independent_log import LogMaker, make_log

from vram_residency.audit.events.registry import BUILT_IN
from vram_residency.audit.reading.verdict import Verdict
from vram_residency.audit.reporting.control import STANDARD_IDS
from vram_residency.audit.reporting.controls import CONTROLS, STANDARDS, controls_of
from vram_residency.audit.reporting.kinds import CHAIN, KINDS
from vram_residency.audit.reporting.rendering import FORMS, render
from vram_residency.audit.reporting.report import Report, Row, make_report
from vram_residency.audit.reporting.statements import LIMITS, STATUSES
from vram_residency.audit.reporting.tally import OTHER_TYPES, TYPES_MAX, Tally
from vram_residency.audit.writing.archiving import archive_log
from vram_residency.audit.writing.options import LogOptions
from vram_residency.core.errors import InvalidInputError

AVAILABLE, PARTIAL, NOT_PROVIDED = STATUSES
HOSTILE = "<script>alert(1)</script>|\"'`[x](http://e.example)*\u202e&amp;"
CLAIMS = re.compile(
    r"\b(is|are|fully|being) (compliant|certified|in compliance)\b|\bcomplies\b", re.IGNORECASE
)
PERIODS = re.compile(r"\b(days?|months?|years?)\b", re.IGNORECASE)


def _maker() -> LogMaker:
    maker = LogMaker()
    maker.open()
    for number in range(5):
        maker.seal(number)
    maker.append("seal_verified", shard_id="shard-1", worker_id="w")
    maker.append("auth_failure", reason="bad_password", ip="10.0.0.7", path="/v1")
    maker.append("acme.thing", note=HOSTILE)
    maker.close()
    return maker


@pytest.fixture
def maker() -> LogMaker:
    return _maker()


@pytest.fixture
def log(tmp_path: Path, maker: LogMaker) -> Path:
    return maker.write(tmp_path / "log")


def _rows(report: Report) -> dict[str, Row]:
    return {row.id: row for row in report.controls}


@pytest.mark.parametrize("standard", STANDARD_IDS)
def test_the_table_names_only_kinds_and_events_that_there_are(standard: str) -> None:
    rows = [control for control in CONTROLS if control.standard == standard]
    assert rows
    assert len({row.id for row in rows}) == len(rows)
    for row in rows:
        assert {*row.needs, *row.also} <= set(KINDS), row.id
        assert not set(row.needs) & set(row.also), row.id
        assert row.title
        assert row.beyond.endswith(".")
        assert row.needs or not row.whole, row.id
    assert standard in STANDARDS


def test_every_kind_bears_on_something_and_speaks_of_real_events() -> None:
    used = {kind for row in CONTROLS for kind in (*row.needs, *row.also)}
    assert used == set(KINDS)
    assert {event for kind in KINDS.values() for event in kind.events} <= set(BUILT_IN)
    assert [name for name, kind in KINDS.items() if not kind.events] == [CHAIN]


def test_no_text_of_ours_claims_compliance_or_invents_a_retention_period() -> None:
    texts = [text for row in CONTROLS for text in (row.title, row.beyond)]
    texts += [kind.says for kind in KINDS.values()] + list(LIMITS)
    assert [text for text in texts if CLAIMS.search(text) or PERIODS.search(text)] == []


def test_statuses_follow_from_what_stands_in_the_log(log: Path, maker: LogMaker) -> None:
    report = make_report(log, "iso27001", vkey=maker.vkey, mac_key=maker.k0)
    rows = _rows(report)
    assert report.exit_code == 0
    assert rows["8.15"].status == AVAILABLE
    assert rows["8.5"].status == PARTIAL
    assert rows["8.5"].reason == "The software sees one side of this control."
    assert rows["5.15"].status == NOT_PROVIDED
    assert rows["5.15"].reason == "This log holds no entry in this period that bears on it."
    assert rows["8.13"].status == NOT_PROVIDED
    assert rows["8.13"].reason == "Nothing that this software records bears on it."
    assert sum(report.summary.values()) == len(controls_of("iso27001"))


def test_a_kind_that_is_due_and_missing_makes_a_control_partial(log: Path, maker: LogMaker) -> None:
    row = _rows(make_report(log, "soc2", vkey=maker.vkey, mac_key=maker.k0))["CC6.1"]
    assert row.status == PARTIAL
    assert row.reason == "No entry in this period that says: Access was granted or denied."


def test_counts_and_examples_are_those_of_the_entries(log: Path, maker: LogMaker) -> None:
    report = make_report(log, "soc2", vkey=maker.vkey, mac_key=maker.k0)
    entries = [json.loads(line) for line in maker.lines]
    for event in report.events:
        indexes = [entry["index"] for entry in entries if entry["event_type"] == event.event_type]
        assert event.count == len(indexes)
        assert event.examples == tuple(dict.fromkeys([*indexes[:3], indexes[-1]]))
    assert sum(event.count for event in report.events) == report.period.entries == len(entries)
    assert report.period.first_timestamp == entries[0]["timestamp"]
    assert report.period.last_timestamp == entries[-1]["timestamp"]
    assert (report.service_id, report.origin) == (maker.service_id, maker.origin)


def test_the_period_limits_what_is_counted_and_not_what_is_verified(log: Path, maker: LogMaker) -> None:
    since, until = (json.loads(maker.lines[index])["timestamp"] for index in (2, 4))
    report = make_report(log, "gdpr", since=since, until=until, vkey=maker.vkey, mac_key=maker.k0)
    assert [(event.event_type, event.count) for event in report.events] == [("vram_sealed", 2)]
    assert report.verification.entries == len(maker.lines)
    empty = make_report(log, "gdpr", until="2020-01-01", vkey=maker.vkey, mac_key=maker.k0)
    assert empty.period.entries == 0
    assert b"none" in render(empty, "md")
    with pytest.raises(InvalidInputError, match="RFC 3339"):
        make_report(log, "gdpr", since="yesterday")


@pytest.mark.parametrize("standard", STANDARD_IDS)
def test_without_a_good_verdict_nothing_is_evidence(log: Path, maker: LogMaker, standard: str) -> None:
    unverifiable = make_report(log, standard)  # type: ignore[arg-type]
    assert unverifiable.exit_code == 5
    segment = log / "entries" / f"{0:020}.jsonl"
    segment.write_bytes(segment.read_bytes().replace(b"shard-1", b"shard-2"))
    tampered = make_report(log, standard, vkey=maker.vkey, mac_key=maker.k0)  # type: ignore[arg-type]
    assert tampered.exit_code == 1
    for report in (unverifiable, tampered):
        assert report.summary[AVAILABLE] == 0
        for form in FORMS:
            text = render(report, form).decode()
            assert form == "json" or "The log does not verify" in text.partition("At a glance")[0]


@pytest.mark.parametrize("form", FORMS)
def test_text_from_the_log_stays_text(log: Path, maker: LogMaker, form: str) -> None:
    report = make_report(log, "soc2", vkey=maker.vkey, mac_key=maker.k0)
    events = (
        *report.events,
        type(report.events[0])(HOSTILE, 1, (7,)),
        type(report.events[0])("x" * 9999, 1, (7,)),
    )
    verification = msgspec.structs.replace(report.verification, origin=HOSTILE)
    hostile = msgspec.structs.replace(report, events=events, verification=verification, service_id=HOSTILE)
    text = render(hostile, form).decode()  # type: ignore[arg-type]
    assert "\u202e" not in text
    if form == "json":
        assert json.loads(text)["service_id"] == HOSTILE
        return
    assert "<script" not in text
    assert "x" * 200 not in text
    if form == "md":
        rows = [line for line in text.splitlines() if "alert(1)" in line]
        assert [len(re.findall(r"(?<!\\)\|", row)) for row in rows] == [3, 4]
        assert all(r"\[x\](http:\//e.example" in row for row in rows)


def test_the_page_holds_all_it_needs_and_nothing_that_runs(log: Path) -> None:
    page = render(make_report(log, "ai-act"), "html").decode()
    assert (
        re.search(r"<(script|link|img|iframe|object|embed|form)\b|\bon\w+=|url\(|@import|https?:", page)
        is None
    )
    assert "default-src 'none'" in page
    assert '<html lang="en">' in page
    assert "prefers-color-scheme: dark" in page
    assert "@media print" in page
    for tag in ("section", "table", "tr", "td", "th", "ul", "li", "dl", "div", "p", "h1", "h2", "h3", "main"):
        assert len(re.findall(rf"<{tag}[ >]", page)) == page.count(f"</{tag}>"), tag


@pytest.mark.parametrize("form", FORMS)
def test_the_same_log_gives_the_same_report(log: Path, form: str) -> None:
    one, two = (render(make_report(log, "gdpr", clock=ManualClock()), form) for _ in range(2))  # type: ignore[arg-type]
    assert one == two


def test_every_form_says_what_is_not_proved(log: Path) -> None:
    report = make_report(log, "soc2")
    document = json.loads(render(report, "json"))
    assert document["limits"] == list(LIMITS)
    for limit in LIMITS:
        words = limit.split(".")[0].split(",")[0]
        assert words in render(report, "md").decode().replace("\\", "")
        assert words.replace("'", "&#x27;") in render(report, "html").decode()


def test_lines_that_are_no_entries_and_absurd_numbers_of_types_do_no_harm() -> None:
    head = b'{"index":%d,"timestamp":"t","event_type":"e%d"}'
    junk = [b"", b"[]", b'{"index":"1"}', b'{"index":1,"timestamp":2,"event_type":"x"}', b"\xff", b"[" * 9999]
    lines = [*junk, *(head % (number, number) for number in range(TYPES_MAX + 5))]
    tally = Tally.of(lines, end=None)
    assert tally.entries == TYPES_MAX + 5
    assert len(tally.counts()) == TYPES_MAX + 1
    assert tally.counts([OTHER_TYPES])[0].count == 5
    assert Tally.of(lines, end=3).entries == 3


def test_a_log_beside_a_live_writer_counts_what_was_verified(tmp_path: Path) -> None:
    maker = make_log(3)
    log = maker.write(tmp_path / "log")
    verdict = Verdict(verdict="intact", entries=2, tree_size=2)
    lines = (log / "entries" / f"{0:020}.jsonl").read_bytes().split(b"\n")[:-1]
    assert Tally.of(lines, end=verdict.tree_size).entries == 2


def test_a_pruned_log_is_reported_as_what_it_is(tmp_path: Path) -> None:
    maker = _maker()
    maker.open()
    maker.record_pruning(4)
    maker.close()
    log = maker.write(tmp_path / "log", segments=(0, 4), pruned=(0,))
    report = make_report(log, "gdpr", vkey=maker.vkey)
    assert report.verification.verdict == "pruned"
    assert report.exit_code == 0
    assert report.period.entries == len(maker.lines) - 4
    assert _rows(report)["5(1)(e)"].status == PARTIAL
    for form in ("md", "html"):
        assert "entries before 4, under the policy" in render(report, form).decode()  # type: ignore[arg-type]


def test_archived_segments_are_counted_like_others(tmp_path: Path) -> None:
    """By the product's own writer, rotation and archive."""
    with open_log(tmp_path, clock=ManualClock(), rotate_bytes=2000) as logger:
        for number in range(20):
            logger.emit(sealed(number), durable=True)
    options: dict[str, Any] = {"keys": tmp_path / "keys", "clock": ManualClock()}
    plain = make_report(tmp_path / "log", "soc2", **options)
    assert archive_log(tmp_path / "log", archive_after_s=0, options=LogOptions())
    assert make_report(tmp_path / "log", "soc2", **options) == plain
    assert plain.exit_code == 0
    assert {event.event_type: event.count for event in plain.events}["vram_sealed"] == 20
