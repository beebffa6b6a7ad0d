"""Fuzz proof bundles: refused in their own words, or read as the same file; never proven unless unchanged.

``python fuzz/fuzz_bundle.py --runs 100000 --seed 1``
Targets: the file as it is; its members changed and archived again, so that what is inside is reached.
"""

from __future__ import annotations

from mutation import of_many, run

from vram_residency.audit.format import checkpoint, note, proof, tree
from vram_residency.core.ed25519 import SigningKey
from vram_residency.evidence import container
from vram_residency.evidence.bundle import (
    Bundle,
    BundleFormatError,
    ProvenEntry,
    Subject,
    decode,
    encode,
)
from vram_residency.evidence.checking import Keys, check_bundle

ORIGIN = "s/" + "0" * 32
KEY = note.SignerKey(ORIGIN, SigningKey(bytes(range(32))))


def _line(index: int) -> bytes:
    head = f'{{"index":{index},"timestamp":"2025-10-02T10:00:00.000000Z","event_type":"seal_verified"'
    rest = f',"service_id":"s","audit_id":"00000000-{index}","shard_id":"a","worker_id":"w","mac":"'
    return f'{head}{rest}{"0" * 64}"}}'.encode()


LINES = [_line(index) for index in range(3)]
COLLECTOR = proof.NodeCollector([])
COLLECTOR.feed(map(tree.leaf_hash, LINES))
SIGNED = checkpoint.sign(checkpoint.Checkpoint(ORIGIN, 3, COLLECTOR.root()), KEY)
LEAVES = [tree.leaf_hash(line) for line in LINES]
HASHES = ((LEAVES[1], LEAVES[2]), (LEAVES[0], LEAVES[2]))
GOOD = encode(
    Bundle(
        subject=Subject(shard_id="a"),
        vkeys=(str(KEY.verifier),),
        note_bytes=bytes(SIGNED),
        entries=tuple(ProvenEntry(index, LINES[index], HASHES[index]) for index in range(2)),
        residency=b'{"a":1}',
    )
)
MEMBERS = container.split_members(GOOD)
#: Members cannot hold these bytes, so that they can be told apart again.
MARK = b"\x00\xff\x00"
PARTS = MARK.join(part for name, data in MEMBERS.items() for part in (name.encode(), data))
PIECES = (b"PK\x03\x04", b"PK\x01\x02", b"PK\x05\x06", b"\x00", b"\xff" * 4, b"../", b"\n\n", MARK)
PIECES += (b"bundle.json", b"entries/", b"proofs/", b'"index":', b"index ", b"{}", b"[]", b'"', b"</p>")


def _file(data: bytes) -> bool:
    return encode(decode(data)) == data


def _members(data: bytes) -> bool:
    parts = data.split(MARK)
    names = [part.decode("utf-8", "replace") for part in parts[::2]]
    archive = container.join_members(dict(zip(names, parts[1::2], strict=False)))
    bundle = decode(archive)
    found = check_bundle(bundle, Keys(log=KEY.verifier))
    # The residency record of the good one names no entry: nothing here is ever proven.
    return found.verdict == "refuted" and encode(bundle) == archive


def _archived(data: bytes) -> bool:
    try:
        return _members(data)
    except container.ContainerFormatError as error:
        raise BundleFormatError(str(error)) from None


#: A valid input, its parser (True: what was read makes the same file), and the only error it may raise.
TARGETS = ((GOOD, _file, BundleFormatError), (PARTS, _archived, BundleFormatError))
make, check = of_many(TARGETS, PIECES)


if __name__ == "__main__":
    run(make, check)
