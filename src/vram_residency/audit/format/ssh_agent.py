"""Messages to and from an ssh-agent (draft-ietf-sshm-ssh-agent), as far as Ed25519 needs them. Pure.

An agent's Ed25519 signature over some bytes is the plain one of RFC 8032, so a note that it signed is like
any other.
"""

from __future__ import annotations

import base64
import hashlib
from typing import Final

from vram_residency.core import ed25519

#: OpenSSH's own limit.
MESSAGE_BYTES_MAX: Final = 256 * 1024
LENGTH_BYTES: Final = 4
_IDENTITIES_MAX: Final = 2048
_FAILURE: Final = 5
_REQUEST_IDENTITIES: Final = 11
_IDENTITIES_ANSWER: Final = 12
_SIGN_REQUEST: Final = 13
_SIGN_RESPONSE: Final = 14
_ED25519: Final = b"ssh-ed25519"


class AgentFormatError(ValueError):
    """An agent's answer is malformed, or a refusal."""


def list_request() -> bytes:
    """The message that asks which keys the agent holds."""
    return _message(bytes([_REQUEST_IDENTITIES]))


def sign_request(public_key: bytes, data: bytes) -> bytes:
    """The message that asks the key of these 32 bytes to sign ``data``."""
    flags = bytes(4)
    return _message(bytes([_SIGN_REQUEST]) + _string(key_blob(public_key)) + _string(data) + flags)


def parse_identities(unverified_answer: bytes) -> list[bytes]:
    """The Ed25519 public keys (32 bytes each) in an answer without its length. Raises AgentFormatError."""
    cursor = _Cursor(unverified_answer, _IDENTITIES_ANSWER)
    count = cursor.number()
    if count > _IDENTITIES_MAX:
        raise AgentFormatError("the agent claims too many keys")
    keys = []
    for _ in range(count):
        blob = cursor.string()
        cursor.string()  # the comment
        public_key = _parse_blob(blob, ed25519.KEY_BYTES)
        if public_key is not None:
            keys.append(public_key)
    cursor.end()
    return keys


def parse_signature(unverified_answer: bytes) -> bytes:
    """The 64 bytes of a signature, not verified. Raises AgentFormatError."""
    cursor = _Cursor(unverified_answer, _SIGN_RESPONSE)
    signature = _parse_blob(cursor.string(), ed25519.SIGNATURE_BYTES)
    cursor.end()
    if signature is None:
        raise AgentFormatError("the agent answered with a signature that is not Ed25519")
    return signature


def answer_bytes(unverified_length: bytes) -> int:
    """How long an answer is that announces itself so. Raises AgentFormatError."""
    length = int.from_bytes(unverified_length, "big")
    if len(unverified_length) != LENGTH_BYTES or not 1 <= length <= MESSAGE_BYTES_MAX:
        raise AgentFormatError("the agent announced an answer of an impossible length")
    return length


def key_blob(public_key: bytes) -> bytes:
    """An Ed25519 public key (32 bytes) as SSH writes it (RFC 8709)."""
    return _string(_ED25519) + _string(public_key)


def fingerprint(public_key: bytes) -> str:
    """``SHA256:<base64 without padding>``, as ``ssh-add -l`` shows it."""
    digest = hashlib.sha256(key_blob(public_key)).digest()
    return f"SHA256:{base64.b64encode(digest).decode('ascii').rstrip('=')}"


class _Cursor:
    """A walk through one answer; nothing outside it is ever read."""

    def __init__(self, data: bytes, expected_type: int) -> None:
        if data[:1] == bytes([_FAILURE]):
            raise AgentFormatError("the agent refused: it does not hold the key, is locked, or was told no")
        if data[:1] != bytes([expected_type]):
            raise AgentFormatError("the agent answered with another message")
        self._data = data
        self._at = 1

    def number(self) -> int:
        return int.from_bytes(self._take(4), "big")

    def string(self) -> bytes:
        return self._take(self.number())

    def end(self) -> None:
        if self._at != len(self._data):
            raise AgentFormatError("the agent's answer has bytes at its end")

    def _take(self, count: int) -> bytes:
        end = self._at + count
        if end > len(self._data):
            raise AgentFormatError("the agent's answer ends too early")
        taken, self._at = self._data[self._at : end], end
        return taken


def _parse_blob(blob: bytes, size: int) -> bytes | None:
    """The ``size`` bytes of an Ed25519 key or signature; None for another algorithm or form."""
    data = blob[-size:]
    return data if blob == _string(_ED25519) + _string(data) and len(data) == size else None


def _string(data: bytes) -> bytes:
    return len(data).to_bytes(4, "big") + data


def _message(content: bytes) -> bytes:
    return len(content).to_bytes(LENGTH_BYTES, "big") + content
