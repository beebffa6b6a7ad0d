"""``vram digest``: digests of files, line for line as ``b3sum`` prints them."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Literal

import click

from vram_residency.cli import output
from vram_residency.cli.options import json_option


@click.command()
@click.argument("paths", nargs=-1, required=True, metavar="PATH…", type=click.Path(path_type=Path))
@click.option(
    "--algorithm",
    type=click.Choice(["blake3", "sha256"]),
    default="blake3",
    show_default=True,
    help="sha256 is slower; it is what model hubs publish.",
)
@json_option
def digest(paths: tuple[Path, ...], *, algorithm: Literal["blake3", "sha256"], as_json: bool) -> None:
    """Print the digest of files, as b3sum does.

    \b
    Example:
      vram digest model.safetensors
      vram digest *.gguf --algorithm sha256 --json

    A path that cannot be read ends the run with an error; the lines before it stand.
    """
    from vram_residency.digest.file import digest_file

    found: list[dict[str, str | int]] = []
    for path in paths:
        with output.progress(f"digest of {output.safe(path.name)}") as report:
            value = digest_file(path, algorithm, on_progress=report)
        if as_json:
            found.append({"path": str(path), "digest": value})
        else:
            # As UTF-8 whatever the locale: `b3sum --check` must find the name again.
            output.raw(_line(path, value.partition(":")[2]).encode() + b"\n")
    if as_json:
        output.document({"algorithm": algorithm, "files": found, **(found[0] if len(found) == 1 else {})})


def _line(path: Path, hex_digits: str) -> str:
    """``<hex>  <path>``. As in b3sum, a backslash in front says that the name is escaped.

    For a terminal the name is cleaned as well: a file must not be able to write into it.
    """
    name = os.fsencode(path).decode("utf-8", "replace")
    escaped = name.replace("\\", "\\\\").replace("\n", "\\n").replace("\r", "\\r")
    mark = "" if escaped == name else "\\"
    return f"{mark}{hex_digits}  {output.safe(escaped) if sys.stdout.isatty() else escaped}"
