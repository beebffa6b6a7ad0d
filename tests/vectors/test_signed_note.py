"""Notes against the examples of golang.org/x/mod/sumdb/note."""

from __future__ import annotations

import pytest

from vram_residency.audit.format import note

PETER_SECRET = "PRIVATE+KEY+PeterNeumann+c74f20a3+AYEKFALVFGyNhPJEMzD1QIDr+Y7hfZx09iUvxdXHKDFz"
PETER = "PeterNeumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW"
TEXT = "If you think cryptography is the answer to your problem,\nthen you don't know what your problem is.\n"
SIGNATURE = (
    "— PeterNeumann x08go/ZJkuBS9UG/SffcvIAQxVBtiFupLLr8pAcE"
    "lZInNIuGUgYN1FFYC2pZSNXgKvqfqdngotpRZb6KE6RyyBwJnAM=\n"
)
ENOCH = "EnochRoot+af0cfe78+ATtqJ7zOtqQtYqOo0CpvDXNlMhV3HeJDpjrASKGLWdop"
ENOCH_SIGNATURE = (
    "— EnochRoot rwz+eBzmZa0SO3NbfRGzPCpDckykFXSdeX+MNtCO"
    "Xm2/5n2tiOHp+vAF1aGrQ5ovTG01oOTGwnWLox33WWd1RvMc+QQ=\n"
)
NOTE = f"{TEXT}\n{SIGNATURE}".encode()


def test_signing_gives_the_published_note() -> None:
    assert note.sign(TEXT, note.SignerKey.parse(PETER_SECRET)) == NOTE


def test_a_private_key_has_the_published_public_half_and_text() -> None:
    key = note.SignerKey.parse(PETER_SECRET)
    assert str(key.verifier) == PETER
    assert key.secret_text() == PETER_SECRET
    assert "AYEKFALV" not in repr(key)


def test_the_published_note_verifies_with_the_published_key() -> None:
    assert note.verify(NOTE, [note.VerifierKey.parse(PETER)]) == TEXT


def test_a_signature_by_an_unknown_key_is_passed_over() -> None:
    both = f"{TEXT}\n{SIGNATURE}{ENOCH_SIGNATURE}".encode()
    assert note.verify(both, [note.VerifierKey.parse(PETER)]) == TEXT
    assert note.verify(both, [note.VerifierKey.parse(ENOCH)]) == TEXT


def test_a_note_without_a_known_signer_is_refused() -> None:
    with pytest.raises(note.NoteVerificationError, match="no known key"):
        note.verify(NOTE, [note.VerifierKey.parse(ENOCH)])


def test_one_wrong_signature_of_a_known_key_spoils_the_note() -> None:
    forged = f"{TEXT}more\n\n{SIGNATURE}".encode()
    with pytest.raises(note.NoteVerificationError, match="signature by PeterNeumann is wrong"):
        note.verify(forged, [note.VerifierKey.parse(PETER)])
