"""The option that makes reading a log an entry of that log, for every command that reads one."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

Command = TypeVar("Command", bound=Callable[..., Any])


def access_option(command: Command) -> Command:
    """Add ``--record-access`` (parameter ``record_access``); the keys come from the command's ``--keys``."""
    return click.option(
        "--record-access", is_flag=True, help="First write into the log that, and by whom, it is read."
    )(command)


def record(directory: Path, keys: Path | None, filters: dict[str, Any]) -> None:
    """Make it durable that somebody reads with these filters. Raises LogLockedError, ConfigurationError."""
    from vram_residency.audit.log import AuditLogger
    from vram_residency.audit.store.directory import Directory

    config, _ = Directory(directory).read_config()
    with AuditLogger.open(directory, service_id=config.service_id, keys=keys) as logger:
        logger.record_access(**filters)
