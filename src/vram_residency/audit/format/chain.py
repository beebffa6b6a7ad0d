"""The mac chain and its epoch keys (spec: audit-log.md sections 1 to 3). Pure: bytes in, bytes out.

Every mac covers the one before it, so that an entry authenticates all entries before it in its epoch. At the
end of an epoch the key is hashed forward and the old one forgotten: who steals the key of today
cannot forge the entries of yesterday.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Iterable
from typing import Final

KEY_BYTES: Final = 32

_INITIAL_LABEL: Final = b"vram-residency/audit/v1\n"
_NEXT_EPOCH_LABEL: Final = b"vram-residency/audit/next-epoch"
_GENESIS_ID_LABEL: Final = b"vram-residency/audit/genesis-id"
_GENESIS_ID_DIGITS: Final = 16
_BLOCK_BYTES: Final = 64
_INNER_PAD: Final = bytes(byte ^ 0x36 for byte in range(256))
_OUTER_PAD: Final = bytes(byte ^ 0x5C for byte in range(256))


def initial_mac(origin: str) -> bytes:
    """What stands for the previous mac (32 bytes) before entry 0."""
    return hashlib.sha256(_INITIAL_LABEL + origin.encode("utf-8")).digest()


class MacChain:
    """next_mac() for many entries under one key: the key is hashed once (RFC 2104), its states are copied."""

    def __init__(self, key: bytes) -> None:
        padded = key.ljust(_BLOCK_BYTES, b"\0")
        self._copy_inner = hashlib.sha256(padded.translate(_INNER_PAD)).copy
        self._copy_outer = hashlib.sha256(padded.translate(_OUTER_PAD)).copy

    def macs(self, previous_mac: bytes, bodies: Iterable[bytes]) -> list[bytes]:
        """The macs (32 bytes each) of entries that follow each other."""
        copy_inner, copy_outer = self._copy_inner, self._copy_outer
        mac = previous_mac
        found = []
        for body in bodies:
            inner = copy_inner()
            inner.update(mac + body)
            outer = copy_outer()
            outer.update(inner.digest())
            mac = outer.digest()
            found.append(mac)
        return found

    def next(self, previous_mac: bytes, body: bytes) -> bytes:
        """The mac (32 bytes) of one entry's body."""
        return self.macs(previous_mac, (body,))[0]


def next_mac(key: bytes, previous_mac: bytes, body: bytes) -> bytes:
    """The mac (32 bytes) of an entry's body: HMAC-SHA256(K_e, previous mac ‖ body)."""
    return hmac.digest(key, previous_mac + body, "sha256")


def next_epoch_key(key: bytes) -> bytes:
    """K_(e+1) of K_e."""
    return hmac.digest(key, _NEXT_EPOCH_LABEL, "sha256")


def epoch_key(genesis_key: bytes, epoch: int) -> bytes:
    """K_e of K_0: ``epoch`` steps forward."""
    key = genesis_key
    for _ in range(epoch):
        key = next_epoch_key(key)
    return key


def genesis_id(genesis_key: bytes) -> str:
    """16 hex digits that name K_0 in public (``mac_genesis_id`` of log.json)."""
    return hashlib.sha256(_GENESIS_ID_LABEL + genesis_key).hexdigest()[:_GENESIS_ID_DIGITS]
