"""Keys and notes that must be refused."""

from __future__ import annotations

import base64

import pytest

from vram_residency.audit.format import note
from vram_residency.core import ed25519

KEY = note.SignerKey("log.example/1", ed25519.SigningKey(bytes(32)))


def _vkey(public_key: bytes, name: str = "low") -> str:
    data = base64.b64encode(b"\x01" + public_key).decode()
    return f"{name}+{note.key_id(name, public_key).hex()}+{data}"


@pytest.mark.parametrize("y", [0, 1, 2**255 - 20, 2**255 - 19, 2**255 - 18])
def test_unsound_public_keys_are_refused(y: int) -> None:
    """Points of small order accept signatures of anything; a second encoding is a second name."""
    with pytest.raises(note.NoteFormatError, match="small order or not canonical"):
        note.VerifierKey.parse(_vkey(y.to_bytes(32, "little")))


@pytest.mark.parametrize(
    "text",
    [
        "",
        "name",
        "name+12345678",
        "name+0000000g+AAAA",
        "na me+00000000+AAAA",
        "+00000000+AAAA",
        "name+00000000+AAAA",
        f"{KEY.verifier}\n",
        f"{KEY.verifier}=",
        str(KEY.verifier).replace("log.example", "other.example"),
        str(KEY.verifier).upper(),
    ],
)
def test_malformed_keys_are_refused(text: str) -> None:
    with pytest.raises(note.NoteFormatError, match=r"."):
        note.VerifierKey.parse(text)


def test_a_malformed_private_key_is_refused_without_being_shown() -> None:
    secret = KEY.secret_text()
    for text in (secret.removeprefix("PRIVATE+KEY+"), secret.replace("log.example", "x"), secret[:-4]):
        with pytest.raises(note.NoteFormatError, match=r".") as caught:
            note.SignerKey.parse(text)
        assert secret[-20:-4] not in str(caught.value)


def test_printing_and_parsing_a_key_are_inverse() -> None:
    assert note.VerifierKey.parse(str(KEY.verifier)) == KEY.verifier
    assert note.SignerKey.parse(KEY.secret_text()).verifier == KEY.verifier


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"text\n",
        b"text\n\n",
        b"text\n\nno signature\n",
        b"text\n\n\xe2\x80\x94 name\n",
        b"text\n\n\xe2\x80\x94 name AAAA\n",
        b"text\n\n\xe2\x80\x94 name AAAAAAAA",
        b"text\n\n\xe2\x80\x94 name AAAAAAB=\n",
        b"te\x00xt\n\n\xe2\x80\x94 name AAAAAAAA\n",
        b"te\xffxt\n\n\xe2\x80\x94 name AAAAAAAA\n",
        b"text\r\n\n\xe2\x80\x94 name AAAAAAAA\n",
        b"text\n\n" + b"\xe2\x80\x94 name AAAAAAAA\n" * 101,
        b"t" * 70_000 + b"\n\n\xe2\x80\x94 name AAAAAAAA\n",
    ],
)
def test_malformed_notes_are_refused(data: bytes) -> None:
    with pytest.raises(note.NoteFormatError, match=r"."):
        note.verify(data, [KEY.verifier])


def test_a_text_that_cannot_be_a_note_is_not_signed() -> None:
    for text in ("no newline", "bell\x07\n"):
        with pytest.raises(note.NoteFormatError, match="newline"):
            note.sign(text, KEY)


def test_two_keys_can_sign_one_note() -> None:
    other = note.SignerKey.generate("other")
    signed = note.sign("text\n", KEY, other)
    assert note.verify(signed, [KEY.verifier]) == "text\n"
    assert note.verify(signed, [other.verifier]) == "text\n"
