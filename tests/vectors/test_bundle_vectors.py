"""The bytes of a proof bundle are pinned, its page among them: another byte is another format.

Whoever gets here by changing the page must raise the version in ``bundle.FORMAT``, keep the old page for
bundles of the old version, and pin the new one.
"""

from __future__ import annotations

import hashlib
import json

from tests.independent_log import leaf_of, root_of

from vram_residency.audit.format import checkpoint, note
from vram_residency.core.canonical import canonical_json
from vram_residency.core.ed25519 import SigningKey
from vram_residency.evidence.bundle import Bundle, ProvenEntry, Subject, encode
from vram_residency.evidence.checking import Keys, check
from vram_residency.seal.attestation import Attestation, attest
from vram_residency.seal.statement import Statement, sha256_hex

ORIGIN = "worker-gpu-0/" + "5" * 32
KEY = note.SignerKey(ORIGIN, SigningKey(bytes(range(32))))
RECORD = {"device": {"kind": "host", "locked": True}, "facts": [1, "<b>", None]}
STATEMENT = Statement(
    seal_id="1" * 32,
    shard_id="s-1",
    digest="blake3:" + "ab" * 32,
    groups_digest="blake3:" + "cd" * 32,
    layout_digest="blake3:" + "ef" * 32,
    vram_bytes=1_048_576,
    gpu_device=0,
    device_uuid="u",
    boot_id="b",
    sealed_at="2025-10-02T10:00:00.000000Z",
    worker_id="w",
    access="read_only",
    residency_sha256=sha256_hex(canonical_json(RECORD)),
)


def _line(index: int, event_type: str, **fields: object) -> bytes:
    head = {
        "index": index,
        "timestamp": "2025-10-02T10:00:00.000000Z",
        "event_type": event_type,
        "service_id": "worker-gpu-0",
        "audit_id": f"5f1c9a02-{index}",
    }
    return json.dumps({**head, **fields, "mac": "0" * 64}, separators=(",", ":"), ensure_ascii=False).encode()


LINES = [
    _line(
        0,
        "vram_sealed",
        shard_id="s-1",
        seal_sha256=sha256_hex(STATEMENT.canonical()),
        residency_sha256=STATEMENT.residency_sha256,
        model_ref="<i>&\"'\\u{202E}é",
        sanitized=["model_ref"],
    ),
    _line(1, "acme.other", values=[1, True, "x"]),
    _line(2, "seal_verified", shard_id="s-1", seal_sha256=sha256_hex(STATEMENT.canonical())),
]
LEAVES = [leaf_of(line) for line in LINES]


def _bundle() -> Bundle:
    attestation = Attestation(
        nonce="n",
        statement=STATEMENT,
        scope="full",
        read_from="2025-10-02T10:00:01.000000Z",
        read_to="2025-10-02T10:00:02.000000Z",
        audit_index=2,
    )
    signed = checkpoint.sign(checkpoint.Checkpoint(ORIGIN, 3, root_of(LEAVES)), KEY)
    return Bundle(
        subject=Subject(shard_id="s-1"),
        vkeys=(str(KEY.verifier),),
        note_bytes=bytes(signed),
        entries=(
            ProvenEntry(0, LINES[0], (LEAVES[1], LEAVES[2])),
            ProvenEntry(2, LINES[2], (root_of(LEAVES[:2]),)),
        ),
        attestation=canonical_json(attest(attestation, SigningKey(bytes(32)))),
        residency=canonical_json(RECORD),
    )


def test_the_bytes_of_version_1_never_change() -> None:
    data = encode(_bundle())
    assert check(data, Keys(log=KEY.verifier)).verdict == "proven"
    assert hashlib.sha256(data).hexdigest() == (
        "7fcdc0bb3b5b7e859271b1027e223b1aaff6988050828abf55f2445f8b0e56ae"
    )
