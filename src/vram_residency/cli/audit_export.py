"""``vram audit export``: the entries for a SIEM, a spreadsheet or a data lake."""

from __future__ import annotations

import stat
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from vram_residency.cli import access, output
from vram_residency.cli.access import access_option
from vram_residency.cli.errors import ExitCode
from vram_residency.cli.filters import filter_options
from vram_residency.cli.options import json_option
from vram_residency.cli.trust import Trust, read_trust, trust_options
from vram_residency.core.errors import InvalidInputError

if TYPE_CHECKING:
    from vram_residency.audit.exporting.export import Export

#: Of audit/exporting, which is not imported for the help.
FORMATS = ("jsonl", "ocsf", "cloudevents", "syslog", "cef", "otlp-json", "csv", "parquet")
_BLOCK_BYTES = 1 << 18


@click.command()
@click.argument("directory", metavar="DIR", type=click.Path(path_type=Path))
@click.option(
    "--format",
    "format_name",
    required=True,
    type=click.Choice(FORMATS),
    help="What the receiver reads.",
)
@click.option(
    "--output",
    "target",
    metavar="FILE",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Write it there, whole or not at all [default: stdout].",
)
@click.option("--verified", is_flag=True, help="Verify the log first, and export only what is vouched for.")
@trust_options
@filter_options
@access_option
@json_option
def export(
    directory: Path,
    *,
    format_name: str,
    target: Path | None,
    verified: bool,
    vkey: str | None,
    mac_key_file: Path | None,
    checkpoint: Path | None,
    keys: Path | None,
    record_access: bool,
    events: tuple[str, ...],
    follow: bool,
    as_json: bool,
    **filters: Any,
) -> ExitCode:
    """Export entries for other systems, each with the log's origin, its index and its leaf hash.

    One entry is always one record, and no text in it can make another. Nothing is verified without
    --verified. Exit code 1: --verified found the log bad, or lines are no entries and were left out.

    \b
    Example:
      vram audit export ./audit --format ocsf --since 2025-10-02
      vram audit export ./audit --format csv --output audit.csv --verified
    """
    _require_target(format_name, target, follow=follow)
    filters |= {"event": events or None, "follow": follow}
    trust = read_trust(vkey=vkey, mac_key_file=mac_key_file, checkpoint=checkpoint, keys=keys)
    given = any(value for name, value in trust.items() if name != "keys" or not record_access)
    if given and not verified:
        raise InvalidInputError("a key", "is for --verified", hint="Add --verified, or leave the key out.")
    if record_access:
        access.record(directory, keys, {"export": format_name, **filters})
    end = _vouched_entries(directory, trust) if verified else None
    chosen, size = _open(directory, end=end, filters=filters)
    with _watch(chosen, size, is_shown=target is not None or not sys.stdout.isatty()):
        if target is None:
            for block in _blocks(chosen, format_name, is_prompt=follow):
                output.raw(block)
                sys.stdout.flush()
        else:
            _write_file(target, chosen, format_name)
    _tell(chosen, directory, target, is_verified=verified, as_json=as_json)
    return ExitCode.NO if chosen.left_out else ExitCode.DONE


def _open(directory: Path, *, end: int | None, filters: dict[str, Any]) -> tuple[Export, int]:
    """The export, and how many entries the log claims to have, for the progress alone."""
    from vram_residency.audit.exporting.export import Export, unverified_size
    from vram_residency.audit.reading.query import query
    from vram_residency.audit.store.directory import Directory

    lines = query(directory, **filters)
    place = Directory(directory)
    config, _ = place.read_config()
    return Export(config.origin, lines, end=end), unverified_size(place)


def _require_target(format_name: str, target: Path | None, *, follow: bool) -> None:
    if target is None:
        if format_name == "parquet":
            rule = "is written from its end and cannot go to stdout"
            raise InvalidInputError("--format parquet", rule, hint="Name a file: --output FILE.")
        return
    if follow:
        raise InvalidInputError(
            "--output", "never becomes whole with --follow", hint="Use a pipe, or redirect: … > FILE."
        )
    try:
        is_plain = stat.S_ISREG(target.lstat().st_mode)
    except FileNotFoundError:
        is_plain = bool(target.name)
    if not is_plain:
        raise InvalidInputError("--output", "is not a plain file", hint="Leave it out to write to stdout.")


def _vouched_entries(directory: Path, trust: Trust) -> int:
    """How many entries verification vouches for. Raises LogDamagedError, MissingKeyError."""
    from vram_residency.audit.reading.verification import verify
    from vram_residency.core.errors import LogDamagedError, MissingKeyError

    with output.progress("Checking entries") as advance:
        verdict = verify(directory, **trust, on_progress=advance)
    if verdict.verdict == "unverifiable":
        hint = "Get the vkey from whoever made the log: --vkey V."
        raise MissingKeyError("--verified", "needs a key that you trust for this log", hint=hint)
    if not verdict:
        bad = verdict.first_bad
        reason = f"{verdict.verdict}: {'unknown' if bad is None else bad.reason}"
        hint = f"See `vram audit verify {directory}`; without --verified it is exported as it is."
        raise LogDamagedError(str(directory), None if bad is None else bad.offset, reason, hint=hint)
    return verdict.entries - verdict.unvouched_entries


def _blocks(chosen: Export, format_name: str, *, is_prompt: bool) -> Iterator[bytes]:
    """Whole records, many at a time; each at once where a reader waits for it."""
    block = bytearray()
    for data in chosen.encoded(format_name):
        block += data
        if is_prompt or len(block) >= _BLOCK_BYTES:
            yield bytes(block)
            block.clear()
    if block:
        yield bytes(block)


def _write_file(target: Path, chosen: Export, format_name: str) -> None:
    from vram_residency.audit.exporting import parquet_file
    from vram_residency.audit.exporting.export import whole_file

    with whole_file(target) as partial:
        if format_name == "parquet":
            parquet_file.write(partial, chosen.records())
            return
        with partial.open("wb") as file:
            file.writelines(_blocks(chosen, format_name, is_prompt=False))


@contextmanager
def _watch(chosen: Export, size: int, *, is_shown: bool) -> Iterator[None]:
    """Show on stderr how far it has come, unless the records themselves go to the terminal."""
    with output.progress("Exporting") as advance:
        if is_shown:
            chosen.on_record = lambda index: advance(index + 1, max(size, index + 1))
        yield


def _tell(chosen: Export, directory: Path, target: Path | None, *, is_verified: bool, as_json: bool) -> None:
    """On stderr, since stdout may hold records; with --json and a file there is a document instead."""
    facts = {"origin": chosen.origin, "exported": chosen.exported, "left_out": chosen.left_out}
    if as_json:
        if target is not None:
            output.document({**facts, "verified": is_verified, "file": str(target)})
        return
    count = f"{chosen.exported} {'entry' if chosen.exported == 1 else 'entries'}"
    check = f"`vram audit verify {output.safe(str(directory))}`"
    told = "verified first" if is_verified else f"unverified: {check} checks the log"
    output.note(f"{count} exported, {told}.")
    if chosen.left_out:
        lines = "1 line is" if chosen.left_out == 1 else f"{chosen.left_out} lines are"
        output.note(f"vram: warning: {lines} no entry and left out: {check} says where.")
