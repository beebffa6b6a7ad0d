"""How commands reach the running worker: the options, and a client made of them (spec: cli.md)."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

if TYPE_CHECKING:
    from vram_residency.worker.client import WorkerClient

Command = TypeVar("Command", bound=Callable[..., Any])


def worker_option(command: Command) -> Command:
    """Give the command a parameter ``worker``: a client of the worker that the options name."""

    @wraps(command)
    def connected(*arguments: Any, **parameters: Any) -> Any:
        ways = {name: parameters.pop(name) for name in ("socket", "url", "token_file", "ca", "cert")}
        with _client(**ways) as worker:
            return command(*arguments, worker=worker, **parameters)

    path = click.Path(path_type=Path)
    options = (
        click.option(
            "--socket",
            metavar="PATH",
            type=path,
            help="The worker's Unix socket [default: $XDG_RUNTIME_DIR/vram/worker.sock].",
        ),
        click.option("--url", metavar="URL", help="A worker over TCP: https://HOST:PORT."),
        click.option("--token-file", metavar="F", type=path, help="The bearer token for it, in a 0600 file."),
        click.option("--ca", metavar="F", type=path, help="Whom to trust over TCP: certificates, PEM."),
        click.option("--cert", metavar="F", type=path, help="One's own key and certificate, PEM (mTLS)."),
    )
    decorated: Any = connected
    for option in reversed(options):
        decorated = option(decorated)
    result: Command = decorated
    return result


def _client(
    *, socket: Path | None, url: str | None, token_file: Path | None, ca: Path | None, cert: Path | None
) -> WorkerClient:
    from vram_residency.core.keys import read_secret_file
    from vram_residency.worker.address import Address
    from vram_residency.worker.client import WorkerClient

    token = None if token_file is None else read_secret_file(token_file)
    return WorkerClient(Address(socket=socket, url=url, token=token, authority=ca, certificate=cert))
