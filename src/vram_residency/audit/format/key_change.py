"""What the old log key signs when a new one follows it (spec: audit-log.md section 3, key_rotated). Pure.

::

    vram-residency/audit/v1/key-rotated
    <origin>
    <index of the entry, decimal>
    <old vkey>
    <new vkey>

It is the text of a signed note, and no checkpoint: the first line is no origin, and there are five. The
entry's ``signature_by_old`` is what stands in that note's signature line: base64 of key ID and signature.
"""

from __future__ import annotations

import base64
from typing import Final

import msgspec

from vram_residency.audit.format import note

_DOMAIN: Final = "vram-residency/audit/v1/key-rotated"


class KeyChange(msgspec.Struct, frozen=True):
    """From entry ``index`` + 1 on, the log of ``old.name`` signs with ``new``."""

    index: int
    old: note.VerifierKey
    new: note.VerifierKey

    @classmethod
    def parse(cls, index: int, old_vkey: str, new_vkey: str) -> KeyChange:
        """Of an entry's index and fields. Raises NoteFormatError, also where the keys bear two names."""
        change = cls(index, note.VerifierKey.parse(old_vkey), note.VerifierKey.parse(new_vkey))
        if change.old.name != change.new.name or change.old == change.new:
            raise note.NoteFormatError("the new key is not another one of the same log")
        return change

    def encode(self) -> str:
        """The text that is signed."""
        return f"{_DOMAIN}\n{self.old.name}\n{self.index}\n{self.old}\n{self.new}\n"

    def sign(self, old: note.Signer) -> str:
        """``signature_by_old``. Raises SignerUnavailableError."""
        signature = note.signature_of(self.encode(), old)
        return base64.b64encode(signature.key_id + signature.data).decode("ascii")

    def verify(self, unverified_signature: str) -> None:
        """Raise NoteFormatError or NoteVerificationError where the old key did not sign this change."""
        line = f"\u2014 {self.old.name} {unverified_signature}\n"
        note.verify(f"{self.encode()}\n{line}".encode(), (self.old,))
