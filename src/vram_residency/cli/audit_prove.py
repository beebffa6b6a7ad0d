"""``vram audit prove``: proofs that hold without this program and without the log."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

import click

from vram_residency.cli import output
from vram_residency.cli.options import json_option

if TYPE_CHECKING:
    from vram_residency.audit.publishing.proving import Consistency

_LEAF_HASH = re.compile(r"[0-9a-f]{64}\Z")


@click.group()
def prove() -> None:
    """Prove that an entry is in the log, or that the log only grew.

    \b
    Example:
      vram audit prove inclusion ./audit 41 > entry-41.tlog-proof
      vram audit prove consistency ./audit 1000 2000
    """


@prove.command()
@click.argument("directory", metavar="DIR", type=click.Path(path_type=Path))
@click.argument("index", metavar="INDEX", type=click.IntRange(min=0))
@click.option(
    "--leaf-hash",
    metavar="HEX",
    help="The leaf hash in a receipt: fail unless the entry is still the one it was given for.",
)
@json_option
def inclusion(directory: Path, *, index: int, leaf_hash: str | None, as_json: bool) -> None:
    """Prove that an entry is under the newest checkpoint.

    Prints C2SP tlog-proof text; with --json also the hashes by themselves, in hex.

    \b
    Example:
      vram audit prove inclusion ./audit 41 > entry-41.tlog-proof
    """
    from vram_residency.audit.format.receipt import Receipt
    from vram_residency.audit.publishing.proving import prove_inclusion

    receipt = None if leaf_hash is None else Receipt(index, _parse_leaf_hash(leaf_hash), "")
    with output.progress("Reading leaf hashes") as on_progress:
        made = prove_inclusion(directory, index if receipt is None else receipt, on_progress=on_progress)
    if not as_json:
        output.raw(bytes(made))
        return
    signed = made.proof.checkpoint
    output.document(
        {
            "origin": signed.origin,
            "index": index,
            "leaf_hash": made.leaf_hash.hex(),
            "tree_size": signed.size,
            "root_hash": signed.root.hex(),
            "hashes": [hash_.hex() for hash_ in made.proof.hashes],
            "checkpoint": signed.note_bytes.decode(),
            "tlog_proof": bytes(made).decode(),
        }
    )


@prove.command(short_help="Prove that the log only grew.")
@click.argument("directory", metavar="DIR", type=click.Path(path_type=Path))
@click.argument("old_size", metavar="OLD", type=click.IntRange(min=0))
@click.argument("size", metavar="[NEW]", type=click.IntRange(min=0), required=False)
@json_option
def consistency(directory: Path, *, old_size: int, size: int | None, as_json: bool) -> None:
    """Prove that the log of OLD entries is the beginning of that of NEW.

    NEW is by default what the newest checkpoint covers. Prints the old size, the proof's hashes in base64, an
    empty line and the checkpoint of NEW, which is signed only where it is the newest: the form that a C2SP
    witness takes.

    \b
    Example:
      vram audit prove consistency ./audit 1000 2000 --json
    """
    from vram_residency.audit.publishing.proving import prove_consistency

    with output.progress("Reading leaf hashes") as on_progress:
        made = prove_consistency(directory, old_size, size, on_progress=on_progress)
    if as_json:
        output.document(_document(made))
        return
    output.raw(bytes(made))
    if not made.is_signed:
        newest = made.checkpoint.size
        output.note(f"The checkpoint of {made.size} entries is not signed; the newest one covers {newest}.")


def _document(made: Consistency) -> dict[str, object]:
    return {
        "origin": made.checkpoint.origin,
        "old_size": made.old_size,
        "old_root_hash": made.old_root.hex(),
        "tree_size": made.size,
        "root_hash": made.root.hex(),
        "hashes": [hash_.hex() for hash_ in made.hashes],
        "checkpoint": made.checkpoint.note_bytes.decode(),
    }


def _parse_leaf_hash(text: str) -> str:
    from vram_residency.core.errors import InvalidInputError

    if _LEAF_HASH.match(text.lower()) is None:
        raise InvalidInputError("--leaf-hash", "must be 64 hex digits", hint="A receipt holds it.")
    return text.lower()
