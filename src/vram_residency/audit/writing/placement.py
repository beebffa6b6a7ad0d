"""Warnings about where a log's keys lie (spec: audit-log.md section 1)."""

from __future__ import annotations

import warnings
from pathlib import Path


class KeyPlacementWarning(UserWarning):
    """The log's keys lie where they should not stay."""


def warn_of_default_keys(folder: Path) -> None:
    """To be called by what the user called."""
    warnings.warn(
        f"the keys of this audit log lie beside it, in {folder}: move them to a place that readers of the "
        "log cannot reach, and name that with --keys, or keys= in a program",
        KeyPlacementWarning,
        stacklevel=3,
    )


def warn_of_genesis_key(folder: Path) -> None:
    """To be called by what the user called."""
    warnings.warn(
        f"a new audit log was made and its genesis key kept in {folder}: who reads it can forge every entry; "
        "move genesis.key off this machine (for production use `vram audit init`)",
        KeyPlacementWarning,
        stacklevel=3,
    )
