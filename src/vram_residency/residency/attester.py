"""Statements for third parties: verified at this moment, then signed (residency.md section 4)."""

from __future__ import annotations

import threading
from typing import Any

from vram_residency.core.ed25519 import SigningKey
from vram_residency.core.errors import InvalidInputError
from vram_residency.core.identifiers import is_unicode
from vram_residency.residency.registry import Record
from vram_residency.residency.scope import Scope
from vram_residency.residency.verifier import Verifier
from vram_residency.seal import Attestation, attest
from vram_residency.seal.attestation import NONCE_CHARACTERS_MAX


class Attester:
    """Signs with the key of the options, or with one that lives as long as the manager."""

    def __init__(self, verifier: Verifier, key: SigningKey | None) -> None:
        self._verifier = verifier
        self._key = key
        self._lock = threading.Lock()  # guards the making of _key

    def attest(self, record: Record, *, nonce: str, scope: Scope) -> dict[str, Any]:
        """Verify ``record``, durably recorded, and sign that. Raises as a verification does."""
        if not is_unicode(nonce) or not 1 <= len(nonce) <= NONCE_CHARACTERS_MAX:
            raise InvalidInputError("nonce", f"must be text of 1 to {NONCE_CHARACTERS_MAX} characters")
        result, audit_index = self._verifier.verify_durably(record, scope)
        attestation = Attestation(
            nonce=nonce,
            statement=record.statement,
            scope=result.scope,
            read_from=result.read_from,
            read_to=result.read_to,
            audit_index=audit_index,
        )
        return attest(attestation, self._signing_key())

    @property
    def public_key(self) -> bytes:
        """The 32 bytes that attestations are checked with."""
        return self._signing_key().public_key

    def _signing_key(self) -> SigningKey:
        with self._lock:
            self._key = self._key or SigningKey.generate()
            return self._key
