"""Making a proof bundle from a log on disk (spec: cli.md, `vram proof export`). Read-only."""

from __future__ import annotations

import os

import msgspec

from vram_residency.audit.publishing.proving import inclusions_of
from vram_residency.audit.publishing.signed_log import Progress, SignedLog
from vram_residency.audit.reading.query import find, parse, query
from vram_residency.core.errors import InvalidInputError, LogDamagedError
from vram_residency.evidence.attachments import canonical_attachment
from vram_residency.evidence.bundle import (
    ENTRIES_MAX,
    Bundle,
    BundleFormatError,
    ProvenEntry,
    Subject,
    encode,
)
from vram_residency.evidence.checking import Keys, check_bundle


class Made(msgspec.Struct, frozen=True):
    """A bundle, its file, and how many entries about its subject no checkpoint covers yet."""

    bundle: Bundle
    data: bytes
    uncovered_entries: int


def make_bundle(
    directory: str | os.PathLike[str],
    subject: Subject,
    *,
    attestation: bytes | None = None,
    residency: bytes | None = None,
    on_progress: Progress | None = None,
) -> Made:
    """Bundle one entry, or all entries of a shard that are under the newest checkpoint.

    ``attestation`` (a DSSE envelope) and ``residency`` (a residency record) are JSON, and must fit the
    entries. Raises InvalidInputError (no such entry or shard, none under a checkpoint yet, too many, an
    attachment that does not fit), ConfigurationError (no log), LogDamagedError.
    """
    log = SignedLog.open(directory)
    # 1. The entries as they stand.
    lines, uncovered = _lines(log, subject)
    # 2. Their proofs.
    proven = inclusions_of(log, lines, on_progress)
    bundle = Bundle(
        subject=subject,
        vkeys=log.config.vkeys,
        note_bytes=log.cosigned_note(),
        entries=tuple(
            ProvenEntry(index, line, proven[index].proof.hashes) for index, line in sorted(lines.items())
        ),
        attestation=None if attestation is None else canonical_attachment("attestation", attestation),
        residency=None if residency is None else canonical_attachment("residency", residency),
    )
    try:
        data = encode(bundle)
    except BundleFormatError as error:
        raise InvalidInputError("bundle", f"cannot be made: {error}") from None
    # 3. It proves what it says: a mistake here must not reach an auditor.
    _require_proof(log, bundle)
    return Made(bundle, data, uncovered)


def _lines(log: SignedLog, subject: Subject) -> tuple[dict[int, bytes], int]:
    """Index and line of each entry under the checkpoint, and how many more there are."""
    if subject.entry is not None:
        return {subject.entry: find(log.directory.path, subject.entry).line}, 0
    lines: dict[int, bytes] = {}
    uncovered = 0
    for line in query(log.directory.path, shard=subject.shard_id):
        index = (parse(line) or {}).get("index")
        if not isinstance(index, int) or index < 0:
            raise LogDamagedError(str(log.directory.entries), None, "a line is not an entry")
        if index < log.size:
            lines[index] = line
        else:
            uncovered += 1
        if len(lines) > ENTRIES_MAX:
            raise InvalidInputError(
                "shard", f"has over {ENTRIES_MAX} entries", hint="Export single entries by their index."
            )
    if not lines:
        raise InvalidInputError(
            "shard",
            f"no entry under the newest checkpoint is about {subject.shard_id}",
            hint="An entry that was just written is covered a second later, and when the log is closed.",
        )
    return lines, uncovered


def _require_proof(log: SignedLog, bundle: Bundle) -> None:
    # The checkpoint is this log's own already: what may still be wrong is the rest.
    wrong = [step for step in check_bundle(bundle, Keys()).steps if step.holds is False]
    for step in wrong:
        if step.name in {"attestation", "residency"}:
            raise InvalidInputError(
                step.name, f"does not fit: {step.finding}", hint="Is it about this shard?"
            )
        raise LogDamagedError(str(log.directory), None, step.finding)
