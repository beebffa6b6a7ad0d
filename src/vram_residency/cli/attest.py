"""``vram attest``: a signed statement, for somebody else, that a shard was just verified."""

from __future__ import annotations

import secrets
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import click

from vram_residency.cli import output
from vram_residency.cli.connection import worker_option
from vram_residency.cli.options import json_option

if TYPE_CHECKING:
    from vram_residency.worker.client import WorkerClient

_NONCE_BYTES = 16


@click.command()
@click.argument("shard_id", metavar="ID")
@click.option("--nonce", metavar="N", help="Chosen by who asks, up to 128 characters [default: one is made].")
@click.option(
    "--scope",
    type=click.Choice(["full", "fast", "sample"]),
    default="full",
    show_default=True,
    help="How much of it to read.",
)
@click.option(
    "--out", "-o", metavar="FILE", type=click.Path(path_type=Path), help="Where to [default: stdout]."
)
@worker_option
@json_option
def attest(
    shard_id: str,
    *,
    nonce: str | None,
    scope: Literal["full", "fast", "sample"],
    out: Path | None,
    worker: WorkerClient,
    as_json: bool,
) -> None:
    """Have the worker verify a shard now and sign that.

    The result is a DSSE envelope around an in-toto statement, as JSON.

    \b
    Example:
      vram attest m1 --nonce 5f1c… --out m1.attestation.json
    """
    import json

    chosen = nonce or secrets.token_hex(_NONCE_BYTES)
    envelope = worker.attest(shard_id, nonce=chosen, scope=scope)
    if out is None:
        output.document(envelope)
        return
    out.write_text(json.dumps(envelope) + "\n", "utf-8")
    if as_json:
        output.document({"file": out, "nonce": chosen, "scope": scope})
        return
    output.line(f"{output.style('Attested', 'bold')} {output.safe(shard_id)}: {output.safe(str(out))}")
    output.line(f"  nonce {output.safe(chosen)}")
