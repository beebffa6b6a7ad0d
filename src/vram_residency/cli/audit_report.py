"""``vram audit report``: what evidence the log holds for each control of a standard."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Unpack

import click

from vram_residency.cli import output
from vram_residency.cli.errors import ExitCode
from vram_residency.cli.options import json_option
from vram_residency.cli.trust import TrustOptions, read_trust, trust_options

if TYPE_CHECKING:
    from vram_residency.audit.reporting.control import StandardId
    from vram_residency.audit.reporting.rendering import Form

_STANDARDS = ("soc2", "iso27001", "gdpr", "ai-act")
_FORMS = ("html", "md", "json")


@click.command()
@click.argument("directory", metavar="DIR", type=click.Path(path_type=Path))
@click.option("--standard", required=True, type=click.Choice(_STANDARDS), help="Whose controls to report by.")
@click.option("--since", metavar="TIME", help="From this time on: 2025-10-02 or 2025-10-02T10:00:00Z.")
@click.option("--until", metavar="TIME", help="Before this time.")
@click.option(
    "--format", "form", type=click.Choice(_FORMS), help="html to print, md to read, json [default: md]."
)
@click.option(
    "--output", "-o", "target", metavar="FILE", type=click.Path(path_type=Path), help="Write it there."
)
@trust_options
@json_option
def report(
    directory: Path,
    *,
    standard: StandardId,
    since: str | None,
    until: str | None,
    form: Form | None,
    target: Path | None,
    as_json: bool,
    **trust: Unpack[TrustOptions],
) -> ExitCode:
    """Set the log's evidence beside a standard's controls.

    The log is verified first; the exit code is that of `vram audit verify`. Each control is said to have
    evidence available, partial, or not provided by this software. Nothing here says compliant.

    \b
    Example:
      vram audit report ./audit --standard soc2 --since 2025-10-01
      vram audit report ./audit --standard ai-act --format html -o ai-act.html
    """
    from vram_residency.audit.reporting.rendering import render
    from vram_residency.audit.reporting.report import make_report

    given = read_trust(**trust)
    with output.progress("Checking entries") as advance:
        made = make_report(directory, standard, since=since, until=until, **given, on_progress=advance)
    data = render(made, form or ("json" if as_json else "md"))
    if target is None:
        output.raw(data)
    else:
        target.write_bytes(data)
        output.note(f"Written: {output.safe(str(target))}")
    if not made.verification:
        command = f"vram audit verify {output.safe(str(directory))}"
        output.note(f"vram: warning: the log does not verify: `{command}` says more.")
    return ExitCode(made.exit_code)
