"""Signed notes (C2SP signed-note; the text forms of keys are those of Go's sumdb/note). Pure.

::

    text, one or more lines
                                                  (an empty line)
    — <key name> <base64 of key id (4 bytes) ‖ Ed25519 signature (64 bytes)>
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import re
from collections.abc import Iterable
from typing import Final, NamedTuple, Protocol

import msgspec

from vram_residency.core import ed25519

NOTE_BYTES_MAX: Final = 65_536
_SIGNATURES_MAX: Final = 100
_ALGORITHM_ED25519: Final = b"\x01"
_KEY_ID_BYTES: Final = 4
_SIGNATURE_PREFIX: Final = "\u2014 "
_PRIVATE_PREFIX: Final = "PRIVATE+KEY+"
_NAME = re.compile(r"[^\s+\x00-\x1f]{1,512}\Z")
_KEY = re.compile(r"(?P<name>[^+]+)\+(?P<id>[0-9a-f]{8})\+(?P<data>[A-Za-z0-9+/=]+)\Z")
_CONTROL = re.compile(r"[\x00-\x09\x0b-\x1f]")


class NoteFormatError(ValueError):
    """Bytes or text are not a note, or not a key."""


class NoteVerificationError(ValueError):
    """No known key signed the note, or a signature under a known key is wrong."""


class SignerUnavailableError(Exception):
    """A private key that lies elsewhere did not sign this time; the text says why."""


class Signature(NamedTuple):
    """One signature line of a note: the key's name and id (4 bytes), and what the key's algorithm made."""

    name: str
    key_id: bytes
    data: bytes


def key_id(name: str, public_key: bytes) -> bytes:
    """4 bytes that name a key: the start of SHA-256(name ‖ newline ‖ 0x01 ‖ public key)."""
    return hashlib.sha256(name.encode() + b"\n" + _ALGORITHM_ED25519 + public_key).digest()[:_KEY_ID_BYTES]


class VerifierKey(msgspec.Struct, frozen=True):
    """A public key and its name; ``str`` gives the vkey ``name+hash8+base64``."""

    name: str
    public_key: bytes

    @property
    def id(self) -> bytes:
        """The 4 bytes that stand before its signatures."""
        return key_id(self.name, self.public_key)

    @classmethod
    def parse(cls, text: str) -> VerifierKey:
        """Parse a vkey. Raises NoteFormatError, also for keys of small order or in a second encoding."""
        name, unverified_id, public_key = _parse_key(text)
        if not ed25519.is_sound_public_key(public_key):
            raise NoteFormatError("the public key is of small order or not canonical")
        key = cls(name, public_key)
        if key.id != unverified_id:
            raise NoteFormatError("the key's hash does not fit its name and bytes")
        return key

    def __str__(self) -> str:
        return f"{self.name}+{self.id.hex()}+{_base64(_ALGORITHM_ED25519 + self.public_key)}"


class Signer(Protocol):
    """Who signs for a key: the private key itself, or something that reaches it where it lies."""

    @property
    def verifier(self) -> VerifierKey:
        """The public half."""

    def sign(self, message: bytes) -> bytes:
        """The raw Ed25519 signature (64 bytes). Raises SignerUnavailableError."""


class SignerKey:
    """A private key and its name; ``repr`` shows the public half."""

    def __init__(self, name: str, key: ed25519.SigningKey) -> None:
        _require_name(name)
        self.name = name
        self._key = key
        self.verifier = VerifierKey(name, key.public_key)

    @classmethod
    def generate(cls, name: str) -> SignerKey:
        """A new key from the system's CSPRNG."""
        return cls(name, ed25519.SigningKey.generate())

    @classmethod
    def parse(cls, text: str) -> SignerKey:
        """Parse ``PRIVATE+KEY+name+hash8+base64``. Raises NoteFormatError; the text is in no message."""
        if not text.startswith(_PRIVATE_PREFIX):
            raise NoteFormatError("not a private key")
        name, unverified_id, seed = _parse_key(text.removeprefix(_PRIVATE_PREFIX))
        key = cls(name, ed25519.SigningKey(seed))
        if key.verifier.id != unverified_id:
            raise NoteFormatError("the key's hash does not fit its name and bytes")
        return key

    def secret_text(self) -> str:
        """``PRIVATE+KEY+name+hash8+base64``, for the key file alone."""
        data = _base64(_ALGORITHM_ED25519 + self._key.seed)
        return f"{_PRIVATE_PREFIX}{self.name}+{self.verifier.id.hex()}+{data}"

    def sign(self, message: bytes) -> bytes:
        """The raw signature (64 bytes)."""
        return self._key.sign(message)

    def __repr__(self) -> str:
        return f"SignerKey({self.verifier})"


