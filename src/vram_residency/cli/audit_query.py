"""``vram audit query`` and ``vram audit show``: reading entries. Neither verifies."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path

import click

from vram_residency.cli import output
from vram_residency.cli.options import json_option

#: Rows of one table: a longer answer comes in several, so that memory stays flat.
_TABLE_ROWS = 500
_COLUMNS = ("index", "time (UTC)", "event", "what", "details")
_ENVELOPE = ("index", "timestamp", "event_type", "service_id", "audit_id", "mac")
_SUBJECTS = (
    "shard_id",
    "shard_ids",
    "pool_id",
    "node_id",
    "task_id",
    "customer_id",
    "resource_id",
    "model_ref",
)
_CELL_CHARACTERS = 160


@click.command()
@click.argument("directory", metavar="DIR", type=click.Path(path_type=Path))
@click.option(
    "--event", "events", multiple=True, metavar="NAME", help="vram_sealed or vram.sealed; may be repeated."
)
@click.option("--shard", metavar="ID", help="Entries about this shard.")
@click.option("--actor", metavar="ID", help="Entries by this user or worker.")
@click.option("--since", metavar="TIME", help="From this time on: 2025-10-02 or 2025-10-02T10:00:00Z.")
@click.option("--until", metavar="TIME", help="Before this time.")
@click.option("--severity", metavar="WORD", help="CRITICAL, HIGH, MEDIUM or LOW.")
@click.option("--limit", type=click.IntRange(min=0), metavar="N", help="At most so many.")
@click.option("--follow", is_flag=True, help="Wait for new entries.")
@json_option
def query(
    directory: Path,
    *,
    events: tuple[str, ...],
    shard: str | None,
    actor: str | None,
    since: str | None,
    until: str | None,
    severity: str | None,
    limit: int | None,
    follow: bool,
    as_json: bool,
) -> None:
    """Show the entries that pass filters.

    With --json each entry comes out as it stands in the log, byte for byte, one a line.

    \b
    Example:
      vram audit query ./audit --event seal.verification_failed --severity CRITICAL --json
    """
    from vram_residency.audit.query import query as query_log

    lines = query_log(
        directory,
        event=events or None,
        shard=shard,
        actor=actor,
        since=since,
        until=until,
        severity=severity,
        limit=limit,
        follow=follow,
    )
    if as_json:
        for line in lines:
            output.raw(line + b"\n")
            if follow:
                _flush()
    elif follow:
        _print_following(lines)
    else:
        _print_tables(lines)


@click.command()
@click.argument("directory", metavar="DIR", type=click.Path(path_type=Path))
@click.argument("index", metavar="INDEX", type=click.IntRange(min=0))
@json_option
def show(directory: Path, *, index: int, as_json: bool) -> None:
    """Explain one entry.

    \b
    Example:
      vram audit show ./audit 41
    """
    from vram_residency.audit.query import find, parse
    from vram_residency.audit.tree import leaf_hash

    found = find(directory, index)
    entry = parse(found.line) or {}
    facts = {"leaf_hash": leaf_hash(found.line).hex(), "file": found.file, "offset": found.offset}
    if as_json:
        output.document({"entry": entry, **facts})
        return
    output.line(f"{output.style(f'Entry {index}', 'bold')}: {output.safe(_explain(entry))}")
    output.line()
    for name, value in (entry | facts).items():
        output.line(f"  {output.style(str(name).ljust(18), 'dim')} {output.safe_entry(_text(value))}")
    output.line()
    output.line("This shows what the log says. `vram audit verify` checks that it was not changed.")


def _explain(entry: dict[str, object]) -> str:
    """The sentence that describes the event's type."""
    from vram_residency.audit.registry import BUILT_IN

    cls = BUILT_IN.get(str(entry.get("event_type")))
    if cls is None or cls.__doc__ is None:
        return "an event of a type that this program does not know."
    return " ".join(cls.__doc__.split("\n\n")[0].replace("``", "").split())


def _print_tables(lines: Iterable[bytes]) -> None:
    rows = map(_row, lines)
    shown = 0
    while block := list(islice(rows, _TABLE_ROWS)):
        output.table(_COLUMNS, block, make_safe=output.safe_entry)
        shown += len(block)
    output.note(f"{shown} {'entry' if shown == 1 else 'entries'}")


def _print_following(lines: Iterator[bytes]) -> None:
    for line in lines:
        output.line("  ".join(output.safe_entry(cell) for cell in _row(line)))
        _flush()


def _row(line: bytes) -> tuple[str, ...]:
    from vram_residency.audit.query import parse

    entry = parse(line) or {}
    subject = next((name for name in _SUBJECTS if name in entry), None)
    details = {name: value for name, value in entry.items() if name not in _ENVELOPE and name != subject}
    words = " ".join(f"{name}={_text(value)}" for name, value in details.items())
    return (
        _text(entry.get("index")),
        _text(entry.get("timestamp")).removesuffix("Z").replace("T", " ")[:23],
        _text(entry.get("event_type")),
        "" if subject is None else _text(entry[subject]),
        words if len(words) <= _CELL_CHARACTERS else words[: _CELL_CHARACTERS - 1] + "…",
    )


def _text(value: object) -> str:
    import json

    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _flush() -> None:
    import sys

    sys.stdout.flush()
