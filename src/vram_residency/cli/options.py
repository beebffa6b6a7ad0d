"""Options that several commands share, so that one name means one thing everywhere."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import click

Command = TypeVar("Command", bound=Callable[..., Any])


def json_option(command: Command) -> Command:
    """Add ``--json`` (parameter ``as_json``) and ``--debug`` (read by ``main`` alone)."""
    with_json = click.option("--json", "as_json", is_flag=True, help="JSON on stdout, for programs.")
    with_debug = click.option(
        "--debug", is_flag=True, expose_value=False, help="Show the traceback where the command fails."
    )
    return with_json(with_debug(command))


def signer_option(command: Command) -> Command:
    """Add ``--signer`` (parameter ``signer``, default ``file``): where the private log key lies."""
    return click.option(
        "--signer",
        default="file",
        show_default=True,
        metavar="S",
        help="Where the log key lies: file, or ssh-agent:SHA256:… for an Ed25519 key in an ssh-agent.",
    )(command)


def device_option(command: Command) -> Command:
    """Add ``--device`` (parameter ``device``, default ``auto``)."""
    return click.option(
        "--device",
        default="auto",
        show_default=True,
        metavar="NAME",
        help="host, cuda:N, or auto: the host where there is no NVIDIA device.",
    )(command)


def policy_option(command: Command) -> Command:
    """Add ``--policy`` (parameter ``policy``, None where the device's own default applies)."""
    return click.option(
        "--policy",
        type=click.Choice(["strict", "development"]),
        default=None,
        help="strict refuses memory that is not device memory; development records it and goes on.",
    )(command)


def narration_option(command: Command) -> Command:
    """Add ``--narrate LEVEL``, which takes effect at once: narration on stderr, mute by default."""

    def configure(_context: click.Context, _parameter: click.Parameter, level: str) -> str:
        from vram_residency import narration

        narration.configure(level=level)
        return level

    return click.option(
        "--narrate",
        type=click.Choice(["mute", "debug", "info", "warn", "error"]),
        default="mute",
        show_default=True,
        expose_value=False,
        callback=configure,
        help="Tell what happens, in sentences on stderr.",
    )(command)
