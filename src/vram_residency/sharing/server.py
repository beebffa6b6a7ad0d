"""The lender's side: a Unix socket at which processes of the same user ask for sealed shards."""

from __future__ import annotations

import contextlib
import os
import socket
import threading
from collections.abc import Iterable
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from vram_residency.core.errors import InvalidInputError, VramError
from vram_residency.core.private_socket import listen, peer_of
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
        self._listener = listen(self.path, setting="share", use="lends shards", backlog=_BACKLOG)
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
        _, uid = peer_of(connection)
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
        peer = Peer(*peer_of(connection))

        def tell(epoch: int) -> None:
            try:
                wire.send(connection, wire.Revoked(epoch))
            finally:
                connection.shutdown(socket.SHUT_RDWR)

        with self._manager.lend(request.shard_id, nonce=request.nonce, peer=peer, on_revoked=tell) as loan:
            wire.send(connection, wire.Grant(loan.envelope, loan.format, loan.epoch), loan.descriptor)
            connection.settimeout(None)
            connection.recv(1)  # returns when the borrower lets go or dies, or the loan is revoked
