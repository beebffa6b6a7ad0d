"""The HMAC over a statement (residency.md section 4). Pure: the token comes in, no file is read."""

from __future__ import annotations

import hmac

from vram_residency.core.keys import fingerprint, hkdf_sha256
from vram_residency.seal.statement import VERSION, Statement


class SealKey:
    """The key of one worker on one device; never printed, pickled or compared."""

    __slots__ = ("_key", "fingerprint")

    def __init__(self, seal_token: str, *, worker_id: str, device_uuid: str) -> None:
        info = f"{VERSION}\n{worker_id}\n{device_uuid}".encode()
        self._key = hkdf_sha256(seal_token.encode(), info=info)
        self.fingerprint = fingerprint(self._key)

    def sign(self, statement: Statement) -> bytes:
        """HMAC-SHA256 of the statement's canonical bytes, 32 bytes."""
        return hmac.digest(self._key, statement.canonical(), "sha256")

    def is_signature_of(self, signature: bytes, statement: Statement) -> bool:
        """Whether ``signature`` is this key's over ``statement``, compared in constant time."""
        return hmac.compare_digest(signature, self.sign(statement))

    def __repr__(self) -> str:
        return f"SealKey(fingerprint={self.fingerprint!r})"

    def __reduce__(self) -> str:
        raise TypeError("a seal key is never pickled")
