"""The file of bearer tokens: a new one is added at its end; the file never holds a token itself."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path
from typing import cast

from vram_residency.core.errors import ConfigurationError
from vram_residency.core.keys import fingerprint, read_secret_file
from vram_residency.worker.caller import Scope
from vram_residency.worker.tokens import new_token, parse_tokens, table_of


def add_token(path: Path, *, name: str, scopes: Iterable[str], expires: str | None) -> tuple[str, str]:
    """Make a token, keep its hash in the file, and return it with its fingerprint.

    Raises ConfigurationError where the file is open to others, or would not be one of tokens any more.
    """
    before = read_secret_file(path) + "\n\n" if path.exists() else ""
    token = new_token()
    text = before + table_of(name, token, frozenset(cast("Iterable[Scope]", scopes)), expires)
    parse_tokens(text)
    beside = path.with_name(f"{path.name}.new")
    try:
        descriptor = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        beside.replace(path)
    except OSError as error:
        raise ConfigurationError(str(path), f"cannot be written: {error.strerror}") from None
    return token, fingerprint(token)
