"""The borrower's side: ask, check the attestation, map, measure, and seal under a manager of one's own."""

from __future__ import annotations

import os
import secrets
import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from types import TracebackType
from typing import Final, Self

from vram_residency.core.errors import DeviceLostError, DigestMismatchError, InvalidInputError
from vram_residency.core.redaction import safe_text
from vram_residency.digest.value import Digest
from vram_residency.residency import SealedShard, VramManager
from vram_residency.seal import Statement, open_attestation
from vram_residency.sharing import wire

_ANSWER_S: Final = 60.0


class BorrowedShard:
    """A shard on loan. ``shard`` is the handle to use with the manager that borrowed it.

    Once the loan ends, revoked or because the lender is gone, every verification of the shard fails, the
    gate hands nothing out, and the manager quarantines it. ``close()`` gives it back.
    """

    def __init__(self, manager: VramManager, connection: socket.socket, shard: SealedShard) -> None:
        self.shard = shard
        self._manager = manager
        self._connection = connection

    @property
    def is_on_loan(self) -> bool:
        """Whether the lender still stands behind it."""
        return ended(self._connection) is None

    def close(self) -> None:
        """Free the mapping, then end the loan. Raises DeviceBusyError while views live."""
        if self._connection.fileno() >= 0:
            self._manager.deallocate(self.shard)
            self._connection.close()

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
        return f"BorrowedShard({self.shard.shard_id!r})"


def borrow(
    manager: VramManager,
    path: str | os.PathLike[str],
    shard_id: str,
    *,
    public_key: bytes | None = None,
    expect: str | None = None,
) -> BorrowedShard:
    """Borrow a shard from the process that listens at ``path`` and verify it before anybody uses it.

    public_key: the 32 bytes of the lender's ``attestation_public_key``, from where you trust it.
    expect: the approved digest (``blake3:…``). At least one of them, else nothing would be proved.

    Steps: (1) ask, with a fresh nonce, (2) check the attestation, the shard, and the approved digest,
    (3) check the kernel's seals on the memory and map it, (4) measure it here and compare, (5) seal it here.
    Raises InvalidInputError, DigestMismatchError, DeviceLostError.
    """
    if public_key is None and expect is None:
        hint = "Give the lender's attestation public key, the approved digest, or both."
        raise InvalidInputError("public_key", "and expect are both missing", hint=hint)
    approved = None if expect is None else str(Digest.parse(expect))
    with ExitStack() as undo:
        connection = undo.enter_context(_connected(path))
        # (1)
        nonce = secrets.token_hex(16)
        grant, descriptor = _asked(connection, wire.Request(wire.PROTOCOL, shard_id, nonce))
        connection.settimeout(0)  # from here on it is only looked at: see ended()
        with _closing(descriptor):
            # (2)
            size_bytes, attested = os.fstat(descriptor).st_size, approved
            if public_key is not None:
                statement = _attested(grant, public_key, nonce, shard_id)
                size_bytes, attested = statement.vram_bytes, statement.digest
            if approved not in {None, attested}:
                raise DigestMismatchError(str(approved), str(attested))
            # (3), (4), (5)
            shard = manager.seal_borrowed(
                descriptor,
                size_bytes=size_bytes,
                ended=lambda: ended(connection),
                shard_id=shard_id,
                expect=attested,
                algorithm=Digest.parse(str(attested)).algorithm,
                format=grant.format,
            )
        undo.pop_all()
    return BorrowedShard(manager, connection, shard)


def ended(connection: socket.socket) -> str | None:
    """Why a loan has ended, or None: looked at without taking anything from the connection."""
    try:
        waiting = connection.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT)
    except BlockingIOError:
        return None
    except OSError:
        return "the loan was given back"
    return "the lender revoked the loan" if waiting else "the lender of this memory is gone"


@contextmanager
def _closing(descriptor: int) -> Iterator[None]:
    """The mapping keeps the memory; the descriptor that brought it is not needed any longer."""
    try:
        yield
    finally:
        os.close(descriptor)


def _connected(path: str | os.PathLike[str]) -> socket.socket:
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        connection.settimeout(_ANSWER_S)
        connection.connect(os.fspath(path))
    except OSError as error:
        connection.close()
        why = error.strerror or str(error)
        raise DeviceLostError("share", f"nobody lends shards at {os.fspath(path)}: {why}") from None
    return connection


def _asked(connection: socket.socket, request: wire.Request) -> tuple[wire.Grant, int]:
    try:
        wire.send(connection, request)
        answer, descriptor = wire.receive(connection)
    except OSError as error:
        raise DeviceLostError("share", f"the lender does not answer: {error}") from None
    if isinstance(answer, wire.Grant) and descriptor is not None:
        return answer, descriptor
    if descriptor is not None:
        os.close(descriptor)
    reason = answer.reason if isinstance(answer, wire.Refusal) else "the lender answered something else"
    raise InvalidInputError("share", f"was refused: {safe_text(reason)}")


def _attested(grant: wire.Grant, public_key: bytes, nonce: str, shard_id: str) -> Statement:
    statement = open_attestation(grant.envelope, public_key=public_key, nonce=nonce).statement
    if statement.shard_id != shard_id:
        raise InvalidInputError("attestation", f"is about shard '{statement.shard_id}'")
    return statement
