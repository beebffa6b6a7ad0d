"""``vram audit publish``: the log as files that any web server can serve."""

from __future__ import annotations

from pathlib import Path

import click

from vram_residency.cli import output
from vram_residency.cli.options import json_option


@click.command()
@click.argument("directory", metavar="DIR", type=click.Path(path_type=Path))
@click.argument("out", metavar="OUT", type=click.Path(path_type=Path))
@json_option
def publish(directory: Path, out: Path, *, as_json: bool) -> None:
    """Lay out checkpoint, tiles and entries for a static file server (C2SP tlog-tiles).

    Run it again to publish what came since: full tiles are never written twice, and a log that is older than
    what was published, or contradicts it, is refused. Whoever can read OUT can read every entry.

    \b
    Example:
      vram audit publish ./audit /srv/www/audit
    """
    from vram_residency.audit.publishing.publication import publish as publish_log

    with output.progress("Publishing") as on_progress:
        done = publish_log(directory, out, on_progress=on_progress)
    if as_json:
        output.document(
            {
                "origin": done.origin,
                "tree_size": done.size,
                "root_hash": done.root.hex(),
                "old_size": done.old_size,
                "files_written": done.files_written,
            }
        )
        return
    place = output.safe(str(out))
    output.line(f"{output.style('Published', 'bold')} {done.size} entries in {place}")
    output.line(f"  new     {done.size - done.old_size} entries, {done.files_written} files")
    output.line(f"  origin  {output.safe(done.origin)}")
    output.line(f"  root    {done.root.hex()}")
