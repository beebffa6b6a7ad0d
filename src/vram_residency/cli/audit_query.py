"""``vram audit query`` and ``vram audit show``: reading entries. Neither verifies."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import click

from vram_residency.cli import access, output
from vram_residency.cli.access import access_option
from vram_residency.cli.filters import filter_options
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
_LAST = ("correlation_id", "actor", "worker_id")
_CELL_CHARACTERS = 160


@click.command()
@click.argument("directory", metavar="DIR", type=click.Path(path_type=Path))
@filter_options
@access_option
@click.option(
    "--keys",
    metavar="DIR",
    type=click.Path(path_type=Path),
    help="Folder of the log's keys, for --record-access [default: DIR.keys].",
)
@json_option
def query(
    directory: Path,
    *,
    events: tuple[str, ...],
    record_access: bool,
    keys: Path | None,
    as_json: bool,
    **filters: Any,
) -> None:
    """Show the entries that pass filters.

    One line each, cut to the width of a terminal: `vram audit show` gives an entry whole. With --json each
    comes out as it stands in the log, byte for byte, one a line. Nothing is verified here. --record-access
    needs the keys, and that no writer is at work.

    \b
    Example:
      vram audit query ./audit --since 2025-10-02 --limit 20
      vram audit query ./audit --event seal_verification_failed --json
    """
    from vram_residency.audit.reading.query import query as query_log

    filters["event"] = events or None
    lines = query_log(directory, **filters)
    if record_access:
        access.record(directory, keys, filters)
    if as_json:
        for line in lines:
            output.raw(line + b"\n")
            if filters["follow"]:
                _flush()
    elif filters["follow"]:
        _print_following(lines)
    else:
        shown = _print_tables(lines)
        output.note(_summary(shown, directory) if shown else "No entry passes." + _advice(events))


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
    from vram_residency.audit.format.tree import leaf_hash
    from vram_residency.audit.reading.query import find, parse

    found = find(directory, index)
    entry = parse(found.line) or {}
    facts = {"leaf_hash": leaf_hash(found.line).hex(), "file": found.file, "offset": found.offset}
    if as_json:
        output.document({"entry": entry, **facts})
        return
    output.line(f"{output.style(f'Entry {index}', 'bold')}: {output.safe(_explain(entry))}")
    output.line()
    for name, value in (entry | facts).items():
        label = output.safe_entry(str(name)).ljust(18)  # of a type that nobody declared, it may be anything
        output.line(f"  {output.style(label, 'dim')} {output.safe_entry(_text(value))}")
    output.line()
    output.line("This shows what the log says. `vram audit verify` checks that it was not changed.")


def _explain(entry: dict[str, object]) -> str:
    """The sentence that describes the event's type."""
    from vram_residency.audit.events.registry import BUILT_IN

    cls = BUILT_IN.get(str(entry.get("event_type")))
    if cls is None or cls.__doc__ is None:
        return "an event of a type that this program does not know."
    return " ".join(cls.__doc__.split("\n\n")[0].replace("``", "").split())


def _print_tables(lines: Iterable[bytes]) -> int:
    rows = map(_row, lines)
    shown = 0
    while block := list(islice(rows, _TABLE_ROWS)):
        output.table(_COLUMNS, block, make_safe=output.safe_entry, is_list=True)
        shown += len(block)
    return shown


def _summary(shown: int, directory: Path) -> str:
    check = f"`vram audit verify {output.safe(str(directory))}`"
    return f"{shown} {'entry' if shown == 1 else 'entries'}, unverified: {check} checks the log."


def _advice(events: Iterable[str]) -> str:
    """What a mistyped name was meant to be; an unknown one may be an event of the user's own."""
    from difflib import get_close_matches

    from vram_residency.audit.events.registry import BUILT_IN, canonical_type

    unknown = [name for name in events if canonical_type(name) not in BUILT_IN]
    matches = [match for name in unknown for match in get_close_matches(name, BUILT_IN, n=1)]
    return f" Did you mean --event {matches[0]}?" if matches else ""


def _print_following(lines: Iterator[bytes]) -> None:
    for line in lines:
        output.line("  ".join(output.safe_entry(cell) for cell in _row(line)))
        _flush()


def _row(line: bytes) -> tuple[str, ...]:
    from vram_residency.audit.reading.query import parse

    entry = parse(line) or {}
    subject = next((name for name in _SUBJECTS if name in entry), None)
    details = {name: value for name, value in entry.items() if name not in _ENVELOPE and name != subject}
    told = sorted(details, key=_LAST.__contains__)  # what happened before who asked
    words = " ".join(f"{name}={_text(details[name])}" for name in told)
    return (
        _text(entry.get("index")),
        _text(entry.get("timestamp")).removesuffix("Z").replace("T", " ")[:19],
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
