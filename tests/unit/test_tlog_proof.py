"""C2SP tlog-proof text: printing and parsing are inverse, and no changed byte is accepted."""

from __future__ import annotations

import base64
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.independent_log import leaf_of, make_log

from vram_residency.audit import prove_inclusion
from vram_residency.audit.format import note
from vram_residency.audit.format.checkpoint import Checkpoint, SignedCheckpoint
from vram_residency.audit.format.proof import ProofError
from vram_residency.audit.format.tlog_proof import TlogProof, TlogProofFormatError

#: The example of the specification, its shortened signatures filled up with zeros.
EXAMPLE = (
    "c2sp.org/tlog-proof@v1\n"
    "extra YWdlLXYxLjIuMS1kYXJ3aW4tYXJtNjQudGFyLmd6\n"
    "index 73894\n"
    "gSKyXoYZUgZ6jduWYrkDOARinOMGJveXjgMkBTcdPlQ=\n"
    "B95lDa8R83lS8n0eG+o0buTxRKQTYFi//1U8anccXmA=\n"
    "EKNzoDWG8LGC0Yp9o+sv3qllpMP9uHQ9B20KNL+Q1zs=\n"
    "RoopEkOdqkYqMB4MJXrbt/hMjOxsVn0IrWjpz1ZMMes=\n"
    "AHCioX9nLjsrse6YhjRRmk1WUEirVOLLRoOQ6vfO5vk=\n"
    "\n"
    "example.com/fancylog\n"
    "109482\n"
    "sFodV/vSp5O8n9a8QpW6PRY97tfOSW5bsc2Xl/EQi08=\n"
    "\n"
    f"\u2014 example.com/fancylog {base64.b64encode(bytes(68)).decode()}\n"
    f"\u2014 witness1.example {base64.b64encode(bytes(76)).decode()}\n"
).encode()


def test_the_example_of_the_specification_is_read_and_printed_unchanged() -> None:
    read = TlogProof.parse(EXAMPLE)
    assert read.index == 73894
    assert read.extra == b"age-v1.2.1-darwin-arm64.tar.gz"
    assert (read.checkpoint.origin, read.checkpoint.size) == ("example.com/fancylog", 109482)
    assert [hash_[:1].hex() for hash_ in read.hashes] == ["81", "07", "10", "46", "00"]
    assert bytes(read) == EXAMPLE


@given(
    st.integers(0, 2**63 - 1),
    st.lists(st.binary(min_size=32, max_size=32), max_size=63),
    st.none() | st.binary(max_size=200),
)
def test_printing_and_parsing_are_inverse(index: int, hashes: list[bytes], extra: bytes | None) -> None:
    checkpoint = Checkpoint("a/b", 7, bytes(32))
    note_bytes = note.join(checkpoint.encode(), [note.Signature("k", b"abcd", b"s")])
    made = TlogProof(index, tuple(hashes), SignedCheckpoint(checkpoint, note_bytes), extra)
    assert TlogProof.parse(bytes(made)) == made


@pytest.mark.parametrize("seals", [0, 1, 6])
def test_every_changed_byte_of_a_proof_is_refused(tmp_path: Path, seals: int) -> None:
    """Each byte replaced in three ways, removed, and doubled: nothing of a proof is decoration."""
    maker = make_log(seals)
    maker.write(tmp_path / "log")
    index = len(maker.lines) // 2
    text = bytes(prove_inclusion(tmp_path / "log", index))
    keys, leaf_hash = [note.VerifierKey.parse(maker.vkey)], leaf_of(maker.lines[index])
    TlogProof.parse(text).verify(leaf_hash, keys, origin=maker.origin)
    for at in range(len(text)):
        before, byte, after = text[:at], text[at], text[at + 1 :]
        changed = [bytes([other]) for other in (byte ^ 1, byte ^ 0x20, 0x0A) if other != byte]
        for middle in [*changed, b"", bytes([byte, byte])]:
            with pytest.raises(ValueError, match=r"."):
                TlogProof.parse(before + middle + after).verify(leaf_hash, keys, origin=maker.origin)


def test_a_proof_is_of_one_leaf_one_log_and_one_key(tmp_path: Path) -> None:
    maker, other = make_log(), make_log()
    maker.write(tmp_path / "log")
    made = prove_inclusion(tmp_path / "log", 2).proof
    keys, leaf_hash = [note.VerifierKey.parse(maker.vkey)], leaf_of(maker.lines[2])
    made.verify(leaf_hash, keys, origin=maker.origin)
    with pytest.raises(ProofError, match="does not lead to the root"):
        made.verify(leaf_of(maker.lines[3]), keys, origin=maker.origin)
    with pytest.raises(ValueError, match="another log"):
        made.verify(leaf_hash, keys, origin=other.origin)
    with pytest.raises(note.NoteVerificationError, match="no known key"):
        made.verify(leaf_hash, [note.VerifierKey.parse(other.vkey)], origin=maker.origin)


def test_what_an_object_claims_beside_its_note_counts_for_nothing(tmp_path: Path) -> None:
    maker = make_log()
    maker.write(tmp_path / "log")
    made = prove_inclusion(tmp_path / "log", 2).proof
    keys, forged = [note.VerifierKey.parse(maker.vkey)], bytes(32)
    claimed = SignedCheckpoint(Checkpoint(maker.origin, 1, forged), made.checkpoint.note_bytes)
    with pytest.raises(ProofError):
        TlogProof(0, (), claimed).verify(forged, keys, origin=maker.origin)


HEAD, BODY, REST = EXAMPLE.split(b"\n")[0], EXAMPLE.partition(b"\n\n")[0], EXAMPLE.partition(b"\n\n")[2]


@pytest.mark.parametrize(
    ("bad", "reason"),
    [
        (b"", "no empty line"),
        (EXAMPLE[:-1], "newline at the end"),
        (b"\n" + EXAMPLE, "first line"),
        (EXAMPLE.replace(b"@v1", b"@v2"), "first line"),
        (EXAMPLE.replace(b"index 73894\n", b""), "index N"),
        (EXAMPLE.replace(b"index 73894", b"index 073894"), "index N"),
        (EXAMPLE.replace(b"index 73894", b"index +73894"), "index N"),
        (EXAMPLE.replace(b"index 73894", b"index 9223372036854775808"), "index N"),
        (EXAMPLE.replace(b"extra ", b"extra  "), "not base64|second form"),
        (EXAMPLE.replace(b"\n", b"\r\n"), "no empty line"),
        (HEAD + b"\n\n" + REST, "index N"),
        (BODY + b"\nAA==\n\n" + REST, "32 bytes"),
        (BODY + b"\n" + base64.b64encode(bytes(32)) * 2 + b"\n\n" + REST, "not base64|second form"),
        (BODY + (b"\n" + base64.b64encode(bytes(32))) * 60 + b"\n\n" + REST, "over 63"),
        (BODY.replace(b"vk=", b"vl=") + b"\n\n" + REST, "second form"),
        (BODY + "\nä".encode() + b"\n\n" + REST, "ascii"),
        (BODY + b"\n\n" + REST.replace(b"109482", b"0109482"), "leading zeros"),
        (EXAMPLE + b" " * 140_000, "at most"),
    ],
)
def test_a_malformed_proof_is_refused_with_its_reason(bad: bytes, reason: str) -> None:
    with pytest.raises(TlogProofFormatError, match=reason):
        TlogProof.parse(bad)
