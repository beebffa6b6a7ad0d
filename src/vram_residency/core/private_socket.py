"""Unix sockets that only their owner can reach, and what the kernel says about who is at the other end."""

from __future__ import annotations

import os
import socket
import stat
import struct
from pathlib import Path
from typing import Final

from vram_residency.core.errors import ConfigurationError

_CREDENTIALS: Final = struct.Struct("3i")


def listen(path: Path, *, setting: str, use: str, backlog: int = 16) -> socket.socket:
    """Listen at ``path``: mode 0600, in a directory that only its owner can enter (made if missing).

    What a killed process left there is taken away; a living one keeps its place. ``setting`` and ``use``
    (what a listener does, in the third person) are for the messages. Raises ConfigurationError.
    """
    if not hasattr(socket, "SO_PEERCRED"):
        raise ConfigurationError(setting, "this system cannot tell who asks (SO_PEERCRED)")
    require_private_directory(path.parent, setting=setting)
    _clear(path, setting=setting, use=use)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        listener.bind(os.fspath(path))
        path.chmod(0o600)
        listener.listen(backlog)
    except OSError as error:
        listener.close()
        raise ConfigurationError(setting, f"cannot listen at {path}: {error.strerror or error}") from None
    return listener


def require_private_directory(directory: Path, *, setting: str) -> None:
    """Make sure of a directory that only its owner can enter. Raises ConfigurationError.

    The directory is the lock on the door: a socket's own mode comes too late, and not everywhere.
    """
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        found = directory.stat()
    except OSError as error:
        raise ConfigurationError(setting, f"cannot use {directory}: {error.strerror}") from None
    if found.st_uid != os.getuid() or stat.S_IMODE(found.st_mode) & 0o077:
        raise ConfigurationError(
            setting, f"{directory} is open to other users", hint=f"Run: chmod 700 {directory}"
        )


def peer_of(connection: socket.socket) -> tuple[int, int]:
    """The other side's process and user id when it connected (SO_PEERCRED). Raises OSError.

    Descriptors travel and process ids are used again: the user id alone may decide anything.
    """
    raw = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
    pid, uid, _gid = _CREDENTIALS.unpack(raw)
    return pid, uid


def _clear(path: Path, *, setting: str, use: str) -> None:
    if not path.is_socket():
        return
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        try:
            probe.connect(os.fspath(path))
        except OSError:
            path.unlink(missing_ok=True)
            return
    raise ConfigurationError(setting, f"another process {use} at {path} already", hint="Choose another path.")
