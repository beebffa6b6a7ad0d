"""Cosignatures by witnesses (C2SP tlog-cosignature, Ed25519, version 1). Pure.

A witness states: at this time, this was the largest tree of this log that I had seen, and it continued all
that I had seen before.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterable
from typing import Final

import msgspec

from vram_residency.audit.format import note
from vram_residency.core import ed25519

_ALGORITHM_NOTE: Final = 0x01
_ALGORITHM_COSIGNATURE: Final = 0x04
_ID_BYTES: Final = 4
_TIME_BYTES: Final = 8
_TIME_S_MAX: Final = 2**63 - 1


class WitnessKey(msgspec.Struct, frozen=True):
    """A witness's name and Ed25519 public key (32 bytes); ``str`` gives the vkey with type 0x04."""

    name: str
    public_key: bytes

    @property
    def id(self) -> bytes:
        """The 4 bytes that stand before its cosignatures."""
        return _key_id(self.name, _ALGORITHM_COSIGNATURE, self.public_key)

    @classmethod
    def parse(cls, text: str) -> WitnessKey:
        """Parse a vkey of type 0x04, or of 0x01, in which form many witnesses print the same key.

        Raises NoteFormatError, also for keys of small order or in a second encoding.
        """
        name, unverified_id, algorithm, public_key = note.split_key(text)
        if algorithm not in {_ALGORITHM_NOTE, _ALGORITHM_COSIGNATURE}:
            raise note.NoteFormatError("only Ed25519 witness keys are known")
        if not ed25519.is_sound_public_key(public_key):
            raise note.NoteFormatError("the public key is of small order or not canonical")
        if _key_id(name, algorithm, public_key) != unverified_id:
            raise note.NoteFormatError("the key's hash does not fit its name and bytes")
        return cls(name, public_key)

    def __str__(self) -> str:
        data = base64.b64encode(bytes([_ALGORITHM_COSIGNATURE]) + self.public_key).decode("ascii")
        return f"{self.name}+{self.id.hex()}+{data}"


class Cosignature(msgspec.Struct, frozen=True):
    """A verified cosignature: by whom, when (seconds since the epoch), and its 72 bytes as they are."""

    key: WitnessKey
    time_s: int
    data: bytes

    @property
    def line(self) -> str:
        """The signature line of a note, newline and all."""
        encoded = base64.b64encode(self.key.id + self.data).decode("ascii")
        return f"\u2014 {self.key.name} {encoded}\n"


def verify(unverified_note: bytes, keys: Iterable[WitnessKey]) -> list[Cosignature]:
    """The cosignatures in a note by ``keys``, in the order of the keys; signatures by others are passed over.

    Raises NoteFormatError, and NoteVerificationError for a wrong cosignature under a known key.
    """
    text, signatures = note.split(unverified_note)
    found = []
    for key in keys:
        by_key = [data for name, ident, data in signatures if (name, ident) == (key.name, key.id)]
        # A witness that was asked twice may stand there twice: all must be right, the newest counts.
        checked = [_verify_one(text, key, data) for data in by_key]
        found += sorted(checked, key=lambda cosignature: cosignature.time_s)[-1:]
    return found


def _verify_one(text: str, key: WitnessKey, data: bytes) -> Cosignature:
    time_s = int.from_bytes(data[:_TIME_BYTES], "big")
    message = f"cosignature/v1\ntime {time_s}\n{text}".encode()
    is_sound = len(data) == _TIME_BYTES + ed25519.SIGNATURE_BYTES and time_s <= _TIME_S_MAX
    if not is_sound or not ed25519.verify(key.public_key, data[_TIME_BYTES:], message):
        raise note.NoteVerificationError(f"the cosignature by {key.name} is wrong")
    return Cosignature(key, time_s, data)


def _key_id(name: str, algorithm: int, public_key: bytes) -> bytes:
    return hashlib.sha256(name.encode() + b"\n" + bytes([algorithm]) + public_key).digest()[:_ID_BYTES]
