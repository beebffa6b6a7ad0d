"""Proofs of inclusion as text that is checked offline (C2SP tlog-proof). Pure.

::

    c2sp.org/tlog-proof@v1
    extra <base64>                      (only where there is some)
    index <decimal>
    <hash, base64>                      (from the leaf's sibling up)
                                        (an empty line)
    <signed checkpoint>
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Iterable
from typing import Final

import msgspec

from vram_residency.audit.format import note, proof, tree
from vram_residency.audit.format.checkpoint import (
    Checkpoint,
    CheckpointFormatError,
    SignedCheckpoint,
    open_signed,
)

PROOF_BYTES_MAX: Final = 131_072
_HEADER: Final = "c2sp.org/tlog-proof@v1"
_INDEX: Final = re.compile(r"index (0|[1-9][0-9]{0,18})\Z")
_EXTRA: Final = "extra "


class TlogProofFormatError(ValueError):
    """Bytes are not a proof of the one form that is printed here."""


class TlogProof(msgspec.Struct, frozen=True):
    """That a leaf stands at ``index`` under a checkpoint.

    ``hashes`` go from the leaf's sibling up, 32 bytes each; ``checkpoint`` carries the log's signature and
    the cosignatures there are. ``extra`` is authenticated by nothing.
    """

    index: int
    hashes: tuple[bytes, ...]
    checkpoint: SignedCheckpoint
    extra: bytes | None = None

    def __bytes__(self) -> bytes:
        """The text; what parse() reads."""
        lines = [_HEADER]
        if self.extra is not None:
            lines.append(_EXTRA + encode_hash(self.extra))
        lines += [f"index {self.index}", *map(encode_hash, self.hashes), ""]
        return "".join(f"{line}\n" for line in lines).encode("ascii") + self.checkpoint.note_bytes

    @classmethod
    def parse(cls, unverified: bytes) -> TlogProof:
        """The inverse of ``bytes``. Nothing is verified yet. Raises TlogProofFormatError."""
        if len(unverified) > PROOF_BYTES_MAX:
            raise TlogProofFormatError(f"a proof is at most {PROOF_BYTES_MAX} bytes")
        head, separator, note_bytes = unverified.partition(b"\n\n")
        if not separator:
            raise TlogProofFormatError("no empty line before the checkpoint")
        try:
            lines = head.decode("ascii").split("\n")
            checkpoint = SignedCheckpoint(Checkpoint.parse(note.split(note_bytes)[0]), note_bytes)
            return cls._of_lines(lines, checkpoint)
        except (UnicodeDecodeError, note.NoteFormatError, CheckpointFormatError) as error:
            raise TlogProofFormatError(str(error)) from None

    @classmethod
    def _of_lines(cls, lines: list[str], unverified_checkpoint: SignedCheckpoint) -> TlogProof:
        if lines.pop(0) != _HEADER:
            raise TlogProofFormatError(f"the first line is not {_HEADER}")
        has_extra = bool(lines) and lines[0].startswith(_EXTRA)
        extra = decode_base64(lines.pop(0).removeprefix(_EXTRA)) if has_extra else None
        match = _INDEX.match(lines.pop(0)) if lines else None
        if match is None or int(match[1]) > tree.SIZE_MAX:
            raise TlogProofFormatError("no line 'index N'")
        return cls(int(match[1]), decode_hashes(lines), unverified_checkpoint, extra)

    def verify(self, leaf_hash: bytes, keys: Iterable[note.VerifierKey], *, origin: str) -> None:
        """Raise ValueError unless one of ``keys`` signed a tree of ``origin`` with this leaf at ``index``.

        NoteVerificationError, CheckpointFormatError and ProofError say which of it failed.
        """
        # 1. The checkpoint is the log's own, whatever this object was made of.
        signed = open_signed(self.checkpoint.note_bytes, keys, origin=origin)
        # 2. The leaf is under it.
        proof.verify_inclusion(
            leaf_hash, index=self.index, size=signed.size, root=signed.root, hashes=self.hashes
        )


def decode_hashes(lines: list[str]) -> tuple[bytes, ...]:
    """One hash a line. Raises TlogProofFormatError."""
    if len(lines) > proof.HASHES_MAX:
        raise TlogProofFormatError(f"over {proof.HASHES_MAX} hashes")
    hashes = tuple(map(decode_base64, lines))
    if any(len(hash_) != tree.HASH_BYTES for hash_ in hashes):
        raise TlogProofFormatError("a hash is not 32 bytes")
    return hashes


def encode_hash(data: bytes) -> str:
    """Base64 (RFC 4648 section 4) of a hash, or of any bytes."""
    return base64.b64encode(data).decode("ascii")


def decode_base64(text: str) -> bytes:
    """The inverse, of the one canonical form. Raises TlogProofFormatError."""
    try:
        data = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        raise TlogProofFormatError("not base64") from None
    if encode_hash(data) != text:
        raise TlogProofFormatError("base64 in a second form")
    return data
