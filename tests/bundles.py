"""Proof bundles in tests: read by the standard library's ZIP, proofs made and checked by the reference."""

from __future__ import annotations

import base64
import io
import json
import zipfile
from typing import Any

from tests.independent_log import LogMaker, leaf_of, open_note
from tests.merkle_reference import ReferenceTree

from vram_residency.evidence.bundle import Bundle, ProvenEntry, Subject

SHARD = "shard-1"


def make_log() -> LogMaker:
    """A log with some entries about one shard among others."""
    maker = LogMaker()
    maker.open()
    for number in range(5):
        maker.seal(number)
    maker.append("seal_verified", shard_id=SHARD, worker_id="w", scope="full")
    maker.append("shards_lost", shard_ids=[SHARD, "shard-9"], reason="worker died")
    maker.close()
    return maker


def bundle_of(maker: LogMaker, indexes: list[int], subject: Subject, **more: Any) -> Bundle:
    """A bundle of these entries under the log's checkpoint."""
    reference = ReferenceTree(maker.lines)
    size = len(maker.lines)
    return Bundle(
        subject=subject,
        vkeys=(maker.vkey,),
        note_bytes=more.pop("note_bytes", maker.checkpoint()),
        entries=tuple(
            ProvenEntry(index, maker.lines[index], tuple(reference.path(index, 0, size))) for index in indexes
        ),
        **more,
    )


def shard_bundle(maker: LogMaker, **more: Any) -> Bundle:
    """Everything about SHARD."""
    indexes = [index for index, line in enumerate(maker.lines) if f'"{SHARD}"'.encode() in line]
    return bundle_of(maker, indexes, Subject(shard_id=SHARD), **more)


def members_of(data: bytes) -> dict[str, bytes]:
    """What any ZIP tool finds in a bundle."""
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        assert archive.testzip() is None
        return {info.filename: archive.read(info) for info in archive.infolist()}


def independent_check(data: bytes, vkey: str) -> list[dict[str, Any]]:
    """The format page's checks with hashlib, json and zipfile alone; the entries."""
    members = members_of(data)
    manifest = json.loads(members["bundle.json"])
    assert manifest["format"] == "vram-residency/proof-bundle/v1"
    origin, size, root = open_note(members["checkpoint"], vkey)
    assert (manifest["origin"], manifest["tree_size"], manifest["root_hash"]) == (origin, size, root.hex())
    entries = []
    for item in manifest["entries"]:
        line, text = members[item["entry"]], members[item["proof"]]
        head, _, note = text.partition(b"\n\n")
        version, index, *hashes = head.decode().split("\n")
        assert (version, index) == ("c2sp.org/tlog-proof@v1", f"index {item['index']}")
        assert note == members["checkpoint"]
        assert leaf_of(line).hex() == item["leaf_hash"]
        path = [base64.b64decode(text, validate=True) for text in hashes]
        assert _climb(leaf_of(line), item["index"], size, path) == root
        entry = json.loads(line)
        assert entry["index"] == item["index"]
        entries.append(entry)
    return entries


def _climb(leaf: bytes, index: int, size: int, path: list[bytes]) -> bytes:
    """RFC 6962 section 2.1.1, downwards by recursion: the root that the path leads to."""
    from hashlib import sha256

    if size == 1:
        assert not path
        return leaf
    split = 1
    while split * 2 < size:
        split *= 2
    *lower, top = path
    if index < split:
        return sha256(b"\x01" + _climb(leaf, index, split, lower) + top).digest()
    return sha256(b"\x01" + top + _climb(leaf, index - split, size - split, lower)).digest()
