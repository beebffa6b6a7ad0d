"""``vram serve``: the worker daemon, its configuration checked, its tokens made."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from vram_residency.cli import output
from vram_residency.cli.errors import ExitCode
from vram_residency.cli.options import json_option

if TYPE_CHECKING:
    from vram_residency.config.settings import Settings
    from vram_residency.config.starting import Listening

_NEEDS = "vram serve needs the extra `worker`"


@click.group(invoke_without_command=True)
@click.option("--config", "file", type=click.Path(path_type=Path), help="The TOML file of settings.")
@click.option(
    "--check-config", "is_check", is_flag=True, help="Say whether the settings are in order, and end."
)
@click.option("--socket", metavar="PATH", help="The Unix socket (listen.socket).")
@click.option("--audit", metavar="DIR", help="The audit log (audit.directory).")
@click.option("--device", metavar="NAME", help="host, cuda:N or auto (worker.device).")
@click.option("--policy", metavar="MODE", help="strict or development (worker.policy).")
@click.option("--model-root", metavar="DIR", help="Where models may come from (worker.model_roots).")
@click.option(
    "--set", "assignments", metavar="KEY=VALUE", multiple=True, help="Any setting; may be repeated."
)
@json_option
@click.pass_context
def serve(
    context: click.Context,
    /,
    *,
    file: Path | None,
    is_check: bool,
    assignments: tuple[str, ...],
    as_json: bool,
    **named: str | None,
) -> ExitCode | None:
    """Run the worker daemon; SIGTERM drains it.

    \b
    Example:
      vram audit init ./audit --service worker
      vram serve --config worker.toml
      vram serve --config worker.toml --check-config

    Settings come from the file, then VRAM_… variables, then options. Without TCP it answers on a Unix socket
    that this user alone can reach.
    """
    if context.invoked_subcommand is not None:
        return None
    _require_extra()
    from vram_residency.config import starting
    from vram_residency.config.reading import parse_assignments, read_settings

    flags: dict[str, Any] = {**parse_assignments(assignments), **_dotted(named)}
    settings = read_settings(file, environ=os.environ, flags=flags)
    if is_check:
        starting.check(settings)
        _report(settings, as_json=as_json)
        return ExitCode.DONE
    is_drained = starting.serve(settings, lambda listening: _announce(listening, as_json=as_json))
    if not is_drained:
        # Threads that still compute would keep the interpreter: nothing waits for them any more.
        sys.stdout.flush()
        output.note("vram: warning: the worker ended before everything that ran could finish")
        os._exit(ExitCode.CANNOT_SAY)
    return ExitCode.DONE


@serve.command("new-token")
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--name", required=True, help="What names the token's holder in the log.")
@click.option(
    "--scope",
    "scopes",
    type=click.Choice(["read", "execute", "admin", "audit"]),
    multiple=True,
    required=True,
    help="What it is good for; may be repeated.",
)
@click.option("--expires", metavar="TIME", help="When it ends: an RFC 3339 time.")
@json_option
def new_token(file: Path, *, name: str, scopes: tuple[str, ...], expires: str | None, as_json: bool) -> None:
    """Add a bearer token for TCP to FILE (made 0600 if missing) and print it once.

    The file keeps its SHA-256 alone. A worker that runs reads the file at its next start.

    \b
    Example:
      vram serve new-token tokens.toml --name ci --scope read --scope execute
    """
    _require_extra()
    from vram_residency.config.token_file import add_token

    token, fingerprint = add_token(file, name=name, scopes=scopes, expires=expires)
    if as_json:
        output.document({"token": token, "name": name, "fingerprint": fingerprint, "file": str(file)})
        return
    output.line(token)
    output.note(
        f"Token {output.safe(name)} ({fingerprint}) is in {output.safe(str(file))}; it is not shown again."
    )


def _dotted(named: dict[str, str | None]) -> dict[str, str | None]:
    keys = {
        "socket": "listen.socket",
        "audit": "audit.directory",
        "device": "worker.device",
        "policy": "worker.policy",
        "model_root": "worker.model_roots",
    }
    return {keys[name]: value for name, value in named.items() if value is not None}


def _require_extra() -> None:
    from importlib.util import find_spec

    from vram_residency.core.errors import ConfigurationError

    if find_spec("litestar") is None or find_spec("uvicorn") is None:
        raise ConfigurationError("serve", f"{_NEEDS}", hint="Run: pip install 'vram-residency[worker]'")


def _report(settings: Settings, *, as_json: bool) -> None:
    import msgspec

    plain = msgspec.to_builtins(settings, enc_hook=str)
    if as_json:
        output.document({"valid": True, "settings": plain})
        return
    output.line("The settings are in order.")
    for section, values in plain.items():
        for key, value in values.items() if isinstance(values, dict) else ():
            output.line(f"  {output.safe(f'{section}.{key} = {value}')}")
    output.advice("`vram serve` with the same settings; `vram doctor` looks at the host.")


def _announce(listening: Listening, *, as_json: bool) -> None:
    if as_json:
        output.document({"pid": listening.pid, "socket": listening.socket, "tcp": listening.tcp})
    else:
        output.line(f"The worker answers at {output.safe(listening.socket)}")
        if listening.tcp is not None:
            output.line(f"  and at {listening.tcp}")
    sys.stdout.flush()
