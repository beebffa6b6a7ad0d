"""``vram audit emit``: events of services in any language become entries."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import click

from vram_residency.cli import output
from vram_residency.cli.options import json_option

if TYPE_CHECKING:
    from vram_residency.audit.events.base import Event
    from vram_residency.audit.events.line import EventLine
    from vram_residency.audit.format.receipt import Receipt
    from vram_residency.audit.log import AuditLogger
    from vram_residency.core.errors import InvalidEventError

_READ_BYTES = 1 << 16


@click.command()
@click.argument("directory", metavar="DIR", type=click.Path(path_type=Path))
@click.option(
    "--keys",
    metavar="DIR",
    type=click.Path(path_type=Path),
    help="Folder of the log's keys [default: DIR.keys].",
)
@click.option(
    "--receipts", is_flag=True, help="Print {line, index, leaf_hash, audit_id} once an event is durable."
)
@json_option
def emit(directory: Path, *, keys: Path | None, receipts: bool, as_json: bool) -> None:
    """Append events read as lines of JSON from stdin.

    A line is {"event_type": …, fields…}. Stops at the first bad line with exit code 2, after writing those
    before it. What was read is durable before more is read, and before a receipt is printed.

    \b
    Example:
      echo '{"event_type":"seal_verified","shard_id":"s-1","worker_id":"w-0"}' |
        vram audit emit ./audit --receipts
    """
    from vram_residency.audit.log import AuditLogger
    from vram_residency.audit.store.directory import Directory

    config, _ = Directory(directory).read_config()
    count = 0
    if sys.stdin.isatty():
        output.note("Reading events from the terminal, one JSON object a line; Ctrl-D ends.")
    with AuditLogger.open(directory, service_id=config.service_id, keys=keys) as logger:
        for number, receipt in _append_all(logger):
            count += 1
            if receipts:
                output.document(
                    {
                        "line": number,
                        "index": receipt.index,
                        "leaf_hash": receipt.leaf_hash,
                        "audit_id": receipt.audit_id,
                    }
                )
                sys.stdout.flush()
    if as_json and not receipts:
        output.document({"events": count})
    elif not receipts:
        wrote = f"Wrote {count} {'event' if count == 1 else 'events'}, durably."
        output.line(wrote if count else "Wrote nothing: there was no event on stdin.")


def _append_all(logger: AuditLogger) -> Iterator[tuple[int, Receipt]]:
    """Line numbers and receipts, durable ones only. A bad line is raised after those before it."""
    for batch in _batches():
        parsed, fault = _parse(batch)
        receipts = logger.emit_all(_with_context(line for _, line in parsed))
        yield from zip((number for number, _ in parsed), receipts, strict=True)
        if fault is not None:
            raise fault


def _parse(
    batch: list[tuple[int, bytes]],
) -> tuple[list[tuple[int, EventLine]], InvalidEventError | None]:
    from vram_residency.audit.events.line import parse_event_line
    from vram_residency.core.errors import InvalidEventError

    parsed: list[tuple[int, EventLine]] = []
    for number, line in batch:
        try:
            parsed.append((number, parse_event_line(line)))
        except InvalidEventError as error:
            fault = InvalidEventError(error.event_type, f"line {number}: {error.rule}", hint=error.hint)
            return parsed, fault
    return parsed, None


def _with_context(lines: Iterator[EventLine]) -> Iterator[Event]:
    """The events; while one is taken, the context carries what its line said for the envelope."""
    from vram_residency.core import context
    from vram_residency.core.identifiers import CorrelationId

    for line in lines:
        context.correlation_id.set(
            None if line.correlation_id is None else CorrelationId(line.correlation_id)
        )
        context.actor.set(line.actor)
        yield line.event


def _batches() -> Iterator[list[tuple[int, bytes]]]:
    """Numbered lines as they arrive: all that one read gave, so that a slow writer gets quick receipts."""
    number = 0
    for lines in _arriving_lines(sys.stdin.fileno()):
        numbered = list(enumerate(lines, number + 1))
        number += len(lines)
        yield [(position, line) for position, line in numbered if line.strip()]


def _arriving_lines(descriptor: int) -> Iterator[list[bytes]]:
    from vram_residency.audit.events.line import LINE_BYTES_MAX

    rest = bytearray()
    while data := os.read(descriptor, _READ_BYTES):
        # A line over the limit is passed on as it is, and refused where lines are parsed.
        if b"\n" not in data and len(rest) <= LINE_BYTES_MAX:
            rest += data
            continue
        *lines, last = (bytes(rest) + data).split(b"\n")
        rest = bytearray(last)
        yield lines or [bytes(rest)]
    if rest:
        yield [bytes(rest)]
