"""A report as one HTML page that holds all it needs: no script, nothing fetched, made to be printed."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from html import escape
from typing import Final

from vram_residency.audit.reading.verdict import Verdict
from vram_residency.audit.reporting import sentences
from vram_residency.audit.reporting.page_style import STYLE
from vram_residency.audit.reporting.report import Evidence, Report, Row
from vram_residency.audit.reporting.statements import Status
from vram_residency.core.text import visible

_LOOKS: Final[dict[Status, str]] = {
    "evidence available": "yes",
    "partial": "some",
    "not provided by this software": "none",
}
# Not even a mistake of ours could make the page run or fetch anything.
_POLICY: Final = "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'"


def render(report: Report) -> str:
    """The whole page. Every text is escaped here, whether it comes from the log or from us."""
    title = _text(f"Evidence by {report.standard_name}")
    parts = [*_head(report), *_controls(report), *_events(report), *_limits(report)]
    body = "\n".join(parts)
    return (
        f'<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">\n'
        f'<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f'<meta name="color-scheme" content="light dark">\n'
        f"<title>{title}</title>\n<style>\n{STYLE}</style>\n</head>\n"
        f"<body>\n<main>\n{body}\n</main>\n</body>\n</html>\n"
    )


def _head(report: Report) -> Iterator[str]:
    yield '<header><p class="over">Evidence report</p>'
    yield f"<h1>{_text(report.standard_name)}</h1></header>"
    found = report.verification
    yield f'<p class="verdict {_verdict_look(found)}">{_text(sentences.verdict(found))}</p>'
    yield f'<p class="notice">{_text(report.notice)}</p>'
    yield '<ul class="tiles" aria-label="Summary">'
    for status, count in report.summary.items():
        yield f'<li class="{_LOOKS[status]}"><strong>{count}</strong> {_text(status)}'
        yield f"<small>{_text(report.statuses[status])}</small></li>"
    yield "</ul>"
    yield "<h2>The log and the period</h2>"
    yield "<dl>"
    for name, value in sentences.facts(report):
        yield f"<div><dt>{_text(name)}</dt><dd>{_text(value)}</dd></div>"
    yield "</dl>"


def _verdict_look(found: Verdict) -> str:
    if found:
        return "yes"
    return "some" if found.verdict == "unverifiable" else "bad"


def _controls(report: Report) -> Iterator[str]:
    yield "<h2>At a glance</h2>"
    yield '<table class="glance"><tbody>'
    for row in report.controls:
        yield f'<tr class="{_LOOKS[row.status]}"><th scope="row">{_text(row.id)}</th>'
        yield f'<td>{_text(row.title)}</td><td class="state"><b>{_text(row.status)}</b></td></tr>'
    yield "</tbody></table>"
    yield f"<h2>{_text(report.about.plural)}</h2>"
    for row in report.controls:
        yield f'<section class="control {_LOOKS[row.status]}">'
        yield f'<h3><span class="number">{_text(row.id)}</span> {_text(row.title)}</h3>'
        yield f'<p class="status"><b>{_text(row.status)}</b> {_text(row.reason)}</p>'
        yield from _evidence(row)
        yield f'<p class="beyond"><b>Beyond this log:</b> {_text(row.beyond)}</p>'
        yield "</section>"


def _evidence(row: Row) -> Iterator[str]:
    if row.evidence:
        yield from _table(("Evidence", "Entries", "Such as entries"), map(_evidence_cells, row.evidence))


def _evidence_cells(evidence: Evidence) -> tuple[str, str, str]:
    says = _text(evidence.says) + ("" if evidence.due else ' <span class="soft">(where it happens)</span>')
    examples = "<br>".join(_text(sentences.examples(event)) for event in evidence.events)
    return says, str(evidence.count), examples


def _events(report: Report) -> Iterator[str]:
    yield "<h2>All entries of the period, by type</h2>"
    rows = (
        (
            f"<code>{_text(sentences.short(event.event_type))}</code>",
            str(event.count),
            _text(sentences.indexes(event)),
        )
        for event in report.events
    )
    yield from _table(("Event", "Entries", "Such as entries"), rows)


def _limits(report: Report) -> Iterator[str]:
    yield "<h2>What this does not prove</h2>"
    yield "<ul>"
    yield from (f"<li>{_text(limit)}</li>" for limit in report.limits)
    yield "</ul>"


def _table(columns: Iterable[str], rows: Iterable[tuple[str, str, str]]) -> Iterator[str]:
    heads = "".join(f'<th scope="col">{column}</th>' for column in columns)
    yield f"<table><thead><tr>{heads}</tr></thead><tbody>"
    for name, count, examples in rows:
        yield f'<tr><th scope="row">{name}</th><td class="count">{count}</td><td>{examples}</td></tr>'
    yield "</tbody></table>"


def _text(text: str) -> str:
    return escape(visible(text))
