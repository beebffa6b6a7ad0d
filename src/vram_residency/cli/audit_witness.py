"""``vram audit witness``: have somebody else's key stand for the log's length and time."""

from __future__ import annotations

from pathlib import Path

import click

from vram_residency.cli import output
from vram_residency.cli.options import json_option


@click.command()
@click.argument("directory", metavar="DIR", type=click.Path(path_type=Path))
@click.argument("url", metavar="URL")
@click.option(
    "--witness-vkey",
    "vkeys",
    metavar="V",
    multiple=True,
    required=True,
    help="The witness's public key, name+hash+base64; may be repeated.",
)
@click.option(
    "--timeout",
    "timeout_s",
    metavar="S",
    type=click.FloatRange(min=0, min_open=True),
    default=30.0,
    show_default=True,
    help="Seconds to wait for the witness.",
)
@json_option
def witness(directory: Path, url: str, *, vkeys: tuple[str, ...], timeout_s: float, as_json: bool) -> None:
    """Have a C2SP witness cosign the newest checkpoint, and keep its cosignature.

    URL is the witness's submission prefix. Exit code 1: the witness saw a longer log, or another one.

    \b
    Example:
      vram audit witness ./audit https://witness.example/w1 \\
        --witness-vkey witness.example/w1+…+…
    """
    from vram_residency.audit.publishing.witness import cosign
    from vram_residency.core.clock import rfc3339

    done = cosign(directory, url, vkeys, timeout_s=timeout_s)
    rows = [
        {"name": one.key.name, "time": rfc3339(one.time_s * 1_000_000_000), "file": str(path)}
        for one, path in zip(done.cosignatures, done.paths, strict=True)
    ]
    if as_json:
        document = {"origin": done.origin, "tree_size": done.size, "root_hash": done.root.hex()}
        output.document({**document, "cosignatures": rows})
        return
    output.line(f"{output.style('Cosigned', 'bold')} the checkpoint of {done.size} entries")
    for row in rows:
        output.line(f"  {output.safe(row['name'])} at {row['time']}, kept in {output.safe(row['file'])}")
    output.line()
    output.line("Keep a copy of that file elsewhere: vram audit verify DIR --checkpoint FILE")
