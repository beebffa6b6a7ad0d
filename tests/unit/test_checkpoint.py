"""Checkpoints: one form, signed for one origin."""

from __future__ import annotations

import pytest

from vram_residency.audit.format import note, tree
from vram_residency.audit.format.checkpoint import Checkpoint, CheckpointFormatError, open_signed, sign

ORIGIN = "service/" + "0" * 32
KEY = note.SignerKey.generate(ORIGIN)
EMPTY = Checkpoint(ORIGIN, 0, tree.EMPTY_ROOT)
TEXT = f"{ORIGIN}\n0\n47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=\n"


def test_a_checkpoint_is_origin_size_and_root_on_three_lines() -> None:
    assert EMPTY.encode() == TEXT
    assert Checkpoint.parse(TEXT) == EMPTY


@pytest.mark.parametrize(
    "text",
    [
        "",
        TEXT.removesuffix("\n"),
        TEXT + "extension\n",
        TEXT + "\n",
        TEXT.replace("\n0\n", "\n00\n"),
        TEXT.replace("\n0\n", "\n-1\n"),
        TEXT.replace("\n0\n", "\n+1\n"),
        TEXT.replace("\n0\n", "\n٣\n"),
        TEXT.replace("\n0\n", "\n9223372036854775808\n"),
        TEXT.replace("47DE", "47D"),
        TEXT.replace("uFU=", "uFV="),
        TEXT.replace("47DE", ""),
        TEXT.replace(ORIGIN, ""),
    ],
)
def test_anything_else_is_refused(text: str) -> None:
    with pytest.raises(CheckpointFormatError, match=r"."):
        Checkpoint.parse(text)


def test_a_signed_checkpoint_opens_with_its_key_and_origin() -> None:
    signed = sign(EMPTY, KEY)
    opened = open_signed(bytes(signed), [KEY.verifier], origin=ORIGIN)
    assert opened == signed
    assert (opened.origin, opened.size, opened.root) == (ORIGIN, 0, tree.EMPTY_ROOT)


def test_a_checkpoint_of_another_origin_is_refused() -> None:
    with pytest.raises(CheckpointFormatError, match="another log"):
        open_signed(bytes(sign(EMPTY, KEY)), [KEY.verifier], origin="other")


def test_a_changed_byte_anywhere_is_refused() -> None:
    data = sign(EMPTY, KEY).note_bytes
    for offset in range(len(data)):
        changed = bytearray(data)
        changed[offset] ^= 1
        with pytest.raises(ValueError, match=r"."):
            open_signed(bytes(changed), [KEY.verifier], origin=ORIGIN)
