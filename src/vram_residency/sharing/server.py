"""The lender's side: a Unix socket at which processes of the same user ask for sealed shards."""

from __future__ import annotations

import contextlib
import os
import socket
import stat
import threading
from collections.abc import Iterable
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from vram_residency.core.errors import ConfigurationError, InvalidInputError, VramError
from vram_residency.residency import VramManager
from vram_residency.residency.lender import Peer
from vram_residency.sharing import wire

_HANDSHAKE_S: Final = 5.0
_BACKLOG: Final = 16


class ShareServer:
    """Lends a manager's shards while it is open. Use it as a context manager; close it before the manager.

    path: of the socket, in a directory that only its owner can enter (made if missing).
    allowed_uids: user ids that may borrow; None is the user of this process. The kernel says who asks.
    Raises ConfigurationError where the place is not private or somebody listens there already.
    """

    def __init__(
        self,
        manager: VramManager,
        path: str | os.PathLike[str],
        *,
        allowed_uids: Iterable[int] | None = None,
    ) -> None:
        self.path: Final = Path(path)
        self._manager = manager
        self._allowed_uids = frozenset([os.getuid()] if allowed_uids is None else allowed_uids)
        self._is_closed = False
        self._lock = threading.Lock()  # guards _loans and _is_closed
        self._loans: dict[socket.socket, threading.Thread] = {}
        self._listener = _listen(self.path)
        self._thread = threading.Thread(target=self._accept, name="vram-share", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Take the socket away and end every loan; all have ended on this side when it returns.

        May be called again.
        """
        with self._lock:
            was_closed, self._is_closed = self._is_closed, True
        if was_closed:
            return
        # A listener that is only closed would leave its thread in accept().
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._thread.join()
        self.path.unlink(missing_ok=True)
        with self._lock:
            loans = dict(self._loans)
        for connection, thread in loans.items():
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
            thread.join()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        error_type: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"ShareServer({str(self.path)!r})"

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            loan = threading.Thread(target=self._serve, args=(connection,), name="vram-loan", daemon=True)
            with self._lock:
                self._loans[connection] = loan
            loan.start()

    def _serve(self, connection: socket.socket) -> None:
        """One loan from request to end. Whatever the borrower does, only its own connection suffers."""
        try:
            connection.settimeout(_HANDSHAKE_S)
            request = self._admitted(connection)
            self._lend(connection, request)
        except VramError as error:
            with contextlib.suppress(OSError):
                wire.send(connection, wire.Refusal(str(error)))
        except OSError:
            pass  # the borrower is gone, or silent
        finally:
            with self._lock:
                self._loans.pop(connection, None)
            connection.close()

    def _admitted(self, connection: socket.socket) -> wire.Request:
        """1. Who asks, 2. what for. Raises InvalidInputError."""
        # 1
        _, uid = wire.peer_of(connection)
        if uid not in self._allowed_uids:
            raise InvalidInputError("peer", f"user {uid} may not borrow from this process")
        # 2
        request, descriptor = wire.receive(connection)
        if descriptor is not None:
            os.close(descriptor)
        if not isinstance(request, wire.Request) or request.protocol != wire.PROTOCOL:
            raise InvalidInputError("request", f"must be one of {wire.PROTOCOL}")
        return request

    def _lend(self, connection: socket.socket, request: wire.Request) -> None:
        """Hand a shard out, then wait: the connection is the loan."""
        peer = Peer(*wire.peer_of(connection))

        def tell(epoch: int) -> None:
            try:
                wire.send(connection, wire.Revoked(epoch))
            finally:
                connection.shutdown(socket.SHUT_RDWR)

        with self._manager.lend(request.shard_id, nonce=request.nonce, peer=peer, on_revoked=tell) as loan:
            wire.send(connection, wire.Grant(loan.envelope, loan.format, loan.epoch), loan.descriptor)
            connection.settimeout(None)
            connection.recv(1)  # returns when the borrower lets go or dies, or the loan is revoked


def _listen(path: Path) -> socket.socket:
    if not hasattr(socket, "SO_PEERCRED"):
        raise ConfigurationError("share", "this system cannot tell who asks (SO_PEERCRED)")
    _require_private(path.parent)
    _clear(path)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        listener.bind(os.fspath(path))
        path.chmod(0o600)
        listener.listen(_BACKLOG)
    except OSError as error:
        listener.close()
        raise ConfigurationError("share", f"cannot listen at {path}: {error.strerror or error}") from None
    return listener


def _require_private(directory: Path) -> None:
    """The directory is the lock on the door: a socket's own mode comes too late, and not everywhere."""
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        found = directory.stat()
    except OSError as error:
        raise ConfigurationError("share", f"cannot use {directory}: {error.strerror}") from None
    if found.st_uid != os.getuid() or stat.S_IMODE(found.st_mode) & 0o077:
        raise ConfigurationError(
            "share", f"{directory} is open to other users", hint=f"Run: chmod 700 {directory}"
        )


def _clear(path: Path) -> None:
    """Take away what a killed lender left; a living one keeps its place."""
    if not path.is_socket():
        return
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        try:
            probe.connect(os.fspath(path))
        except OSError:
            path.unlink(missing_ok=True)
            return
    raise ConfigurationError(
        "share", f"another process lends shards at {path} already", hint="Choose another path."
    )
