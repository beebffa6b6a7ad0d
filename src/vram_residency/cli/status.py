"""``vram status``: the running worker in a few lines."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from vram_residency.cli import output
from vram_residency.cli.connection import worker_option
from vram_residency.cli.errors import ExitCode
from vram_residency.cli.options import json_option

if TYPE_CHECKING:
    from vram_residency.worker.client import WorkerClient
    from vram_residency.worker.wire import Status

LOOKS = {"ready": "green", "executing": "green", "stopped": "red"}


@click.command()
@worker_option
@json_option
def status(*, worker: WorkerClient, as_json: bool) -> ExitCode:
    """Show the state of the running worker.

    The exit code is 1 where it has stopped: a seal was broken, or the policy.

    \b
    Example:
      vram status
    """
    found = worker.status()
    if as_json:
        output.document(found)
    else:
        for text in lines(found):
            output.line(text)
    return ExitCode.NO if found.state == "stopped" else ExitCode.DONE


def lines(found: Status) -> list[str]:
    """The worker for people: state, device, room."""
    capacity = found.capacity
    state = output.style(found.state.upper(), LOOKS.get(found.state, "yellow"))
    reason = f": {output.safe(found.reason)}" if found.reason else ""
    plural = "" if found.shards == 1 else "s"
    room = f"{output.size(capacity.available_bytes)} available of {output.size(capacity.total_bytes)}"
    return [
        f"{output.style(output.safe(found.worker_id), 'bold')} is {state}{reason}",
        f"  device  {output.safe(found.device)} ({output.safe(found.device_uuid)})",
        f"  shards  {found.shards} shard{plural} in {output.size(capacity.used_bytes)}, {room}",
        f"  runs    {found.executions} now, version {output.safe(found.version)}, up {_age(found.uptime_s)}",
    ]


def _age(seconds: float) -> str:
    minutes, hours = divmod(int(seconds) // 60, 60)[::-1]
    days, hours = divmod(hours, 24)
    return f"{days} d {hours} h" if days else f"{hours} h {minutes} min" if hours else f"{minutes} min"
