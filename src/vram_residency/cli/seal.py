"""``vram seal``: have the running worker load and seal a model."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import click

from vram_residency.cli import output
from vram_residency.cli.connection import worker_option
from vram_residency.cli.options import json_option

if TYPE_CHECKING:
    from vram_residency.worker.client import WorkerClient


@click.command()
@click.argument("path")
@click.option("--id", "shard_id", metavar="ID", help="The shard's id [default: one is made].")
@click.option("--expect", metavar="DIGEST", help="The approved digest; of a directory, its manifest digest.")
@click.option("--model-ref", metavar="REF", help="What to call the model [default: the file's name].")
@worker_option
@json_option
def seal(
    path: str,
    *,
    shard_id: str | None,
    expect: str | None,
    model_ref: str | None,
    worker: WorkerClient,
    as_json: bool,
) -> None:
    """Have the running worker load a model and seal it.

    PATH is a file or an indexed directory under a model root of the worker. One that is not found here is
    taken as the worker sees it.

    \b
    Example:
      vram seal /srv/models/model.safetensors --id m1 --expect blake3:0123…
    """
    handles = worker.commit(
        _as_the_worker_sees_it(path, worker),
        shard_id=shard_id,
        expected_digest=expect,
        model_ref=model_ref,
    )
    if as_json:
        import msgspec

        shards = msgspec.to_builtins(handles)
        output.document({"shards": shards, **(shards[0] if len(shards) == 1 else {})})
        return
    for handle in handles:
        name = output.style(output.safe(handle.handle_id), "bold")
        output.line(f"Sealed {name}: {output.size(handle.vram_bytes)} of {handle.format}")
        output.line(f"  digest {output.safe(handle.digest)}")
    if len(handles) == 1:
        output.advice(f"vram verify {output.safe(handles[0].handle_id)}")
    else:
        output.advice("vram ls")


def _as_the_worker_sees_it(path: str, worker: WorkerClient) -> str:
    """The worker runs in another directory, and over TCP perhaps on another machine."""
    is_here = worker.is_local and Path(path).exists()
    return os.path.abspath(path) if is_here else path  # noqa: PTH100 - links are the worker's to judge
