"""The messages between lender and borrower: length-prefixed JSON, the descriptor beside the first bytes.

One borrower, one connection: Request, then Grant (with a descriptor) or Refusal. The connection is the
loan: it ends with Revoked, or when either side closes it or dies.
"""

from __future__ import annotations

import os
import socket
import struct
from typing import Any, Final

import msgspec

from vram_residency.core.errors import DeviceLostError, InvalidInputError
from vram_residency.formats import Format

PROTOCOL: Final = "vram-residency/share/v1"
_LENGTH: Final = struct.Struct(">I")
_MESSAGE_BYTES_MAX: Final = 1 << 20


class Request(msgspec.Struct, frozen=True, tag="request"):
    """Ask for a shard. ``nonce`` is signed into the answer, so that no old answer passes for a new one."""

    protocol: str
    shard_id: str
    nonce: str


class Grant(msgspec.Struct, frozen=True, tag="grant"):
    """The shard's attestation, what its bytes are, and how often its loans were revoked before."""

    envelope: dict[str, Any]
    format: Format
    epoch: int


class Refusal(msgspec.Struct, frozen=True, tag="refusal"):
    """Why there is no loan, in a sentence."""

    reason: str


class Revoked(msgspec.Struct, frozen=True, tag="revoked"):
    """The loan has ended; ``epoch`` counts the revocations, this one included."""

    epoch: int


Message = Request | Grant | Refusal | Revoked
_DECODER: Final = msgspec.json.Decoder(Message)


def send(connection: socket.socket, message: Message, descriptor: int | None = None) -> None:
    """Send one message, and a descriptor with its first bytes. Raises OSError."""
    body = msgspec.json.encode(message)
    head = _LENGTH.pack(len(body))
    if descriptor is None:
        connection.sendall(head + body)
        return
    socket.send_fds(connection, [head], [descriptor])
    connection.sendall(body)


def receive(connection: socket.socket) -> tuple[Message, int | None]:
    """One message, and the descriptor that came with it, which the caller closes.

    Raises InvalidInputError for bytes that are no message, DeviceLostError where the other side is gone,
    OSError (TimeoutError) where it is silent.
    """
    head, descriptors, flags, _ = socket.recv_fds(
        connection, _LENGTH.size, 1, socket.MSG_WAITALL | socket.MSG_CMSG_CLOEXEC
    )
    descriptor = descriptors[0] if descriptors else None
    try:
        return _decoded(connection, head, is_cut=bool(flags & socket.MSG_CTRUNC)), descriptor
    except BaseException:
        if descriptor is not None:
            os.close(descriptor)
        raise


def _decoded(connection: socket.socket, head: bytes, *, is_cut: bool) -> Message:
    if is_cut:
        raise InvalidInputError("message", "brings more than one descriptor")
    if len(head) < _LENGTH.size:
        raise DeviceLostError("share", "the other process closed the connection")
    (length,) = _LENGTH.unpack(head)
    if length > _MESSAGE_BYTES_MAX:
        raise InvalidInputError("message", f"of {length} bytes: at most {_MESSAGE_BYTES_MAX} are read")
    body = connection.recv(length, socket.MSG_WAITALL)
    if len(body) < length:
        raise DeviceLostError("share", "the other process closed the connection")
    try:
        message: Message = _DECODER.decode(body)
    except msgspec.MsgspecError as error:
        raise InvalidInputError("message", f"is not one of {PROTOCOL}: {error}") from None
    return message
