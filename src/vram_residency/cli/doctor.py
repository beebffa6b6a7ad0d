"""``vram doctor``: what on this host is weaker than it could be, and the command that mends it."""

from __future__ import annotations

import os
from pathlib import Path

import click

from vram_residency.cli import output
from vram_residency.cli.errors import ExitCode
from vram_residency.cli.options import json_option


@click.command()
@click.option(
    "--config", "file", type=click.Path(path_type=Path), help="The settings of the worker that is meant."
)
@json_option
def doctor(*, file: Path | None, as_json: bool) -> ExitCode:
    """Say what on this host is weaker than it could be, and how to mend it.

    \b
    Example:
      vram doctor
      vram doctor --config worker.toml

    Exit code 1: something was found. Nothing is changed.
    """
    from vram_residency.worker.host_check import RULES, judge_host, read_facts

    log, keys, capacity_bytes = None, None, None
    if file is not None:
        from vram_residency.config.reading import read_settings

        settings = read_settings(file, environ=os.environ)
        log, keys = settings.audit.directory, settings.audit.keys
        capacity_bytes = settings.worker.capacity_bytes
    found = judge_host(read_facts(capacity_bytes=capacity_bytes, log=log, keys=keys))
    if as_json:
        rows = [{"code": each.code, "finding": each.text, "mend": each.mend} for each in found]
        output.document({"findings": rows, "checked": list(RULES)})
    else:
        for each in found:
            output.line(f"{output.style(each.code, 'yellow')}: {output.safe(each.text)}")
            output.line(f"  mend: {output.safe(each.mend)}")
        output.line(f"{len(found)} of {len(RULES)} things could be stronger here.")
    return ExitCode.NO if found else ExitCode.DONE
