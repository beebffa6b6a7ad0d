"""Retention: removing old entries so that verification can tell it from loss (spec: audit-log.md section 7).

By default everything is kept, for ever. Nothing is ever removed unasked.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import msgspec

from vram_residency.audit.format.checkpoint import SignedCheckpoint
from vram_residency.audit.log import AuditLogger
from vram_residency.audit.publishing.witness import parse_witness_vkey
from vram_residency.audit.reading import trust
from vram_residency.audit.reading.prunable import (
    Plan,
    Retention,
    listed_segments,
    make_plan,
    outside_checkpoint,
)
from vram_residency.audit.reading.survey import Progress
from vram_residency.audit.store.directory import Directory
from vram_residency.audit.store.keyring import Keyring
from vram_residency.audit.writing.options import DEFAULT_OPTIONS, LogOptions
from vram_residency.audit.writing.pruning import Pruning
from vram_residency.core.errors import InvalidInputError

__all__ = ["Removed", "Retention", "prune"]


class Removed(msgspec.Struct, frozen=True, kw_only=True):
    """Entries ``first_index`` to ``next_index`` (exclusive) that were removed, or with ``dry_run`` would be.

    Where there is nothing to remove both are the first entry that is there. ``kept_back`` counts segments
    that are old enough and stay, since no checkpoint kept elsewhere covers them.
    """

    dry_run: bool
    first_index: int
    next_index: int
    segments: tuple[str, ...] = ()
    policy: str | None = None
    root_hash: str | None = None
    kept_back: int = 0


def prune(
    log: AuditLogger | str | os.PathLike[str],
    retention: Retention,
    *,
    checkpoint: bytes | str | SignedCheckpoint | None = None,
    witness_vkeys: Sequence[str] = (),
    keys: str | os.PathLike[str] | None = None,
    dry_run: bool = False,
    options: LogOptions = DEFAULT_OPTIONS,
    on_progress: Progress | None = None,
) -> Removed:
    """Remove the closed segments from the front of a log whose every entry is older than the policy says.

    ``log`` is a directory that nobody writes, or the logger that writes it. Every entry that goes must be
    covered by a ``checkpoint`` that was kept elsewhere (a signed note), or by one under ``cosignatures/``
    that a witness with one of ``witness_vkeys`` cosigned. ``keys`` is the log's key folder (default
    ``<directory>.keys``). The log is verified first; then it records what goes, signs a checkpoint over that,
    and only then anything is removed. Leaf hashes stay, so all proofs go on working.

    Raises InvalidInputError, ConfigurationError (no such checkpoint covers what is to go; no log; no keys),
    LogDamagedError (not intact: nothing is removed), LogLockedError, AuditWriteError. After the last, or a
    crash, prune again.
    """
    place = Directory(_path_of(log))
    folder = place.default_keys if keys is None else Path(keys)
    config, _ = place.read_config()
    Keyring(folder)  # without the log's own keys nothing can be recorded, nor trusted
    outside = outside_checkpoint(
        place,
        config,
        given=None if checkpoint is None else _note_bytes(checkpoint),
        witnesses=[parse_witness_vkey(text) for text in witness_vkeys],
    )
    plan = make_plan(
        place,
        retention,
        trusted=trust.gather(place.default_keys, vkey=None, mac_key=None, keys=folder),
        outside=outside,
        now_ns=options.clock.now_ns(),
        on_progress=on_progress,
    )
    if plan is not None and not dry_run:
        _carry_out(log, plan, service_id=config.service_id, folder=folder, outside=outside, options=options)
    return _removed(place, plan, dry_run=dry_run)


def _path_of(log: AuditLogger | str | os.PathLike[str]) -> str | os.PathLike[str]:
    if not isinstance(log, AuditLogger):
        return log
    if log.directory is None:
        raise InvalidInputError("log", "is a disabled logger, which keeps nothing", hint="Name a directory.")
    return log.directory


def _carry_out(
    log: AuditLogger | str | os.PathLike[str],
    plan: Plan,
    *,
    service_id: str,
    folder: Path,
    outside: SignedCheckpoint | None,
    options: LogOptions,
) -> None:
    if isinstance(log, AuditLogger):
        _run(log, plan, options)
        return
    alone = msgspec.structs.replace(options, background=False)
    with AuditLogger.open(log, service_id=service_id, keys=folder, anchor=outside, options=alone) as logger:
        _run(logger, plan, options)


def _run(logger: AuditLogger, plan: Plan, options: LogOptions) -> None:
    logger.flush()  # it must be open
    Pruning(logger._writer, plan, options.files).run()  # noqa: SLF001 - the logger's own neighbour


def _removed(place: Directory, plan: Plan | None, *, dry_run: bool) -> Removed:
    if plan is None:
        first = next((segment.first_index for segment in listed_segments(place)), 0)
        return Removed(dry_run=dry_run, first_index=first, next_index=first)
    return Removed(
        dry_run=dry_run,
        first_index=plan.first_index,
        next_index=plan.next_index,
        segments=tuple(segment.name for segment in plan.segments),
        policy=plan.policy,
        root_hash=plan.boundary.root.hex(),
        kept_back=plan.kept_back,
    )


def _note_bytes(checkpoint: bytes | str | SignedCheckpoint) -> bytes:
    return checkpoint.encode() if isinstance(checkpoint, str) else bytes(checkpoint)
