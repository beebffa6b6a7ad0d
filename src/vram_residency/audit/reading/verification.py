"""Verification of a log on disk (spec: audit-log.md section 6): one pass, flat memory, no writes.

It may run beside a live writer: what says how long the log is (mac.key, checkpoint) is read before the
entries, and the writer syncs entries before it writes either.
"""

from __future__ import annotations

import contextlib
import os

from vram_residency.audit.format import note
from vram_residency.audit.format.checkpoint import SignedCheckpoint
from vram_residency.audit.reading import source as reading
from vram_residency.audit.reading import trust
from vram_residency.audit.reading.examination import Examination
from vram_residency.audit.reading.survey import Progress
from vram_residency.audit.reading.verdict import Verdict
from vram_residency.audit.store.directory import Directory
from vram_residency.core.errors import InvalidInputError

Note = bytes | str | SignedCheckpoint


def verify(
    directory: str | os.PathLike[str],
    *,
    vkey: str | None = None,
    mac_key: bytes | str | None = None,
    checkpoint: Note | None = None,
    keys: str | os.PathLike[str] | None = None,
    workers: int | None = None,
    on_progress: Progress | None = None,
) -> Verdict:
    """Check a log's bytes and say which of the six verdicts holds.

    ``vkey`` is the log's public key (text), ``mac_key`` is K_0 (32 bytes or 64 hex), ``checkpoint`` a
    signed note kept elsewhere. Without a key given, those in ``keys`` (default ``<directory>.keys``)
    count. A large log is checked by ``workers`` processes (default: one for each core; 1: none but this one);
    ``on_progress`` is told bytes done and bytes in all. Raises InvalidInputError where there is no log or an
    argument is malformed, ConfigurationError where local keys are open to others.
    """
    place = Directory(directory)
    _require_log(place)
    trusted = trust.gather(place.default_keys, vkey=vkey, mac_key=mac_key, keys=keys)
    outside_note = None if checkpoint is None else _note_bytes(checkpoint)
    first = _first_segment(place)
    while True:
        run = Examination(place, trusted, outside_note, workers=workers, on_progress=on_progress)
        verdict, before, first = run.run(), first, _first_segment(place)
        # Where it was pruned under our hands, what we read first does not fit the rest.
        if verdict or first == before:
            return verdict


def _first_segment(place: Directory) -> int | None:
    with contextlib.suppress(OSError):
        return next((segment.first_index for segment in reading.segments(place.entries)), None)
    return None


def _require_log(place: Directory) -> None:
    if not place.path.is_dir():
        raise InvalidInputError(
            "directory", f"{place} is not a directory", hint="Name an audit log's directory."
        )
    if not any(path.exists() for path in (place.log_json, place.checkpoint, place.entries)):
        raise InvalidInputError(
            "directory",
            f"{place} is not an audit log",
            hint="Name the directory that holds log.json; `vram audit init` makes one.",
        )


def _note_bytes(checkpoint: Note) -> bytes:
    data = checkpoint.encode() if isinstance(checkpoint, str) else bytes(checkpoint)
    try:
        note.verify(data, ())
    except note.NoteVerificationError:
        return data  # a note; whose it is comes later
    except note.NoteFormatError as error:
        raise InvalidInputError("checkpoint", f"is not a signed note: {error}") from None
    return data
