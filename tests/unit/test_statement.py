"""The signed statement and its signature (residency.md section 4)."""

from __future__ import annotations

import hashlib
import hmac
import json
import pickle

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vram_residency.seal import Approval, SealKey, Statement
from vram_residency.seal.statement import VERSION, new_seal_id

TOKEN = "a seal token of some length"


def statement(**changes: object) -> Statement:
    fields = {
        "seal_id": "0" * 32,
        "shard_id": "shard-1",
        "digest": "blake3:" + "1" * 64,
        "groups_digest": "blake3:" + "2" * 64,
        "layout_digest": "blake3:" + "3" * 64,
        "vram_bytes": 1024,
        "gpu_device": 0,
        "device_uuid": "HOST-1",
        "boot_id": "boot",
        "sealed_at": "2026-01-01T00:00:00.000000Z",
        "worker_id": "worker-1",
        "access": "read_only",
        "residency_sha256": "4" * 64,
    }
    return Statement(**{**fields, **changes})


def test_the_canonical_bytes_are_sorted_compact_json_with_a_null_approval_and_no_absent_fields():
    text = statement().canonical().decode()
    parsed = json.loads(text)
    assert text == json.dumps(parsed, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    assert parsed["version"] == VERSION
    assert parsed["approval"] is None
    assert not {"model_ref", "shard_index", "total_shards"} & parsed.keys()


def test_every_given_field_stands_in_the_canonical_bytes():
    given_fields = {"model_ref": "llama", "shard_index": 0, "total_shards": 2}
    approval = Approval("blake3:" + "5" * 64, "caller")
    parsed = json.loads(statement(approval=approval, **given_fields).canonical())
    assert parsed["approval"] == {"expected": approval.expected, "source": "caller"}
    assert {key: parsed[key] for key in given_fields} == given_fields


def test_the_signature_is_hmac_sha256_under_the_hkdf_key_of_the_specification():
    """Derived here from RFC 5869 with the standard library alone."""
    pseudorandom = hmac.digest(b"\0" * 32, TOKEN.encode(), "sha256")
    info = b"vram-residency/seal/v1\nworker-1\nHOST-1"
    key = hmac.digest(pseudorandom, info + b"\x01", "sha256")
    expected = hmac.new(key, statement().canonical(), hashlib.sha256).digest()
    assert SealKey(TOKEN, worker_id="worker-1", device_uuid="HOST-1").sign(statement()) == expected


@given(st.sampled_from([field for field in Statement.__struct_fields__ if field != "approval"]))
def test_a_change_of_any_field_breaks_the_signature(field: str):
    key = SealKey(TOKEN, worker_id="worker-1", device_uuid="HOST-1")
    original = statement(model_ref="m", shard_index=1, total_shards=2)
    value = getattr(original, field)
    changed = msgspec.structs.replace(original, **{field: value + (1 if isinstance(value, int) else "x")})
    assert key.is_signature_of(key.sign(original), original)
    assert not key.is_signature_of(key.sign(original), changed)


@pytest.mark.parametrize(
    "other",
    [
        {"seal_token": TOKEN + "2"},
        {"worker_id": "worker-2"},
        {"device_uuid": "HOST-2"},
    ],
)
def test_another_token_worker_or_device_gives_another_key(other: dict[str, str]):
    parts = {"seal_token": TOKEN, "worker_id": "worker-1", "device_uuid": "HOST-1"}
    changed = {**parts, **other}
    keys = [
        SealKey(each["seal_token"], worker_id=each["worker_id"], device_uuid=each["device_uuid"])
        for each in (parts, changed)
    ]
    assert not keys[1].is_signature_of(keys[0].sign(statement()), statement())


def test_a_seal_key_shows_only_its_fingerprint_and_is_never_pickled():
    key = SealKey(TOKEN, worker_id="worker-1", device_uuid="HOST-1")
    assert repr(key) == f"SealKey(fingerprint='{key.fingerprint}')"
    assert len(key.fingerprint) == 6
    with pytest.raises(TypeError, match="never pickled"):
        pickle.dumps(key)


def test_seal_ids_are_32_hex_digits_and_differ():
    ids = {new_seal_id() for _ in range(100)}
    assert len(ids) == 100
    assert all(len(each) == 32 and set(each) <= set("0123456789abcdef") for each in ids)
