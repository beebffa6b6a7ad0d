"""``vram verify``: have the running worker verify its shards, now."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

import click

from vram_residency.cli import output
from vram_residency.cli.connection import worker_option
from vram_residency.cli.errors import ExitCode, describe
from vram_residency.cli.options import json_option

if TYPE_CHECKING:
    from vram_residency.core.errors import WorkerRefusedError
    from vram_residency.worker.client import WorkerClient
    from vram_residency.worker.wire import Verified

Scope = Literal["full", "fast", "sample"]
_CONFLICT = 409


@click.command()
@click.argument("shard_id", metavar="[ID]", required=False)
@click.option("--all", "is_all", is_flag=True, help="Every shard that the worker holds.")
@click.option(
    "--scope",
    type=click.Choice(["full", "fast", "sample"]),
    default="full",
    show_default=True,
    help="How much of it to read.",
)
@worker_option
@json_option
def verify(
    shard_id: str | None, *, is_all: bool, scope: Scope, worker: WorkerClient, as_json: bool
) -> ExitCode:
    """Have the worker verify a shard, or all of them, now.

    The exit code is 1 where one is not what was sealed; the worker then has stopped.

    \b
    Example:
      vram verify m1
      vram verify --all --scope sample --json
    """
    if is_all == (shard_id is not None):
        raise click.UsageError("name a shard, or all of them with --all")
    names = [handle.handle_id for handle in worker.shards()] if shard_id is None else [shard_id]
    results = [_verify(worker, name, scope) for name in names]
    is_good = all(result["verified"] for result in results)
    if as_json:
        alone = results[0] if shard_id is not None else {}
        output.document({"verified": is_good, "shards": results, **alone})
    else:
        for result in results:
            _print(result)
        if not results:
            output.line("The worker holds no shard.")
    return ExitCode.DONE if is_good else ExitCode.NO


def _verify(worker: WorkerClient, name: str, scope: Scope) -> dict[str, Any]:
    """What came of it; a shard that is not what was sealed is a result, any other refusal is raised."""
    from vram_residency.core.errors import WorkerRefusedError

    try:
        return {"verified": True, **_fields(worker.verify(name, scope))}
    except WorkerRefusedError as error:
        if not _is_verdict(error):
            raise
        return {"verified": False, "handle_id": name, **describe(error).document()}


def _is_verdict(error: WorkerRefusedError) -> bool:
    """Whether this speaks of the shard: it is damaged, or was found so before (409)."""
    return error.code == "SEAL_VERIFICATION_FAILED" or error.status == _CONFLICT


def _fields(result: Verified) -> dict[str, Any]:
    import msgspec

    fields: dict[str, Any] = msgspec.to_builtins(result)
    return fields


def _print(result: dict[str, Any]) -> None:
    name = output.safe(result["handle_id"])
    if not result["verified"]:
        output.line(f"{output.style('NOT VERIFIED', 'red')} {name}")
        output.line(f"  {output.safe(result['error']['message'])}")
        output.line(f"  {output.safe(result['error']['hint'])}")
        return
    from vram_residency.narration import units

    took = units.milliseconds(result["duration_s"] * 1e3)
    read = f"{output.size(result['bytes_checked'])} read in {took}"
    output.line(f"{output.style('VERIFIED', 'green')} {name}: {result['scope']}, {read}")
    if result["miss_probability"]:
        output.line(f"  one damaged group would have been missed with probability {_share(result)}")


def _share(result: dict[str, Any]) -> str:
    return f"{result['miss_probability']:.3g}"
