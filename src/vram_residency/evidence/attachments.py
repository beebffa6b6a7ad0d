"""What may be attached to a bundle, and how it must fit the entries (residency.md sections 4, 6)."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from typing import Final

import msgspec

from vram_residency.audit.format.entry import Entry
from vram_residency.core import ed25519
from vram_residency.core.canonical import canonical_json
from vram_residency.core.errors import InvalidInputError
from vram_residency.seal.attestation import Attestation, open_attestation, unverified_attestation
from vram_residency.seal.statement import sha256_hex

_HEX_KEY: Final = re.compile(r"[0-9a-fA-F]{64}\Z")


class Refusal(Exception):  # noqa: N818 - a finding, not an error: it never leaves a check
    """What a step of a check found wrong."""


class Signature(msgspec.Struct, frozen=True):
    """An attestation's envelope (JSON), and the key and nonce from elsewhere that it must answer to."""

    envelope: bytes
    public_key: bytes | None
    nonce: str | None

    def check(self) -> str:
        """What was found. Raises Refusal."""
        envelope = msgspec.json.decode(self.envelope)
        said = unverified_attestation(envelope).nonce
        if self.nonce is not None and self.nonce != said:
            raise Refusal("The attestation answers another nonce.")
        if self.public_key is None:
            return "Nobody said by which key the attestation must be signed: it is not checked."
        try:
            open_attestation(envelope, public_key=self.public_key, nonce=said)
        except InvalidInputError as error:
            raise Refusal(f"The attestation is not by the key that was given: {error.rule}.") from None
        fresh = (
            "its nonce is the one that was given" if self.nonce is not None else "its nonce was not asked for"
        )
        return f"The key that was given signed the attestation; {fresh}."


def parse_public_key(text: str) -> bytes:
    """A raw Ed25519 public key from 64 hex digits. Raises InvalidInputError."""
    key = bytes.fromhex(text) if _HEX_KEY.match(text) else b""
    if not key or not ed25519.is_sound_public_key(key):
        raise InvalidInputError(
            "attestation_key",
            "must be an Ed25519 public key of 64 hex digits",
            hint="Its owner published it.",
        )
    return key


def canonical_attachment(name: str, data: bytes) -> bytes:
    """A JSON object that somebody wrote, as the canonical bytes that a bundle holds.

    Raises InvalidInputError, its field being ``name``.
    """
    try:
        value = msgspec.json.decode(data)
    except (ValueError, RecursionError):
        value = None
    if not isinstance(value, dict):
        raise InvalidInputError(name, "is not a JSON object", hint="Give the file as it was written.")
    return canonical_json(value)


def names_shard(entry: Entry, shard_id: str) -> bool:
    """Whether an entry is about a shard."""
    several = entry.fields.get("shard_ids")
    return entry.fields.get("shard_id") == shard_id or (isinstance(several, list) and shard_id in several)


def check_attestation(attestation: Attestation, entries: Sequence[Entry]) -> str:
    """What ties an attestation to entries: shard, seal, its verification. Raises Refusal."""
    statement, at = attestation.statement, attestation.audit_index
    seal = sha256_hex(statement.canonical())
    about = [entry for entry in entries if names_shard(entry, statement.shard_id)]
    # 1. Some entry about this very shard names this very seal.
    if not any(entry.fields.get("seal_sha256") == seal for entry in about):
        raise Refusal("No entry here names the seal that the attestation is about.")
    # 2. So does the verification that it was made from, where that is here.
    named = [entry for entry in entries if entry.index == at]
    for entry in named:
        is_that = entry.event_type == "seal_verified" and entry.fields.get("seal_sha256") == seal
        if not is_that or entry not in about:
            raise Refusal(f"Entry {at} is not the verification that the attestation names.")
    where = (
        f", and its verification is entry {at}" if named else "; its verification is not among the entries"
    )
    return f"An entry names the seal that the attestation is about{where}."


def check_residency(record: bytes, entries: Sequence[Entry]) -> str:
    """What ties a residency record (canonical JSON) to entries: its SHA-256. Raises Refusal."""
    digest = hashlib.sha256(record).hexdigest()
    found = [entry.index for entry in entries if entry.fields.get("residency_sha256") == digest]
    if not found:
        raise Refusal("No entry here names the SHA-256 of the residency record.")
    return f"Entry {found[0]} names the SHA-256 of the residency record."
