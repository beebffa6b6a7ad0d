"""Fuzz what is read of proofs and cosignatures: refused in its own words, or printed as it was read.

``python fuzz/fuzz_proofs.py --runs 100000 --seed 1``
Targets: tlog-proof text, entry bundles, witness keys, cosigned notes.
"""

from __future__ import annotations

import base64
from collections.abc import Callable

from mutation import of_many, run

from vram_residency.audit.format import checkpoint, cosignature, note, tiles, tlog_proof, tree
from vram_residency.core.ed25519 import SigningKey

ORIGIN = "s/" + "0" * 32
SEED = SigningKey(bytes(range(32)))
KEY = note.SignerKey(ORIGIN, SEED)
LEAVES = [tree.leaf_hash(bytes([number])) for number in range(3)]
SIGNED = checkpoint.sign(checkpoint.Checkpoint(ORIGIN, 3, tree.Frontier().extend(LEAVES).root()), KEY)
PROOF = tlog_proof.TlogProof(0, (LEAVES[1], LEAVES[2]), SIGNED)
WITNESS = cosignature.WitnessKey("w.example", SEED.public_key)
TEXT = SIGNED.checkpoint.encode()
TIME_S = 7
COSIGNATURE = TIME_S.to_bytes(8, "big") + SEED.sign(f"cosignature/v1\ntime {TIME_S}\n{TEXT}".encode())
COSIGNED = note.join(TEXT, [note.Signature(WITNESS.name, WITNESS.id, COSIGNATURE)])
BUNDLE = tiles.join_entries([b"a", b"", b"c" * 300])
PIECES = (b"\n", b"\n\n", b"index ", b"extra ", b"old ", b"0", b"-", b"=", b"\xff", b"\x00", b"+", b" ")
PIECES += ("\u2014 ".encode(), b"9223372036854775808", base64.b64encode(bytes(32)) + b"\n")


def _proof(data: bytes) -> bool:
    return bytes(tlog_proof.TlogProof.parse(data)) == data


def _verified(data: bytes) -> bool:
    read = tlog_proof.TlogProof.parse(data)
    read.verify(LEAVES[0], [KEY.verifier], origin=ORIGIN)
    return read.index == 0 and read.hashes == PROOF.hashes


def _bundle(data: bytes) -> bool:
    return tiles.join_entries(tiles.split_entries(data, 3)) == data


def _witness_key(data: bytes) -> bool:
    return cosignature.WitnessKey.parse(data.decode()).id == WITNESS.id


def _cosigned(data: bytes) -> bool:
    found = cosignature.verify(data, [WITNESS])
    if not found:
        raise ValueError("no cosignature by the key")
    return found[0].time_s == TIME_S


#: A valid input, its parser (True: it means what the valid one means), and the only error it may raise.
TARGETS: tuple[tuple[bytes, Callable[[bytes], bool], type[ValueError]], ...] = (
    (bytes(PROOF), _proof, tlog_proof.TlogProofFormatError),
    (bytes(PROOF), _verified, ValueError),
    (BUNDLE, _bundle, tiles.TileFormatError),
    (str(WITNESS).encode(), _witness_key, ValueError),
    (COSIGNED, _cosigned, ValueError),
)


make, check = of_many(TARGETS, PIECES)


if __name__ == "__main__":
    run(make, check)
