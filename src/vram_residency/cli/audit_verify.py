"""``vram audit verify``: one verdict in one sentence, and what to do next."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Unpack

import click

from vram_residency.cli import output
from vram_residency.cli.errors import ExitCode
from vram_residency.cli.options import json_option
from vram_residency.cli.trust import TrustOptions, read_trust, trust_options

if TYPE_CHECKING:
    from vram_residency.audit.reading.verdict import Verdict

_TRUST = {
    "given": "by the key you gave",
    "local": "by this machine's own keys",
    "self-asserted": "by nothing but the key that the log itself names",
}
_LOOKS = {"intact": "green", "pruned": "green", "unverifiable": "yellow"}
_NEXT = {
    "tampered": "Keep the directory as evidence and find out who could write to it; open a new log.",
    "truncated": "Keep the directory as evidence and look for the missing entries in backups.",
    "unsealed": "Ask why no epoch was closed in that time: was the writer stopped, or its clock moved?",
    "unverifiable": "Get the vkey or K_0 from whoever made the log: --vkey V or --mac-key-file F.",
}


@click.command()
@click.argument("directory", metavar="DIR", type=click.Path(path_type=Path))
@trust_options
@json_option
def verify(
    directory: Path,
    *,
    as_json: bool,
    **trust: Unpack[TrustOptions],
) -> ExitCode:
    """Check every byte of a log and give a verdict.

    Exit code 0: intact or pruned. 1: tampered, truncated or unsealed. 5: unverifiable.

    \b
    Example:
      vram audit verify ./audit
      vram audit verify ./audit --vkey worker-gpu-0/…+…+… --checkpoint saved
    """
    from vram_residency.audit.reading.verification import verify as verify_log

    given = read_trust(**trust)
    with output.progress("Checking entries") as advance:
        verdict = verify_log(directory, **given, on_progress=advance)
    if as_json:
        output.document(verdict)
    else:
        _print(verdict)
    return ExitCode(verdict.exit_code)


def _print(verdict: Verdict) -> None:
    word = output.style(verdict.verdict.upper(), _LOOKS.get(verdict.verdict, "red"))
    output.line(f"{word} {output.safe(_sentence(verdict))}")
    output.line()
    for name, value in _facts(verdict):
        output.line(f"  {output.style(name.ljust(11), 'dim')} {output.safe(value)}")
    if advice := _advice(verdict):
        output.line()
        output.advice(advice)


def _sentence(verdict: Verdict) -> str:
    count = _count(verdict.entries, "entry", "entries")
    if verdict.first_bad is not None:
        bad = verdict.first_bad
        where = "" if bad.index is None else f" at entry {bad.index}"
        place = (
            ""
            if bad.file is None
            else f" ({bad.file}" + (")" if bad.offset is None else f", byte {bad.offset})")
        )
        return f"{_TRUST[verdict.trust]}{where}{place}: {bad.reason}."
    if verdict.verdict == "unverifiable":
        trust = f"consistent, but vouched for {_TRUST[verdict.trust]}"
        return f"- {count}, {trust}: anybody could have made such a log."
    vouched = verdict.entries - verdict.unvouched_entries
    if verdict.unvouched_entries:
        after = f"; {verdict.unvouched_entries} after the checkpoint are not vouched for"
        return f"{_TRUST[verdict.trust]}: {vouched} of {count} are as they were written{after}."
    return f"{_TRUST[verdict.trust]}: {count}, each as it was written."


def _facts(verdict: Verdict) -> list[tuple[str, str]]:
    checked = ", ".join(f"{name} {'yes' if done else 'no'}" for name, done in _checked(verdict).items())
    facts = [
        ("origin", verdict.origin or "unknown"),
        ("entries", str(verdict.entries)),
        ("root", verdict.root_hash or "unknown"),
        ("checked", checked if verdict.checked.mac else f"{checked} (each entry's mac needs K_0)"),
        (
            "unprotected",
            f"{verdict.unprotected_entries} that the owner of machine and keys could still rewrite",
        ),
    ]
    if verdict.recovered_entries:
        facts.append(
            ("recovered", f"{verdict.recovered_entries} written after a crash, not yet authenticated at it")
        )
    if verdict.pruned is not None:
        gone = verdict.pruned
        where = f"recorded {gone.recorded_at} at entry {gone.record_index}"
        facts.append(("pruned", f"entries 0 to {gone.next_index - 1}, {where}"))
        facts.append(("policy", gone.policy))
    if verdict.torn_bytes:
        facts.append(("torn", f"{verdict.torn_bytes} bytes of an unfinished last line, which is no entry"))
    return facts


def _checked(verdict: Verdict) -> dict[str, bool]:
    checked = verdict.checked
    return {"mac": checked.mac, "tree": checked.tree, "checkpoint": checked.checkpoint}


def _advice(verdict: Verdict) -> str | None:
    if verdict and verdict.unprotected_entries:
        return "Keep a copy of the file 'checkpoint' on another machine and verify with --checkpoint."
    if verdict.verdict == "tampered" and verdict.trust == "given" and not any(_checked(verdict).values()):
        return f"Make sure that the key is this log's own. If it is: {_NEXT['tampered']}"
    return _NEXT.get(verdict.verdict)


def _count(number: int, one: str, many: str) -> str:
    return f"{number} {one if number == 1 else many}"
