"""Checkpoints (C2SP tlog-checkpoint): what a log was, signed in three lines. Pure.

::

    <origin>
    <tree size, decimal>
    <root hash, base64>
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Iterable
from typing import Final

import msgspec

from vram_residency.audit.format import note, tree

_SIZE = re.compile(r"(0|[1-9][0-9]{0,18})\Z")
_LINES: Final = 3


class CheckpointFormatError(ValueError):
    """A text is not a checkpoint of the one form that this log writes."""


class Checkpoint(msgspec.Struct, frozen=True):
    """Origin, number of entries and root hash (32 bytes) of a log at one moment."""

    origin: str
    size: int
    root: bytes

    def encode(self) -> str:
        """The text that is signed."""
        return f"{self.origin}\n{self.size}\n{base64.b64encode(self.root).decode('ascii')}\n"

    @classmethod
    def parse(cls, text: str) -> Checkpoint:
        """The inverse of encode(). Extension lines are refused. Raises CheckpointFormatError."""
        lines = text.split("\n")
        if len(lines) != _LINES + 1 or lines[-1]:
            raise CheckpointFormatError("a checkpoint has exactly three lines")
        origin, size, root = lines[:_LINES]
        if not origin or _SIZE.match(size) is None or int(size) > tree.SIZE_MAX:
            raise CheckpointFormatError("a checkpoint needs an origin and a size without leading zeros")
        checkpoint = cls(origin, int(size), _parse_root(root))
        if checkpoint.encode() != text:
            raise CheckpointFormatError("the root hash is base64 in a second form")
        return checkpoint


class SignedCheckpoint(msgspec.Struct, frozen=True):
    """A checkpoint and its note, as it lies in the file ``checkpoint``."""

    checkpoint: Checkpoint
    note_bytes: bytes

    @property
    def origin(self) -> str:
        """Whose log it is."""
        return self.checkpoint.origin

    @property
    def size(self) -> int:
        """The number of entries it covers."""
        return self.checkpoint.size

    @property
    def root(self) -> bytes:
        """The root hash (32 bytes) over them."""
        return self.checkpoint.root

    def __bytes__(self) -> bytes:
        return self.note_bytes


def sign(checkpoint: Checkpoint, *keys: note.Signer) -> SignedCheckpoint:
    """Sign a checkpoint. The caller keeps the promise never to sign two that contradict each other.

    Raises SignerUnavailableError.
    """
    return SignedCheckpoint(checkpoint, note.sign(checkpoint.encode(), *keys))


def open_signed(unverified_note: bytes, keys: Iterable[note.VerifierKey], *, origin: str) -> SignedCheckpoint:
    """The checkpoint of a note that one of ``keys`` signed for ``origin``.

    Raises NoteFormatError, NoteVerificationError, CheckpointFormatError: all of them ValueError.
    """
    checkpoint = Checkpoint.parse(note.verify(unverified_note, keys))
    if checkpoint.origin != origin:
        raise CheckpointFormatError("the checkpoint belongs to another log")
    return SignedCheckpoint(checkpoint, unverified_note)


def _parse_root(text: str) -> bytes:
    try:
        root = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError) as error:
        raise CheckpointFormatError("the root hash is not base64") from error
    if len(root) != tree.HASH_BYTES:
        raise CheckpointFormatError("the root hash is not 32 bytes")
    return root
