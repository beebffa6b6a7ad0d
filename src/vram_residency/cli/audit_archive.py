"""``vram audit archive``: compress old segments of a log that nobody is writing."""

from __future__ import annotations

from pathlib import Path

import click

from vram_residency.cli import output
from vram_residency.cli.options import json_option

_DAY_S = 86_400.0


@click.command()
@click.argument("directory", metavar="DIR", type=click.Path(path_type=Path))
@click.option(
    "--older-than-days",
    "days",
    metavar="N",
    type=click.FloatRange(min=0),
    default=90.0,
    show_default=True,
    help="Of what age, counted from a segment's end.",
)
@json_option
def archive(directory: Path, *, days: float, as_json: bool) -> None:
    """Compress old segments; every command reads them as before.

    A running writer does that by itself. Only closed segments are compressed, with zstd, to the very same
    bytes; each is read back before the original goes.

    \b
    Example:
      vram audit archive ./audit --older-than-days 30
    """
    from vram_residency.audit.writing.archiving import archive_log

    made = archive_log(directory, archive_after_s=days * _DAY_S)
    if as_json:
        output.document({"archives": [f"entries/{path.name}" for path in made]})
        return
    if not made:
        output.line("Nothing to compress: no closed segment is old enough.")
        return
    output.line(f"{output.style('Compressed', 'bold')} {len(made)} segment{'s' if len(made) > 1 else ''}")
    for path in made:
        output.line(f"  entries/{path.name}")
