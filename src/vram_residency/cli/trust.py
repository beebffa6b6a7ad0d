"""The options that say which keys and checkpoints count, for all commands that verify a log."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypedDict, TypeVar

import click

from vram_residency.cli import output

Command = TypeVar("Command", bound=Callable[..., Any])


class TrustOptions(TypedDict):
    """What ``trust_options`` adds to a command's parameters."""

    vkey: str | None
    mac_key_file: Path | None
    checkpoint: Path | None
    keys: Path | None


class Trust(TypedDict):
    """The same as ``verify`` takes it."""

    vkey: str | None
    mac_key: bytes | None
    checkpoint: bytes | None
    keys: Path | None


def trust_options(command: Command) -> Command:
    """Add ``--vkey``, ``--mac-key-file``, ``--checkpoint`` and ``--keys``."""
    path = click.Path(path_type=Path)
    for option in (
        click.option(
            "--keys", metavar="DIR", type=path, help="This machine's key folder [default: DIR.keys]."
        ),
        click.option("--checkpoint", metavar="F", type=path, help="A checkpoint kept elsewhere."),
        click.option("--mac-key-file", metavar="F", type=path, help="File with K_0, 64 hex digits."),
        click.option("--vkey", metavar="V", help="The log's public key, name+hash+base64."),
    ):
        command = option(command)
    return command


def read_trust(
    *, vkey: str | None, mac_key_file: Path | None, checkpoint: Path | None, keys: Path | None
) -> Trust:
    """Read the files that were named. Raises OSError."""
    from vram_residency.audit.reading import source as reading

    return {
        "vkey": vkey,
        "mac_key": None if mac_key_file is None else _read_mac_key(mac_key_file),
        "checkpoint": None if checkpoint is None else reading.read_small(checkpoint),
        "keys": keys,
    }


def _read_mac_key(path: Path) -> bytes:
    from vram_residency.audit.reading import source as reading
    from vram_residency.core.errors import ConfigurationError
    from vram_residency.core.keys import require_private

    data = reading.read_small(path)
    try:
        require_private(path, mode=0o600)
    except ConfigurationError as error:
        # An auditor's own copy: worth a word, not a refusal.
        output.note(
            f"vram: warning: {output.safe(str(error))}: who reads K_0 can forge. {output.safe(error.hint)}"
        )
    return data
