"""``vram audit``: make, fill, verify and read audit logs (spec: cli.md)."""

from __future__ import annotations

from pathlib import Path

import click

from vram_residency.cli import output
from vram_residency.cli.lazy import LazyGroup
from vram_residency.cli.options import json_option, signer_option

#: Command → (module, the first line of its docstring).
COMMANDS = {
    "init": ("vram_residency.cli.audit", "Make a log and its keys."),
    "emit": ("vram_residency.cli.audit_emit", "Append events read as lines of JSON from stdin."),
    "verify": ("vram_residency.cli.audit_verify", "Check every byte of a log and give a verdict."),
    "query": ("vram_residency.cli.audit_query", "Show the entries that pass filters."),
    "show": ("vram_residency.cli.audit_query", "Explain one entry."),
    "prove": (
        "vram_residency.cli.audit_prove",
        "Prove that an entry is in the log, or that the log only grew.",
    ),
    "publish": (
        "vram_residency.cli.audit_publish",
        "Lay out checkpoint, tiles and entries for a static file server (C2SP tlog-tiles).",
    ),
    "keys": ("vram_residency.cli.audit_keys", "Show the keys of a log, or replace its log key."),
    "witness": (
        "vram_residency.cli.audit_witness",
        "Have a C2SP witness cosign the newest checkpoint, and keep its cosignature.",
    ),
    "archive": (
        "vram_residency.cli.audit_archive",
        "Compress old segments; every command reads them as before.",
    ),
    "prune": (
        "vram_residency.cli.audit_prune",
        "Remove old segments, on the record: the log still verifies.",
    ),
    "export": (
        "vram_residency.cli.audit_export",
        "Export entries for other systems, each with the log's origin, its index and its leaf hash.",
    ),
    "report": ("vram_residency.cli.audit_report", "Set the log's evidence beside a standard's controls."),
}


@click.group(cls=LazyGroup, table=COMMANDS, invoke_without_command=True)
@click.pass_context
def audit(context: click.Context) -> None:
    """Make, fill, verify and read audit logs.

    \b
    Example:
      vram audit init ./audit --service worker-gpu-0
      echo '{"event_type":"seal_verified","shard_id":"s","worker_id":"w"}' |
        vram audit emit ./audit
      vram audit verify ./audit
    """
    if context.invoked_subcommand is None:
        output.line(context.get_help())


@click.command()
@click.argument("directory", metavar="DIR", type=click.Path(path_type=Path))
@click.option(
    "--service",
    "service_id",
    metavar="NAME",
    help="Who writes the log: A-Z a-z 0-9 . _ - [with --fork: as OLD].",
)
@click.option(
    "--keys", metavar="DIR", type=click.Path(path_type=Path), help="Folder for the keys [default: DIR.keys]."
)
@click.option(
    "--keep-genesis", is_flag=True, help="Keep K_0 in the key folder too (whoever reads it can forge)."
)
@signer_option
@click.option(
    "--fork",
    metavar="OLD",
    type=click.Path(path_type=Path),
    help="Go on from the log OLD, which was copied or restored here: its size and root are recorded.",
)
@json_option
def init(
    directory: Path,
    *,
    service_id: str | None,
    keys: Path | None,
    keep_genesis: bool,
    signer: str,
    fork: Path | None,
    as_json: bool,
) -> None:
    """Make a log and its keys.

    Prints the public key, which auditors need, and once K_0, which proves every entry to its last byte.

    \b
    Example:
      vram audit init ./audit --service worker-gpu-0 --keys /etc/vram/audit-keys
      vram audit init ./audit-2 --fork ./restored/audit
    """
    from vram_residency.audit.writing.creation import create_log

    service = service_id or _service_of(fork)
    new = create_log(
        directory, service_id=service, keys=keys, keep_genesis=keep_genesis, signer=signer, fork=fork
    )
    if as_json:
        document = {"origin": new.origin, "vkey": new.vkey, "mac_genesis_key": new.mac_genesis_key}
        output.document(document)
        return
    place, folder = output.safe(str(directory)), output.safe(str(keys or f"{directory}.keys"))
    output.line(f"{output.style('Made', 'bold')} the audit log {place}, its keys in {folder}")
    output.line(f"  origin  {new.origin}")
    output.line(f"  vkey    {new.vkey}")
    output.line(f"  K_0     {new.mac_genesis_key}")
    output.line()
    kept = "It is also kept in the key folder: move it away." if keep_genesis else "It is kept nowhere."
    output.line(f"Keep K_0 off this machine now; it will not be shown again. {kept}")
    output.line("Give the vkey to those who will verify the log: vram audit verify DIR --vkey VKEY")
    if keys is None:
        output.line("The keys lie beside the log: move them to where readers of the log cannot reach them,")
        output.line("and name that folder with --keys from then on.")


def _service_of(fork: Path | None) -> str:
    """The service of the log to go on from."""
    from vram_residency.audit.store.directory import Directory

    if fork is None:
        raise click.UsageError("Missing option '--service'.")
    config, _ = Directory(fork).read_config()
    return config.service_id
