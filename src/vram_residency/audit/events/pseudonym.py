"""Keyed pseudonyms for customer identifiers (spec: audit-log.md section 5).

The log keeps only the pseudonym; who destroys the key has erased the identifiers from every copy.
"""

from __future__ import annotations

import hashlib
import hmac

PREFIX = "pseudonym:"
_CONTEXT = b"vram-residency/audit/pseudonym\n"
_HEX_DIGITS = 32


class Pseudonyms:
    """Names for customers under one key of 32 bytes; ``repr`` does not show it."""

    def __init__(self, key: bytes) -> None:
        self._state = hmac.new(key, _CONTEXT, hashlib.sha256)

    def name(self, identifier: str) -> str:
        """``pseudonym:`` and 32 hex of HMAC-SHA256(key, context and identifier): always the same one."""
        state = self._state.copy()
        state.update(identifier.encode(errors="surrogatepass"))
        return PREFIX + state.hexdigest()[:_HEX_DIGITS]
