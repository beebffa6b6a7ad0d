"""``vram devices``: what could hold a shard here, how much of it, and what the policy says of it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

import click

from vram_residency.cli import output
from vram_residency.cli.errors import ExitCode
from vram_residency.cli.options import json_option, policy_option

if TYPE_CHECKING:
    from vram_residency.device.base import Device

Mode = Literal["strict", "development"]
_BACKINGS = {
    "memfd": "memfd, sealed by the kernel",
    "device": "of the device, read-only once sealed",
    "anonymous": "anonymous mapping: weaker, the process itself can undo it",
}
_VERDICTS = {
    "allowed": "allowed",
    "allowed_by_configuration": "allowed by configuration, with findings",
    "refused": "refused by policy",
}
_LOOKS = {"allowed": "green", "allowed_by_configuration": "yellow", "refused": "red"}


@click.command()
@policy_option
@json_option
def devices(*, policy: Mode | None, as_json: bool) -> ExitCode:
    """Show the devices, their capacity and the policy's verdict.

    \b
    Example:
      vram devices
      vram devices --policy strict --json

    The exit code is 3 where the policy allows none of them.
    """
    rows, notes = _looked_at(policy)
    if as_json:
        output.document({"devices": rows, "notes": notes})
    else:
        _print(rows, notes)
    is_any_allowed = any(row["policy"]["verdict"] != "refused" for row in rows)
    return ExitCode.DONE if is_any_allowed else ExitCode.POLICY


def _looked_at(policy: Mode | None) -> tuple[list[dict[str, Any]], list[str]]:
    """A row for each device that can be opened, and a note where the kernel shows cards that cannot."""
    from vram_residency.core.errors import DeviceLostError
    from vram_residency.device import card_numbers, has_nvidia_device, open_device

    rows, notes = [], []
    cards = [f"cuda:{number}" for number in card_numbers()]
    # With a card, or what is left of one, opening it says what is wrong.
    if not cards and has_nvidia_device():
        cards = ["cuda:0"]
    for name in ("host", *cards):
        try:
            device = open_device(name)
            default: Mode = "development" if name == "host" else "strict"
            rows.append(_describe(device, policy or default))
            device.close()
        except DeviceLostError as error:
            notes.append(f"An NVIDIA device is present, and {error}. {error.hint}")
    return rows, notes


def _describe(device: Device, mode: Mode) -> dict[str, Any]:
    from vram_residency.policy.rules import Limits, judge_device
    from vram_residency.policy.verdict import Policy, decide

    facts = device.facts()
    verdict = decide(judge_device(facts, Limits()), Policy(mode=mode))
    answer = "refused" if verdict.refused else "allowed_by_configuration" if verdict.tolerated else "allowed"
    findings = (*verdict.refused, *verdict.tolerated)
    return {
        "device": device.info.kind if device.info.kind == "host" else f"cuda:{device.info.index}",
        "name": device.info.name,
        "uuid": device.info.uuid,
        "total_bytes": device.total_bytes,
        "headroom_bytes": device.headroom_bytes,
        "policy": {
            "mode": mode,
            "verdict": answer,
            "reasons": [{"violation": each.violation, "details": each.details} for each in findings],
        },
        "facts": facts,
    }


def _print(rows: list[dict[str, Any]], notes: list[str]) -> None:
    for row in rows:
        policy, backing = row["policy"], str(row["facts"].get("backing", "device"))
        verdict = output.style(_VERDICTS[policy["verdict"]], _LOOKS[policy["verdict"]])
        output.line(f"{output.style(row['device'], 'bold')}: {verdict}")
        output.line(f"  name      {output.safe(row['name'])}")
        output.line(f"  capacity  {output.size(row['total_bytes'])}")
        output.line(f"  memory    {output.safe(_BACKINGS.get(backing, backing))}")
        output.line(f"  policy    {policy['mode']}")
        for reason in policy["reasons"]:
            output.line(f"  finding   {output.safe(reason['violation'])}:")
            output.line(f"    {output.safe(reason['details'])}")
    for text in notes:
        output.line(text)
    if any(row["policy"]["verdict"] != "refused" for row in rows):
        output.advice("`vram check MODEL` seals a model there and verifies it.")
    else:
        output.advice("--policy development goes on, and records what is amiss.")
