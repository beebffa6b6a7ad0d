"""The filters that choose entries: one set of options for every command that reads a log."""

from __future__ import annotations

from collections.abc import Callable
from functools import reduce
from typing import Any, TypeVar

import click

Command = TypeVar("Command", bound=Callable[..., Any])

SEVERITIES = ("CRITICAL", "HIGH", "MEDIUM", "LOW")

_OPTIONS = (
    click.option(
        "--event", "events", multiple=True, metavar="NAME", help="Of this type, vram_sealed; may be repeated."
    ),
    click.option("--shard", metavar="ID", help="Entries about this shard."),
    click.option("--actor", metavar="ID", help="Entries by this user or worker."),
    click.option("--since", metavar="TIME", help="From this time on: 2025-10-02 or 2025-10-02T10:00:00Z."),
    click.option("--until", metavar="TIME", help="Before this time."),
    click.option(
        "--severity",
        metavar="WORD",
        type=click.Choice(SEVERITIES, case_sensitive=False),
        help="CRITICAL, HIGH, MEDIUM or LOW.",
    ),
    click.option("--limit", type=click.IntRange(min=0), metavar="N", help="The first N of them."),
    click.option("--follow", is_flag=True, help="Go on with new entries, until interrupted."),
)


def filter_options(command: Command) -> Command:
    """Add ``--event`` (parameter ``events``) to ``--follow``, with the names that ``query()`` has."""
    return reduce(lambda decorated, option: option(decorated), reversed(_OPTIONS), command)
