"""Where the worker's socket lies by default: one place for the daemon and for its clients."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Final

from vram_residency.core.errors import ConfigurationError

SOCKET_VARIABLE: Final = "VRAM_LISTEN_SOCKET"


def default_socket(environ: Mapping[str, str]) -> Path:
    """``$VRAM_LISTEN_SOCKET``, else ``$XDG_RUNTIME_DIR/vram/worker.sock``. Raises ConfigurationError."""
    if named := environ.get(SOCKET_VARIABLE):
        return Path(named)
    if runtime := environ.get("XDG_RUNTIME_DIR"):
        return Path(runtime) / "vram" / "worker.sock"
    raise ConfigurationError(
        "listen.socket",
        "is not set, and neither is XDG_RUNTIME_DIR",
        hint=f"Name a socket in a directory of your own: set {SOCKET_VARIABLE}, or --socket.",
    )
