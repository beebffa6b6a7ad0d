"""Cosignatures (C2SP tlog-cosignature v1): what a witness signed is accepted, and nothing else."""

from __future__ import annotations

import base64

import pytest
from tests.independent_log import make_log
from tests.witness_server import Witness

from vram_residency.audit.format import cosignature, note
from vram_residency.audit.format.cosignature import WitnessKey

WITNESS = Witness(name="witness.example.com/w1", seed=bytes(range(32)))
KEY = WitnessKey.parse(WITNESS.vkey)
TEXT = "example.com/behind-the-sofa\n20852163\nCsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I=\n"


def _note(*lines: bytes) -> bytes:
    return f"{TEXT}\n".encode() + b"".join(lines)


def test_a_cosignature_says_who_and_when() -> None:
    found = cosignature.verify(_note(WITNESS.cosign(TEXT, 1_679_315_147)), [KEY])
    assert [(one.key, one.time_s) for one in found] == [(KEY, 1_679_315_147)]
    assert found[0].line.encode() == WITNESS.cosign(TEXT, 1_679_315_147)


def test_a_witness_key_is_read_in_both_types_and_printed_in_its_own() -> None:
    assert WitnessKey.parse(WITNESS.vkey_of_type(1)) == KEY
    assert str(KEY) == WITNESS.vkey


def test_signatures_by_others_are_passed_over() -> None:
    other = Witness(name="other.example")
    maker = make_log()
    by_log = maker.checkpoint().rpartition(b"\n\n")[2]
    found = cosignature.verify(_note(by_log, other.cosign(TEXT), WITNESS.cosign(TEXT)), [KEY])
    assert [one.key for one in found] == [KEY]
    assert cosignature.verify(_note(other.cosign(TEXT)), [KEY]) == []


def test_of_two_by_one_key_the_newest_counts_and_both_must_be_right() -> None:
    early, late = WITNESS.cosign(TEXT, 5), WITNESS.cosign(TEXT, 9)
    for lines in [(early, late), (late, early)]:
        assert [one.time_s for one in cosignature.verify(_note(*lines), [KEY])] == [9]
    wrong = WITNESS.cosign(TEXT + "x", 7)
    with pytest.raises(note.NoteVerificationError, match="is wrong"):
        cosignature.verify(_note(early, wrong), [KEY])


def test_every_changed_byte_of_a_cosignature_is_refused() -> None:
    good = WITNESS.cosign(TEXT)
    head, data = good.decode().rstrip("\n").rsplit(" ", 1)
    raw = base64.b64decode(data)
    for at in range(4, len(raw)):
        changed = raw[:at] + bytes([raw[at] ^ 1]) + raw[at + 1 :]
        line = f"{head} {base64.b64encode(changed).decode()}\n".encode()
        with pytest.raises(note.NoteVerificationError, match="is wrong"):
            cosignature.verify(_note(line), [KEY])
    for short in (raw[:-1], raw + b"\0", raw[:12], raw[:5]):
        line = f"{head} {base64.b64encode(short).decode()}\n".encode()
        with pytest.raises(note.NoteVerificationError, match="is wrong"):
            cosignature.verify(_note(line), [KEY])


def test_a_time_beyond_the_limit_is_refused_though_it_is_signed() -> None:
    with pytest.raises(note.NoteVerificationError, match="is wrong"):
        cosignature.verify(_note(WITNESS.cosign(TEXT, 2**63)), [KEY])


def test_a_note_signature_is_no_cosignature() -> None:
    """The same key under the other type signs other bytes: neither counts for the other."""
    signature = WITNESS.private.sign(TEXT.encode())
    line = f"\u2014 {KEY.name} {base64.b64encode(KEY.id + bytes(8) + signature).decode()}\n".encode()
    with pytest.raises(note.NoteVerificationError, match="is wrong"):
        cosignature.verify(_note(line), [KEY])


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "form"),
        (WITNESS.vkey[:-4], "base64|Ed25519|second form"),
        (WITNESS.vkey_of_type(2), "only Ed25519"),
        (WITNESS.vkey.replace(KEY.id.hex(), "00000000"), "does not fit"),
        (f"w+{'0' * 8}+{base64.b64encode(bytes([4]) + bytes(32)).decode()}", "small order"),
    ],
)
def test_a_malformed_witness_key_is_refused(text: str, reason: str) -> None:
    with pytest.raises(note.NoteFormatError, match=reason):
        WitnessKey.parse(text)
