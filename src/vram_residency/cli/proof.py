"""``vram proof``: one file that a third party verifies offline (spec: cli.md)."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from vram_residency.cli import output
from vram_residency.cli.errors import ExitCode
from vram_residency.cli.options import json_option

if TYPE_CHECKING:
    from vram_residency.evidence.bundle import Subject
    from vram_residency.evidence.checking import Finding
    from vram_residency.evidence.collecting import Made

_LOOKS = {"proven": "green", "refuted": "red", "unverifiable": "yellow"}
_SENTENCES = {
    "proven": "by the vkey that you gave: the holder of this key logged this.",
    "refuted": "- the bundle does not show what it says.",
    "unverifiable": "- consistent, but by nothing except the key that the bundle itself names.",
}
_NEXT = {
    "refuted": "Make sure that the keys are the right ones; if they are, ask for the bundle again.",
    "unverifiable": "Get the vkey from the log's owner by another way than this file: --vkey V.",
}
_INDEX_DIGITS_MAX = 19
_ENTRIES_SHOWN = 20
_PATH = click.Path(path_type=Path)


@click.group()
def proof() -> None:
    """Make and check proof bundles: entries, proofs, a page for the auditor.

    \b
    Example:
      vram proof export 41 entry-41.zip --audit ./audit
      vram proof verify entry-41.zip --vkey worker-gpu-0/…+…+…
    """


@proof.command()
@click.argument("subject", metavar="ID|INDEX")
@click.argument("target", metavar="OUT", type=_PATH)
@click.option("--audit", "directory", metavar="DIR", required=True, type=_PATH, help="The audit log.")
@click.option("--shard", "is_shard", is_flag=True, help="Take a number as a shard's id, not as an index.")
@click.option(
    "--attestation", metavar="FILE", type=_PATH, help="An attestation of the shard (DSSE envelope), JSON."
)
@click.option(
    "--residency", metavar="FILE", type=_PATH, help="The residency record of `vram check --json`, JSON."
)
@json_option
def export(
    subject: str,
    target: Path,
    *,
    directory: Path,
    is_shard: bool,
    attestation: Path | None,
    residency: Path | None,
    as_json: bool,
) -> None:
    """Bundle an entry, or all entries of a shard, with their proofs.

    OUT is a ZIP archive of one exact form: index.html in it is for people, the rest for any C2SP tool.

    \b
    Example:
      vram proof export 41 entry-41.zip --audit ./audit
      vram proof export shard-abc123 shard.zip --audit ./audit
    """
    from vram_residency.evidence.collecting import make_bundle

    about = _subject(subject, is_shard=is_shard)
    with output.progress("Reading leaf hashes") as advance:
        made = make_bundle(
            directory,
            about,
            attestation=None if attestation is None else _read(attestation),
            residency=None if residency is None else _read(residency),
            on_progress=advance,
        )
    target.write_bytes(made.data)
    if as_json:
        output.document(_document(made, target))
    else:
        _print_made(made, target)


@proof.command()
@click.argument("file", metavar="FILE", type=_PATH)
@click.option("--vkey", metavar="V", help="The log's public key, from elsewhere: name+hash+base64.")
@click.option(
    "--witness-vkey", "witness_vkeys", metavar="V", multiple=True, help="A witness that must have cosigned."
)
@click.option(
    "--attestation-key", metavar="HEX", help="The Ed25519 key that must have signed the attestation."
)
@click.option("--nonce", metavar="TEXT", help="The nonce that the attestation must answer.")
@json_option
def verify(
    file: Path,
    *,
    vkey: str | None,
    witness_vkeys: tuple[str, ...],
    attestation_key: str | None,
    nonce: str | None,
    as_json: bool,
) -> ExitCode:
    """Check every statement of a bundle, offline.

    Exit code 0: proven. 1: refuted. 2: not a bundle. 5: unverifiable, for want of a vkey from elsewhere.

    \b
    Example:
      vram proof verify entry-41.zip --vkey worker-gpu-0/…+…+…
    """
    from vram_residency.evidence.checking import check, parse_keys

    keys = parse_keys(vkey, witness_vkeys, attestation_key=attestation_key, nonce=nonce)
    found = check(_read(file), keys)
    if as_json:
        output.document(found)
    else:
        _print(found)
    return ExitCode(found.exit_code)


def _document(made: Made, target: Path) -> dict[str, object]:
    signed = made.bundle.checkpoint
    return {
        "file": str(target),
        "size_bytes": len(made.data),
        "subject": made.bundle.subject,
        "origin": signed.origin,
        "tree_size": signed.size,
        "entries": [proven.index for proven in made.bundle.entries],
        "uncovered_entries": made.uncovered_entries,
    }


def _print_made(made: Made, target: Path) -> None:
    count = len(made.bundle.entries)
    entries = "1 entry" if count == 1 else f"{count} entries"
    output.line(f"{output.style('Bundled', 'bold')} {entries} in {output.safe(str(target))}")
    if made.uncovered_entries:
        output.line(f"  {made.uncovered_entries} newer ones are under no checkpoint yet")
    output.line()
    output.advice("Send the file; give the vkey to its reader by another way.")


def _subject(text: str, *, is_shard: bool) -> Subject:
    from vram_residency.evidence.bundle import Subject

    is_index = text.isascii() and text.isdigit() and len(text) <= _INDEX_DIGITS_MAX
    if is_shard or not is_index:
        return Subject(shard_id=text)
    return Subject(entry=int(text))


def _read(path: Path) -> bytes:
    """A file, at most one byte more than a bundle may have. Raises InvalidInputError, OSError."""
    import os

    from vram_residency.core.regular_file import open_regular
    from vram_residency.evidence.container import FILE_BYTES_MAX

    with os.fdopen(open_regular(path), "rb") as file:
        return file.read(FILE_BYTES_MAX + 1)


def _print(found: Finding) -> None:
    word = output.style(found.verdict.upper(), _LOOKS[found.verdict])
    output.line(f"{word} {_SENTENCES[found.verdict]}")
    output.line()
    for number, step in enumerate(found.steps, start=1):
        mark = {True: "yes", False: "NO", None: "-"}[step.holds]
        output.line(f"  {number}  {mark.ljust(4)}{output.safe_entry(step.finding)}")
    output.line()
    for shown in found.entries[:_ENTRIES_SHOWN]:
        words = f"#{shown.index}  {shown.timestamp}  {shown.event_type}"
        output.line(f"  {output.safe_entry(words)}")
    if len(found.entries) > _ENTRIES_SHOWN:
        output.line(f"  … and {len(found.entries) - _ENTRIES_SHOWN} more: `--json` lists them all")
    if found.verdict == "proven":
        output.line()
        output.line("Not proved:")
        for limit in found.not_proved:
            output.line(f"  {limit}")
    if found.verdict in _NEXT:
        output.line()
        output.advice(_NEXT[found.verdict])
