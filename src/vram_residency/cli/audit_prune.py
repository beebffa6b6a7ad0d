"""``vram audit prune``: retention, so that verification can tell what was removed from what was lost."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from vram_residency.cli import output
from vram_residency.cli.options import json_option

if TYPE_CHECKING:
    from vram_residency.audit.pruning import Removed


@click.command()
@click.argument("directory", metavar="DIR", type=click.Path(path_type=Path))
@click.option("--older-than", required=True, metavar="AGE", help="Of what age: 365d (s, m, h, d or w).")
@click.option("--policy", required=True, metavar="TEXT", help="The text that asks for the removal.")
@click.option(
    "--checkpoint", metavar="F", type=click.Path(path_type=Path), help="A checkpoint kept elsewhere."
)
@click.option(
    "--witness-vkey",
    "vkeys",
    metavar="V",
    multiple=True,
    help="A witness whose cosignature counts, name+hash+base64; may be repeated.",
)
@click.option(
    "--keys", metavar="DIR", type=click.Path(path_type=Path), help="The key folder [default: DIR.keys]."
)
@click.option("--dry-run", is_flag=True, help="Say what would be removed, and remove nothing.")
@json_option
def prune(
    directory: Path,
    *,
    older_than: str,
    policy: str,
    checkpoint: Path | None,
    vkeys: tuple[str, ...],
    keys: Path | None,
    dry_run: bool,
    as_json: bool,
) -> None:
    """Remove old segments, on the record: the log still verifies.

    Only whole closed segments go, from the front, and only those that a checkpoint covers which a witness
    cosigned or which was kept elsewhere. The log is verified first, then it records what goes and why. The
    leaf hashes stay, so that proofs go on working. Publish before, where others should keep the entries.

    \b
    Example:
      vram audit prune ./audit --older-than 365d \\
        --policy "GDPR Art. 5(1)(e)" --checkpoint /mnt/safe/checkpoint
    """
    from vram_residency.audit.pruning import Retention
    from vram_residency.audit.pruning import prune as prune_log

    retention = Retention(older_than=older_than, text=policy)
    with output.progress("Checking entries") as advance:
        removed = prune_log(
            directory,
            retention,
            checkpoint=None if checkpoint is None else _read(checkpoint, directory),
            witness_vkeys=vkeys,
            keys=keys,
            dry_run=dry_run,
            on_progress=advance,
        )
    if as_json:
        output.document(removed)
    else:
        _print(removed)


def _read(path: Path, directory: Path) -> bytes:
    from vram_residency.audit.reading import source as reading
    from vram_residency.core.errors import InvalidInputError

    if path.resolve().is_relative_to(directory.resolve()):
        raise InvalidInputError(
            "checkpoint",
            "lies in the log's own directory: it protects nothing from whoever can write there",
            hint="Give a copy that was kept on another machine; for a witness's, --witness-vkey.",
        )
    return reading.read_small(path)


def _print(removed: Removed) -> None:
    count = removed.next_index - removed.first_index
    if count:
        word = "Would remove" if removed.dry_run else "Removed"
        last, files = removed.next_index - 1, len(removed.segments)
        segments = f"{files} segment{'s' if files > 1 else ''}"
        output.line(f"{output.style(word, 'bold')} entries {removed.first_index} to {last}: {segments}")
        output.line(f"  policy  {output.safe(removed.policy or '')}")
        output.line(f"  root    {removed.root_hash} of the first {removed.next_index} entries")
    else:
        output.line("Nothing to remove: no closed segment at the front is old enough.")
    if removed.kept_back:
        output.line()
        output.advice(
            f"{removed.kept_back} more could go, once a checkpoint kept elsewhere covers them and they are "
            "not of the running epoch."
        )
    elif count and not removed.dry_run:
        output.line()
        output.advice("Keep a copy of the new 'checkpoint' elsewhere: it covers the record.")
