"""Proofs about a log on disk (spec: audit-log.md section 8)."""

from __future__ import annotations

import os
from collections.abc import Mapping

import msgspec

from vram_residency.audit.format import proof
from vram_residency.audit.format.checkpoint import Checkpoint, SignedCheckpoint
from vram_residency.audit.format.receipt import Receipt
from vram_residency.audit.format.tlog_proof import TlogProof, encode_hash
from vram_residency.audit.format.tree import leaf_hash
from vram_residency.audit.publishing.signed_log import Progress, SignedLog
from vram_residency.core.errors import InvalidInputError, LogDamagedError


class Inclusion(msgspec.Struct, frozen=True):
    """The leaf hash (32 bytes) of an entry and the proof that it stands where it stands.

    ``bytes`` gives the proof as C2SP tlog-proof text.
    """

    leaf_hash: bytes
    proof: TlogProof

    def __bytes__(self) -> bytes:
        return bytes(self.proof)


class Consistency(msgspec.Struct, frozen=True, kw_only=True):
    """That the first ``old_size`` entries of a log are the beginning of its first ``size``.

    Roots and hashes have 32 bytes. ``checkpoint`` is the newest one of the log: it signs ``root`` only
    where its size is ``size``.
    """

    old_size: int
    old_root: bytes
    size: int
    root: bytes
    hashes: tuple[bytes, ...]
    checkpoint: SignedCheckpoint

    def verify(self) -> None:
        """Raise ProofError unless the hashes prove it."""
        proof.verify_consistency(
            self.hashes, old_size=self.old_size, old_root=self.old_root, size=self.size, root=self.root
        )

    @property
    def is_signed(self) -> bool:
        """Whether the newest checkpoint signs this very size."""
        return self.checkpoint.size == self.size

    def __bytes__(self) -> bytes:
        """The body of add-checkpoint (C2SP tlog-witness): old size, proof, an empty line, the checkpoint.

        Where no signed checkpoint has this size, its three lines stand there without a signature.
        """
        lines = [f"old {self.old_size}", *map(encode_hash, self.hashes), ""]
        unsigned = Checkpoint(self.checkpoint.origin, self.size, self.root).encode().encode()
        end = self.checkpoint.note_bytes if self.is_signed else unsigned
        return "".join(f"{line}\n" for line in lines).encode("ascii") + end


def prove_inclusion(
    directory: str | os.PathLike[str], entry: int | Receipt, *, on_progress: Progress | None = None
) -> Inclusion:
    """Prove that an entry, named by index or receipt, is under the log's newest checkpoint.

    The checkpoint in the proof carries the cosignatures there are of it. Raises InvalidInputError (no such
    entry, or not under a checkpoint yet), ConfigurationError (no log), LogDamagedError, also where the log
    no longer holds what the receipt says.
    """
    log = SignedLog.open(directory)
    index = entry.index if isinstance(entry, Receipt) else entry
    _require_covered(log, index)
    made = inclusions_of(log, {index: log.line(index)}, on_progress)[index]
    # The entry is the one that was promised.
    if isinstance(entry, Receipt) and entry.leaf_hash != made.leaf_hash.hex():
        raise LogDamagedError(
            str(log.directory),
            None,
            f"entry {index} is not the one for which the receipt was given",
            hint="Compare index and leaf hash with the receipt: if they are its own, the log was changed.",
        )
    return made


def inclusions_of(
    log: SignedLog, lines: Mapping[int, bytes | None], on_progress: Progress | None = None
) -> dict[int, Inclusion]:
    """Prove of many entries in one pass that each line stands at its index; None for one that was pruned.

    Raises as prove_inclusion does.
    """
    for index in lines:
        _require_covered(log, index)
    # 1. The hashes, from leaves that hash to the signed root.
    spans = {index: proof.inclusion_spans(index, log.size) for index in lines}
    leaves = {index: proof.Node(0, index) for index in lines}
    wanted = [node for index in lines for node in (leaves[index], *_nodes(spans[index]))]
    nodes = log.nodes(wanted, on_progress)
    signed = SignedCheckpoint(log.checkpoint.checkpoint, log.cosigned_note())
    keys = log.config.verifier_keys()
    found = {}
    for index, line in lines.items():
        leaf = nodes[leaves[index]]
        # 2. The entry as it stands is the one that was signed.
        _require_same(log, index, line, leaf)
        # 3. The proof proves it: a mistake here must not reach an auditor.
        made = TlogProof(index, _hashes(spans[index], nodes), signed)
        made.verify(leaf, keys, origin=log.origin)
        found[index] = Inclusion(leaf, made)
    return found


def prove_consistency(
    directory: str | os.PathLike[str],
    old_size: int,
    size: int | None = None,
    *,
    on_progress: Progress | None = None,
) -> Consistency:
    """Prove that the log of ``old_size`` entries is the beginning of that of ``size`` (default: the newest).

    Raises InvalidInputError (sizes out of order or beyond the newest checkpoint), ConfigurationError (no
    log), LogDamagedError.
    """
    return consistency_of(SignedLog.open(directory), old_size, size, on_progress)


def consistency_of(
    log: SignedLog, old_size: int, size: int | None = None, on_progress: Progress | None = None
) -> Consistency:
    """The same for a log that is open already."""
    new_size = log.size if size is None else size
    if max(old_size, new_size) > log.size:
        raise InvalidInputError(
            "size",
            f"the newest checkpoint covers {log.size} entries, and so no log of {max(old_size, new_size)}",
            hint="An entry that was just written is covered a second later, and when the log is closed.",
        )
    if not 0 <= old_size <= new_size:
        raise InvalidInputError(
            "size", "the sizes are not in order", hint="Give the old size first, then the new one."
        )
    # 1. The hashes and both roots, from leaves that hash to the signed root.
    spans = proof.consistency_spans(old_size, new_size)
    old, new = proof.Span(0, old_size), proof.Span(0, new_size)
    nodes = log.nodes(_nodes([old, new, *spans]), on_progress)
    # 2. The proof proves it.
    made = Consistency(
        old_size=old_size,
        old_root=proof.root_of(old, nodes),
        size=new_size,
        root=proof.root_of(new, nodes),
        hashes=_hashes(spans, nodes),
        checkpoint=log.checkpoint,
    )
    made.verify()
    return made


def _require_covered(log: SignedLog, index: int) -> None:
    if not 0 <= index < log.size:
        raise InvalidInputError(
            "index",
            f"the newest checkpoint covers {log.size} entries, and so no entry {index}",
            hint="An entry that was just written is covered a second later, and when the log is closed.",
        )


def _require_same(log: SignedLog, index: int, line: bytes | None, signed_leaf: bytes) -> None:
    if line is not None and leaf_hash(line) != signed_leaf:
        raise LogDamagedError(
            str(log.directory.entries), None, f"entry {index} is not the one that was signed"
        )


def _nodes(spans: list[proof.Span]) -> list[proof.Node]:
    return [node for span in spans for node in proof.nodes_of(span)]


def _hashes(spans: list[proof.Span], nodes: dict[proof.Node, bytes]) -> tuple[bytes, ...]:
    return tuple(proof.root_of(span, nodes) for span in spans)
