"""``vram audit keys``: what keys a log has, where they lie, and how the log key is replaced."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from vram_residency.cli import output
from vram_residency.cli.options import json_option, signer_option

if TYPE_CHECKING:
    from vram_residency.audit.store.key_report import KeyReport


class _KeysGroup(click.Group):
    """A group that takes a directory for the command ``show``."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """As click does, with ``show`` put before what is not a command."""
        if args and args[0] not in {*self.commands, *ctx.help_option_names}:
            args = ["show", *args]
        return super().parse_args(ctx, args)

    def collect_usage_pieces(self, ctx: click.Context) -> list[str]:
        """How it is called."""
        del ctx
        return ["DIR | COMMAND DIR"]


def _keys_option(command: Any) -> Any:
    return click.option(
        "--keys", metavar="DIR", type=click.Path(path_type=Path), help="The key folder [default: DIR.keys]."
    )(command)


@click.group(cls=_KeysGroup, invoke_without_command=True)
@click.pass_context
def keys(context: click.Context) -> None:
    """Show the keys of a log, or replace its log key.

    \b
    Example:
      vram audit keys ./audit --keys /etc/vram/audit-keys
      vram audit keys rotate ./audit --keys /etc/vram/audit-keys
    """
    if context.invoked_subcommand is None:
        output.line(context.get_help())


@keys.command()
@click.argument("directory", metavar="DIR", type=click.Path(path_type=Path))
@_keys_option
@json_option
def show(directory: Path, *, keys: Path | None, as_json: bool) -> None:
    """Show the keys, where they lie, and what is amiss.

    \b
    Example:
      vram audit keys show ./audit
    """
    from vram_residency.audit.store.key_report import report_keys

    report = report_keys(directory, keys)
    if as_json:
        output.document(report)
    else:
        _print(directory, report)


@keys.command()
@click.argument("directory", metavar="DIR", type=click.Path(path_type=Path))
@_keys_option
@signer_option
@json_option
def rotate(directory: Path, *, keys: Path | None, signer: str, as_json: bool) -> None:
    """Let a new log key follow the old one, and destroy the old one.

    The old key signs the change, both sign the next checkpoint: whoever knows the old vkey can follow.
    The log must not be open elsewhere; a running service calls AuditLogger.rotate_key().

    \b
    Example:
      vram audit keys rotate ./audit
      vram audit keys rotate ./audit --signer ssh-agent:SHA256:…
    """
    import warnings

    from vram_residency.audit import AuditLogger, KeyPlacementWarning
    from vram_residency.audit.store.directory import Directory
    from vram_residency.audit.writing.options import LogOptions

    config, _ = Directory(directory).read_config()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", KeyPlacementWarning)  # `vram audit keys` says it
        logger = AuditLogger.open(
            directory, service_id=config.service_id, keys=keys, options=LogOptions(background=False)
        )
    with logger:
        vkey = logger.rotate_key(signer)
    if as_json:
        output.document({"origin": config.origin, "old_vkey": config.vkeys[-1], "new_vkey": vkey})
        return
    output.line(f"{output.style('Rotated', 'bold')} the log key of {output.safe(str(directory))}")
    output.line(f"  old vkey  {config.vkeys[-1]}")
    output.line(f"  new vkey  {vkey}")
    output.line()
    output.advice("Give the new vkey to those who verify, and to the operators of witnesses.")


def _print(directory: Path, report: KeyReport) -> None:
    output.line(f"{output.style('Keys', 'bold')} of {output.safe(report.origin)}")
    output.line()
    for key in report.vkeys:
        output.line(f"  {key.vkey}")
        state = "signs now" if key.is_current else "replaced"
        output.line(f"    {state}, key ID {key.key_id}, {key.fingerprint}")
    if report.parent is not None:
        parent = report.parent
        output.line(f"  goes on from {output.safe(parent.origin)} at {parent.tree_size} entries")
    output.line()
    output.line(f"  {output.safe(report.folder)}")
    for file in report.files:
        purpose = file.purpose
        if file.name == "log.key" and report.signer == "ssh-agent":
            purpose = "names the key in an ssh-agent that signs checkpoints"
        output.line(f"    {file.name.ljust(13)} {file.mode}  {purpose}")
    output.line()
    for warning in report.warnings:
        output.line(f"{output.style('Warning:', 'yellow')} {output.safe(warning)}")
    if not report.warnings:
        output.advice(f"Give the newest vkey to those who verify: vram audit verify {directory} --vkey VKEY")
