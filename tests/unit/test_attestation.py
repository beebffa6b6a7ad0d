"""Attestations: in-toto statements in DSSE envelopes that a third party can check."""

from __future__ import annotations

import base64
import copy
import json

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from tests.unit.test_statement import statement

from vram_residency.core.ed25519 import SigningKey
from vram_residency.core.errors import InvalidInputError
from vram_residency.seal import Attestation, attest, open_attestation

KEY = SigningKey(bytes(range(32)))
ATTESTATION = Attestation(
    nonce="n-1",
    statement=statement(),
    scope="full",
    read_from="2026-01-01T00:00:00.000000Z",
    read_to="2026-01-01T00:00:01.000000Z",
    audit_index=7,
)


def test_what_was_attested_comes_out_again():
    envelope = json.loads(json.dumps(attest(ATTESTATION, KEY)))
    assert open_attestation(envelope, public_key=KEY.public_key, nonce="n-1") == ATTESTATION


def test_the_envelope_verifies_with_nothing_but_the_dsse_specification():
    envelope = attest(ATTESTATION, KEY)
    payload = base64.b64decode(envelope["payload"])
    kind = envelope["payloadType"].encode()
    signed = b" ".join([b"DSSEv1", str(len(kind)).encode(), kind, str(len(payload)).encode(), payload])
    signature = base64.b64decode(envelope["signatures"][0]["sig"])
    Ed25519PublicKey.from_public_bytes(KEY.public_key).verify(signature, signed)
    statement_document = json.loads(payload)
    assert statement_document["_type"] == "https://in-toto.io/Statement/v1"
    assert statement_document["subject"] == [{"name": "shard-1", "digest": {"blake3": "1" * 64}}]


def test_another_key_is_refused():
    with pytest.raises(InvalidInputError, match="no valid signature"):
        open_attestation(attest(ATTESTATION, KEY), public_key=SigningKey(b"x" * 32).public_key, nonce="n-1")


def test_an_old_answer_to_another_nonce_is_refused():
    with pytest.raises(InvalidInputError, match="another nonce"):
        open_attestation(attest(ATTESTATION, KEY), public_key=KEY.public_key, nonce="n-2")


@pytest.mark.parametrize("position", range(0, 600, 37))
def test_a_changed_payload_is_refused(position: int):
    envelope = copy.deepcopy(attest(ATTESTATION, KEY))
    payload = bytearray(base64.b64decode(envelope["payload"]))
    payload[position] ^= 1
    envelope["payload"] = base64.b64encode(payload).decode()
    with pytest.raises(InvalidInputError, match="no valid signature"):
        open_attestation(envelope, public_key=KEY.public_key, nonce="n-1")


@pytest.mark.parametrize(
    "envelope", [None, 1, [], {}, {"payload": "!", "payloadType": "x", "signatures": []}, {"payload": 1}]
)
def test_what_is_no_envelope_is_refused(envelope: object):
    with pytest.raises(InvalidInputError, match="attestation"):
        open_attestation(envelope, public_key=KEY.public_key, nonce="n-1")


def test_a_signed_statement_about_something_else_is_refused():
    """Signed by the right key, but the subject is not the shard that the predicate speaks of."""
    from vram_residency.seal import attestation as module

    payload = json.loads(base64.b64decode(attest(ATTESTATION, KEY)["payload"]))
    payload["subject"] = [{"name": "other", "digest": {"blake3": "0" * 64}}]
    data = json.dumps(payload).encode()
    envelope = {
        "payloadType": module.PAYLOAD_TYPE,
        "payload": base64.b64encode(data).decode(),
        "signatures": [{"keyid": "", "sig": base64.b64encode(KEY.sign(module._pae(data))).decode()}],
    }
    with pytest.raises(InvalidInputError, match="something else"):
        open_attestation(envelope, public_key=KEY.public_key, nonce="n-1")