def sign(text: str, *keys: Signer) -> bytes:
    """The note of ``text`` with a signature by each key. Raises NoteFormatError, SignerUnavailableError."""
    return join(text, [signature_of(text, key) for key in keys])


def signature_of(text: str, key: Signer) -> Signature:
    """One key's signature of a note's text. Raises NoteFormatError, SignerUnavailableError."""
    _require_text(text)
    return Signature(key.verifier.name, key.verifier.id, key.sign(text.encode()))


def join(text: str, signatures: Iterable[Signature]) -> bytes:
    """The inverse of split()."""
    lines = (f"{_SIGNATURE_PREFIX}{name} {_base64(ident + data)}\n" for name, ident, data in signatures)
    return f"{text}\n{''.join(lines)}".encode()


def verify(unverified_note: bytes, keys: Iterable[VerifierKey]) -> str:
    """The text of a note that at least one of ``keys`` signed.

    Signatures by other keys are passed over, as C2SP asks. Raises NoteFormatError, NoteVerificationError.
    """
    # 1. Form (C2SP signed-note, section "Format").
    text, signatures = split(unverified_note)
    # 2. Every signature that names a known key must be right, and there must be one.
    known = {(key.name, key.id): key for key in keys}
    verified = 0
    for name, unverified_id, signature in signatures:
        key = known.get((name, unverified_id))
        if key is None:
            continue
        if not ed25519.verify(key.public_key, signature, text.encode()):
            raise NoteVerificationError(f"the signature by {name} is wrong")
        verified += 1
    if not verified:
        raise NoteVerificationError("no known key signed the note")
    return text


def split(unverified_note: bytes) -> tuple[str, list[Signature]]:
    """Text and signatures of a note, none verified. Raises NoteFormatError."""
    if len(unverified_note) > NOTE_BYTES_MAX:
        raise NoteFormatError(f"a note is at most {NOTE_BYTES_MAX} bytes")
    try:
        note = unverified_note.decode("utf-8")
    except UnicodeDecodeError as error:
        raise NoteFormatError("not UTF-8") from error
    head, separator, tail = note.rpartition("\n\n")
    if not separator or not tail.endswith("\n"):
        raise NoteFormatError("no empty line before the signatures, or no newline at the end")
    text = f"{head}\n"
    _require_text(text)
    lines = tail[:-1].split("\n")
    if len(lines) > _SIGNATURES_MAX:
        raise NoteFormatError(f"over {_SIGNATURES_MAX} signatures")
    return text, [_parse_signature(line) for line in lines]


def _parse_signature(line: str) -> Signature:
    name, _, encoded = line.removeprefix(_SIGNATURE_PREFIX).partition(" ")
    if not line.startswith(_SIGNATURE_PREFIX) or _NAME.match(name) is None:
        raise NoteFormatError("a signature line is malformed")
    data = _parse_base64(encoded)
    if len(data) <= _KEY_ID_BYTES:
        raise NoteFormatError("a signature is too short")
    return Signature(name, data[:_KEY_ID_BYTES], data[_KEY_ID_BYTES:])


def split_key(text: str) -> tuple[str, bytes, int, bytes]:
    """Name, key id, algorithm and 32 bytes of a vkey, the id unverified. Raises NoteFormatError."""
    match = _KEY.match(text)
    if match is None:
        raise NoteFormatError("a key has the form name+hash+base64")
    _require_name(match["name"])
    data = _parse_base64(match["data"])
    if len(data) != 1 + ed25519.KEY_BYTES:
        raise NoteFormatError("only Ed25519 keys are known")
    return match["name"], bytes.fromhex(match["id"]), data[0], data[1:]


def _parse_key(text: str) -> tuple[str, bytes, bytes]:
    name, unverified_id, algorithm, key = split_key(text)
    if bytes([algorithm]) != _ALGORITHM_ED25519:
        raise NoteFormatError("only Ed25519 keys are known")
    return name, unverified_id, key


def _require_name(name: str) -> None:
    if _NAME.match(name) is None:
        raise NoteFormatError("a key name has no white space and no plus sign")


def _require_text(text: str) -> None:
    if not text.endswith("\n") or _CONTROL.search(text):
        raise NoteFormatError("a note's text ends in a newline and holds no control characters")


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode("ascii")


def _parse_base64(text: str) -> bytes:
    try:
        data = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError) as error:
        raise NoteFormatError("not base64") from error
    if _base64(data) != text:
        raise NoteFormatError("base64 in a second form")
    return data
