"""An in-toto statement in a DSSE envelope: what a third party can check (residency.md section 4).

Sources: in-toto Attestation Framework v1 (Statement), DSSE v1 protocol (envelope, PAE).
"""

from __future__ import annotations

import base64
import binascii
import hashlib
from typing import Any

import msgspec
from msgspec import Struct

from vram_residency.core.canonical import canonical_json
from vram_residency.core.ed25519 import SigningKey, verify
from vram_residency.core.errors import InvalidInputError
from vram_residency.seal.statement import Statement

PAYLOAD_TYPE = "application/vnd.in-toto+json"
STATEMENT_TYPE = "https://in-toto.io/Statement/v1"
PREDICATE_TYPE = "urn:vram-residency:attestation:v1"
NONCE_CHARACTERS_MAX = 128


class Attestation(Struct, frozen=True, kw_only=True):
    """What the attesting manager claims: these bytes were read within this span and matched this seal.

    ``read_from`` and ``read_to`` are RFC 3339 times; ``audit_index`` is the index of the verification's
    entry in the audit log, or None where no log is kept.
    """

    nonce: str
    statement: Statement
    scope: str
    read_from: str
    read_to: str
    audit_index: int | None = None


class _Signature(Struct, frozen=True):
    keyid: str
    sig: str


class _Envelope(Struct, frozen=True, rename={"payload_type": "payloadType"}):
    payload_type: str
    payload: str
    signatures: list[_Signature]


def attest(attestation: Attestation, key: SigningKey) -> dict[str, Any]:
    """Sign ``attestation``; the envelope is plain JSON data."""
    algorithm, _, value = attestation.statement.digest.partition(":")
    payload = canonical_json(
        {
            "_type": STATEMENT_TYPE,
            "subject": [{"name": attestation.statement.shard_id, "digest": {algorithm: value}}],
            "predicateType": PREDICATE_TYPE,
            "predicate": attestation,
        }
    )
    signature = _Signature(_key_id(key.public_key), _b64(key.sign(_pae(payload))))
    envelope = _Envelope(PAYLOAD_TYPE, _b64(payload), [signature])
    built: dict[str, Any] = msgspec.to_builtins(envelope)
    return built


def open_attestation(unverified_envelope: object, *, public_key: bytes, nonce: str) -> Attestation:
    """Check an envelope and give what it attests.

    Steps: (1) the envelope's form, (2) a signature by ``public_key``, (3) the statement's types and its
    subject, (4) the nonce. Raises InvalidInputError naming the step that failed.
    """
    # (1)
    payload, signatures = _parse_envelope(unverified_envelope)
    # (2)
    signed = _pae(payload)
    if not any(verify(public_key, sig, signed) for sig in signatures):
        raise _refused("carries no valid signature of the given key")
    # (3)
    attestation = _parse_statement(payload)
    # (4)
    if attestation.nonce != nonce:
        raise _refused("answers another nonce")
    return attestation


def unverified_attestation(envelope: object) -> Attestation:
    """What an envelope says that it attests; whoever made it. Raises InvalidInputError for another form."""
    payload, _ = _parse_envelope(envelope)
    return _parse_statement(payload)


def _parse_envelope(unverified_envelope: object) -> tuple[bytes, list[bytes]]:
    try:
        envelope = msgspec.convert(unverified_envelope, _Envelope)
        payload = base64.b64decode(envelope.payload, validate=True)
        signatures = [base64.b64decode(each.sig, validate=True) for each in envelope.signatures]
    except (msgspec.ValidationError, binascii.Error, ValueError) as error:
        raise _refused("is not a DSSE envelope") from error
    if envelope.payload_type != PAYLOAD_TYPE:
        raise _refused("is an envelope around something else")
    return payload, signatures


def _parse_statement(payload: bytes) -> Attestation:
    try:
        statement = msgspec.json.decode(payload)
        attestation = msgspec.convert(statement["predicate"], Attestation)
        types = (statement["_type"], statement["predicateType"])
        (subject,) = statement["subject"]
        algorithm, _, value = attestation.statement.digest.partition(":")
        about_it = subject == {"name": attestation.statement.shard_id, "digest": {algorithm: value}}
    except (msgspec.MsgspecError, KeyError, TypeError, ValueError) as error:
        raise _refused("holds no attestation of this kind") from error
    if types != (STATEMENT_TYPE, PREDICATE_TYPE) or not about_it:
        raise _refused("holds a statement about something else")
    return attestation


def _pae(payload: bytes) -> bytes:
    """DSSE v1 pre-authentication encoding."""
    kind = PAYLOAD_TYPE.encode()
    return b"DSSEv1 %d %s %d %s" % (len(kind), kind, len(payload), payload)


def _key_id(public_key: bytes) -> str:
    return "sha256:" + hashlib.sha256(public_key).hexdigest()


def _b64(data: bytes) -> str:
    return base64.b64encode(data).decode()


def _refused(rule: str) -> InvalidInputError:
    return InvalidInputError("attestation", rule, hint="Ask the worker for a new attestation.")
