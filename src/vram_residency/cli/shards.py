"""``vram ls``, ``vram show`` and ``vram free``: the shards of the running worker."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from vram_residency.cli import output
from vram_residency.cli.connection import worker_option
from vram_residency.cli.errors import ExitCode
from vram_residency.cli.options import json_option

if TYPE_CHECKING:
    from vram_residency.worker.client import WorkerClient
    from vram_residency.worker.wire import Handle

_COLUMNS = ("shard", "state", "size", "verified (UTC)", "model", "digest")


@click.command()
@worker_option
@json_option
def ls(*, worker: WorkerClient, as_json: bool) -> None:
    """List the shards of the running worker.

    \b
    Example:
      vram ls
      vram ls --json | jq '.shards[].handle_id'
    """
    handles = worker.shards()
    if as_json:
        output.document({"shards": handles})
    elif handles:
        output.table(_COLUMNS, [row(handle) for handle in handles], is_list=True)
    else:
        output.line("The worker holds no shard.")
        output.advice("vram seal PATH")


@click.command()
@click.argument("shard_id", metavar="ID")
@worker_option
@json_option
def show(shard_id: str, *, worker: WorkerClient, as_json: bool) -> ExitCode:
    """Show all that the worker says of one shard.

    Nothing is verified for it. The exit code is 1 where the shard is quarantined.

    \b
    Example:
      vram show m1
    """
    import msgspec

    handle = worker.shard(shard_id)
    fields = msgspec.to_builtins(handle)
    if as_json:
        output.document(fields)
    else:
        for name, value in fields.items():
            if value is not None:
                output.line(f"{output.style(name.ljust(22), 'dim')} {output.safe(str(value))}")
    return ExitCode.DONE if handle.state == "sealed" else ExitCode.NO


@click.command()
@click.argument("shard_id", metavar="ID")
@worker_option
@json_option
def free(shard_id: str, *, worker: WorkerClient, as_json: bool) -> None:
    """Have the worker wipe and free one shard.

    \b
    Example:
      vram free m1
    """
    worker.free(shard_id)
    if as_json:
        output.document({"freed": shard_id})
    else:
        output.line(f"Freed {output.safe(shard_id)}")


def row(handle: Handle) -> tuple[str, ...]:
    """A shard as one line of a table."""
    return (
        handle.handle_id,
        handle.state,
        output.size(handle.vram_bytes),
        handle.last_full_verification[:19].replace("T", " "),
        handle.model_ref or "",
        handle.digest,
    )
