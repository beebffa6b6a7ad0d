"""From a directory to a ledger: everything that must hold before a single byte is written or signed."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import msgspec

from vram_residency.audit.events.own import LogOpened
from vram_residency.audit.format import checkpoint as checkpoints
from vram_residency.audit.format.checkpoint import SignedCheckpoint
from vram_residency.audit.store import machine
from vram_residency.audit.store.directory import Directory, LogConfig
from vram_residency.audit.store.files import Files
from vram_residency.audit.store.keyring import Keyring, MacState
from vram_residency.audit.store.leaves import LeafStore
from vram_residency.audit.store.segments import move_torn_tail, remove_empty
from vram_residency.audit.writing.buffer import Cut
from vram_residency.audit.writing.draft import Identity
from vram_residency.audit.writing.journal import Journal
from vram_residency.audit.writing.ledger import Ledger
from vram_residency.audit.writing.options import LogOptions
from vram_residency.audit.writing.recovery import Evidence, Standing, examine
from vram_residency.core.errors import ConfigurationError, LogDamagedError
from vram_residency.core.version import __version__

#: A signed checkpoint kept elsewhere: its file, its bytes, or the object that flush() gave.
Anchor = SignedCheckpoint | bytes | str | os.PathLike[str]


class Opened(msgspec.Struct, frozen=True):
    """A ledger ready to append, its configuration, and the entry that says how it was opened.

    ``recovered`` is what a killed writer's journal held and no entry tells of; it comes before ``entry``.
    """

    ledger: Ledger
    config: LogConfig
    entry: LogOpened
    journal: Journal
    recovered: Cut


def open_ledger(
    directory: Directory,
    keyring: Keyring,
    *,
    service_id: str,
    anchor: Anchor | None,
    options: LogOptions,
) -> Opened:
    """Examine the log and make it ready. The caller holds the writer's lock.

    Raises ConfigurationError (modes, keys, service, host), LogDamagedError, AuditWriteError.
    """
    # 1. The directory is private, and is the one that was meant.
    directory.require_private()
    config, _ = directory.read_config()
    _require_own_service(config, service_id)
    # 2. The keys are this log's, and no copy on another machine goes on writing.
    _require_own_key(config, keyring)
    mac_state = keyring.read_mac_state()
    _require_own_host(directory, mac_state)
    # 3. The anchor is asked before anything is signed (audit-log.md section 3).
    evidence = _read_evidence(directory, config, mac_state, anchor)
    journal = _read_journal(directory, config, options)
    standing = examine(
        directory, evidence, LeafStore(directory).read_frontier(), journal_size=journal.tree_size
    )
    is_changing_key = _is_changing_key(config, keyring, standing)
    recovered = journal.find_unwritten(standing.written, options.clock.now_ns())
    # 4. Only now is anything written.
    _clear_ends(directory, standing, options.files)
    ledger = Ledger(
        directory,
        keyring,
        identity=Identity(config.service_id, keyring.signer.verifier.id.hex()),
        mac_state=mac_state,
        checkpoint=evidence.checkpoint,
        standing=standing,
        options=options,
    )
    try:
        _settle_keys(ledger, keyring, is_changing=is_changing_key)
        config, log_json = directory.read_config()
    except BaseException:
        ledger.close()
        raise
    return Opened(ledger, config, _opened_entry(standing, recovered, log_json), journal, recovered)


def _read_evidence(
    directory: Directory, config: LogConfig, mac_state: MacState, anchor: Anchor | None
) -> Evidence:
    checkpoint = _read_checkpoint(directory, config)
    kept_elsewhere = None if anchor is None else _read_anchor(anchor, config)
    return Evidence(checkpoint=checkpoint, mac_state=mac_state, anchor=kept_elsewhere)


def _clear_ends(directory: Directory, standing: Standing, files: Files) -> None:
    """Put away what a crash left behind the last complete line."""
    start, length = standing.segment_start, standing.segment_bytes
    if standing.hollow_start is not None:
        start, length = standing.hollow_start, 0
    if standing.torn and start is not None:
        move_torn_tail(directory.segment(start), length, standing.torn, files)
    # A segment without an entry bears the name of none: the rotation or the write is made again.
    if standing.hollow_start is not None:
        remove_empty(directory.segment(standing.hollow_start), files)


def _read_journal(directory: Directory, config: LogConfig, options: LogOptions) -> Journal:
    return Journal(
        directory,
        options.files,
        origin=config.origin,
        capacity=options.capacity,
        reserved=options.reserved,
    )


def _opened_entry(standing: Standing, recovered: Cut, log_json: bytes) -> LogOpened:
    return LogOpened(
        clean=standing.is_clean and not (standing.torn or recovered.records or recovered.losses),
        recovered_events=0,
        torn_bytes=len(standing.torn),
        writer=machine.writer(),
        log_json_sha256=hashlib.sha256(log_json).hexdigest(),
        host_id=machine.host_id(),
        boot_id=machine.boot_id(),
        version=__version__,
    )


def _require_own_service(config: LogConfig, service_id: str) -> None:
    if config.service_id != service_id:
        hint = "Open it under that name, or give this service a log directory of its own."
        raise ConfigurationError("service_id", f"this log belongs to '{config.service_id}'", hint=hint)


def _require_own_key(config: LogConfig, keyring: Keyring) -> None:
    own, following = _vkeys(keyring)
    if config.vkeys[-1] not in {own, following} or own not in config.vkeys:
        raise _not_own_key(keyring, "is not the key that log.json names")


def _is_changing_key(config: LogConfig, keyring: Keyring, standing: Standing) -> bool:
    """Whether a crash came between key_rotated and the end of the old key. Raises ConfigurationError."""
    own, following = _vkeys(keyring)
    is_changing = standing.new_vkey not in {None, own}
    if is_changing and standing.new_vkey != following:
        raise _not_own_key(keyring, "is not the key that the last entry, key_rotated, names")
    if not is_changing and config.vkeys[-1] != own:
        raise _not_own_key(keyring, "is not the key that log.json names")
    return is_changing


def _settle_keys(ledger: Ledger, keyring: Keyring, *, is_changing: bool) -> None:
    """What a crash left of a rotation of the log key: finished where the entry is there, else forgotten."""
    if is_changing:
        ledger.change_key()
    elif keyring.next_signer is not None:
        keyring.discard_next()


def _vkeys(keyring: Keyring) -> tuple[str, str | None]:
    following = keyring.next_signer
    return str(keyring.signer.verifier), None if following is None else str(following.verifier)


def _not_own_key(keyring: Keyring, rule: str) -> ConfigurationError:
    hint = "Name the folder of this log's keys: --keys or keys=."
    return ConfigurationError(str(keyring.path / "log.key"), rule, hint=hint)


def _require_own_host(directory: Directory, state: MacState) -> None:
    here = machine.host_id()
    if machine.UNKNOWN not in {here, state.host_id} and here != state.host_id:
        raise ConfigurationError(
            "host",
            "this log was written on another machine; a copy that goes on writing would fork it",
            hint=f"Keep it as it is and begin a log that names it: `vram audit init NEW --fork {directory}`.",
        )


def _read_checkpoint(directory: Directory, config: LogConfig) -> SignedCheckpoint:
    path = directory.checkpoint
    try:
        data = path.read_bytes()
    except OSError as error:
        raise LogDamagedError(str(path), None, f"cannot be read: {error.strerror}") from error
    return _open_checkpoint(data, config, str(path))


def _read_anchor(anchor: Anchor, config: LogConfig) -> SignedCheckpoint:
    if isinstance(anchor, SignedCheckpoint):
        anchor = anchor.note_bytes
    if isinstance(anchor, bytes):
        return _open_checkpoint(anchor, config, "anchor")
    try:
        data = Path(anchor).read_bytes()
    except OSError as error:
        raise ConfigurationError("anchor", f"{anchor} cannot be read: {error.strerror}") from error
    return _open_checkpoint(data, config, str(anchor))


def _open_checkpoint(data: bytes, config: LogConfig, path: str) -> SignedCheckpoint:
    try:
        return checkpoints.open_signed(data, config.verifier_keys(), origin=config.origin)
    except ValueError as error:
        raise LogDamagedError(path, None, f"not a checkpoint of this log: {error}") from error
