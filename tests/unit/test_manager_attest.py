"""Attestations by a manager: what a third party can check, and what it cannot be told."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest
from tests.shards import TOKEN, place, raw_bytes

from vram_residency import InvalidInputError, SealVerificationError
from vram_residency.core.ed25519 import SigningKey
from vram_residency.seal import open_attestation


def test_an_attestation_answers_the_nonce_with_what_was_just_verified():
    with place() as here:
        shard = here.manager.seal_model(raw_bytes(1000))
        envelope = json.loads(json.dumps(here.manager.attest(shard, nonce="n-1")))
        key = here.manager.attestation_public_key
        attestation = open_attestation(envelope, public_key=key, nonce="n-1")
        assert attestation.statement == here.manager.describe(shard).statement
        assert (attestation.scope, attestation.audit_index) == ("full", None)
        assert shard.sealed_at <= attestation.read_from <= attestation.read_to
        assert len(here.log.of_type("seal_verified")) == 1
        payload = base64.b64decode(envelope["payload"])
        assert TOKEN.encode() not in payload
        assert here.record(shard).signature.hex().encode() not in payload


@pytest.mark.parametrize("change", ["nonce", "key", "payload"])
def test_an_attestation_for_another_question_is_refused(change: str):
    with place() as here:
        shard = here.manager.seal_model(raw_bytes(1000))
        envelope = here.manager.attest(shard, nonce="n-1")
        key = SigningKey.generate().public_key if change == "key" else here.manager.attestation_public_key
        if change == "payload":
            payload = json.loads(base64.b64decode(envelope["payload"]))
            payload["predicate"]["scope"] = "sample"
            envelope["payload"] = base64.b64encode(json.dumps(payload).encode()).decode()
        with pytest.raises(InvalidInputError, match="attestation"):
            open_attestation(envelope, public_key=key, nonce="n-2" if change == "nonce" else "n-1")


@pytest.mark.parametrize("nonce", ["", "n" * 129, None, 5, "\ud800"])
def test_an_unsound_nonce_is_refused(nonce: Any):
    with place() as here:
        shard = here.manager.seal_model(raw_bytes(1000))
        with pytest.raises(InvalidInputError, match="nonce"):
            here.manager.attest(shard, nonce=nonce)


def test_a_damaged_shard_is_not_attested():
    with place() as here:
        shard = here.manager.seal_model(raw_bytes(1000))
        here.device.flip_bit(shard.shard_id, 0)
        with pytest.raises(SealVerificationError):
            here.manager.attest(shard, nonce="n")


def test_a_key_of_ones_own_signs_for_every_manager_that_has_it():
    key = SigningKey.generate()
    with place(attestation_key=key) as here:
        shard = here.manager.seal_model(raw_bytes(1000))
        envelope = here.manager.attest(shard, nonce="n", scope="sample")
        assert here.manager.attestation_public_key == key.public_key
        assert open_attestation(envelope, public_key=key.public_key, nonce="n").scope == "sample"


def test_adopted_tensors_are_attested_as_what_they_are():
    with place() as here:
        shard = here.manager.seal_tensors({"t": bytearray(10)})
        envelope = here.manager.attest(shard, nonce="n")
        found = open_attestation(envelope, public_key=here.manager.attestation_public_key, nonce="n")
        assert found.statement.access == "adopted"
