"""Making a log and its keys (spec: audit-log.md section 1): ``vram audit init`` and ``create=True``."""

from __future__ import annotations

import os
import secrets
from pathlib import Path

import msgspec

from vram_residency.audit.format import chain, note, tree
from vram_residency.audit.format.checkpoint import Checkpoint, SignedCheckpoint
from vram_residency.audit.format.checkpoint import sign as sign_checkpoint
from vram_residency.audit.store import machine, signers
from vram_residency.audit.store.directory import Directory, LogConfig, Parent, WriterLock
from vram_residency.audit.store.files import make_private_directory
from vram_residency.audit.store.keyring import create_keys
from vram_residency.audit.writing.options import DEFAULT_OPTIONS, LogOptions
from vram_residency.audit.writing.parent import read_parent
from vram_residency.core.clock import rfc3339
from vram_residency.core.errors import AuditWriteError, ConfigurationError
from vram_residency.core.identifiers import parse_service_id

#: What may lie in a directory where a log is made: the traces of an attempt that crashed.
_UNFINISHED = frozenset({"lock", "entries", "tree", "checkpoint", "checkpoint.new", "log.json.new"})
_ORIGIN_BYTES = 16


class NewLog(msgspec.Struct, frozen=True):
    """What the operator must note down: ``mac_genesis_key`` (K_0, 64 hex) is shown only here."""

    origin: str
    vkey: str
    mac_genesis_key: str

    def __repr__(self) -> str:
        return f"NewLog(origin={self.origin!r}, vkey={self.vkey!r})"


def create_log(
    directory: str | os.PathLike[str],
    *,
    service_id: str,
    keys: str | os.PathLike[str] | None = None,
    keep_genesis: bool = False,
    signer: str = signers.FILE,
    fork: str | os.PathLike[str] | None = None,
    options: LogOptions = DEFAULT_OPTIONS,
) -> NewLog:
    """Make an empty log with new keys, sign its checkpoint of size 0, write no entry.

    ``signer`` is ``file``, or ``ssh-agent:SHA256:…`` for a log key that lies in an ssh-agent. ``fork`` is the
    directory of a log that this one goes on from: its origin, size and root are recorded in log.json.
    Raises ConfigurationError (something is there already), MissingKeyError (no such key in the agent),
    InvalidInputError, LogDamagedError (the log to go on from), LogLockedError, AuditWriteError.
    """
    place = Directory(directory)
    service = parse_service_id(service_id)
    key_folder = Path(keys) if keys is not None else place.default_keys
    _require_outside(place, key_folder)
    _require_free(place)
    parent = None if fork is None else read_parent(fork)
    log_key = signers.new_signer(signer, f"{service}/{secrets.token_hex(_ORIGIN_BYTES)}")
    try:
        make_private_directory(place.path, options.files)
        lock = WriterLock(place, holder=machine.writer(), files=options.files)
        try:
            # Another process may have made the log while we waited for the directory.
            _require_free(place)
            return _fill(place, key_folder, log_key, parent, keep_genesis=keep_genesis, options=options)
        finally:
            lock.close()
    except OSError as error:
        path = error.filename or str(place)
        raise AuditWriteError(str(path), "create", error.strerror or str(error)) from error


def _fill(
    place: Directory,
    key_folder: Path,
    log_key: note.Signer,
    parent: Parent | None,
    *,
    keep_genesis: bool,
    options: LogOptions,
) -> NewLog:
    files = options.files
    origin = log_key.verifier.name
    vkey = str(log_key.verifier)
    # 1. Nothing is made with a key that does not sign.
    empty = _sign_empty(place, log_key)
    # 2. Keys first: a log whose keys were lost would be worth nothing. A crash leaves keys of no log.
    keys = create_keys(key_folder, log_key, host_id=machine.host_id(), keep_genesis=keep_genesis, files=files)
    # 3. All but log.json. A crash leaves a directory that is not a log.
    make_private_directory(place.entries, files)
    make_private_directory(place.tree, files)
    files.write_atomically(place.checkpoint, empty.note_bytes)
    # 4. With log.json it is one.
    config = LogConfig(
        origin=origin,
        service_id=origin.rpartition("/")[0],
        created_at=rfc3339(options.clock.now_ns()),
        epoch_interval_s=options.epoch_interval_s,
        mac_genesis_id=chain.genesis_id(keys.genesis_key),
        vkeys=(vkey,),
        parent=msgspec.UNSET if parent is None else parent,
    )
    files.write_atomically(place.log_json, config.encode())
    files.sync_directory(place.path.absolute().parent)
    return NewLog(origin, vkey, keys.genesis_key.hex())


def _sign_empty(place: Directory, log_key: note.Signer) -> SignedCheckpoint:
    try:
        return sign_checkpoint(Checkpoint(log_key.verifier.name, 0, tree.EMPTY_ROOT), log_key)
    except note.SignerUnavailableError as error:
        raise AuditWriteError(str(place.checkpoint), "sign", str(error)) from None


def _require_outside(place: Directory, key_folder: Path) -> None:
    if key_folder.resolve().is_relative_to(place.path.resolve()):
        raise ConfigurationError(
            "keys",
            f"{key_folder} lies in the log's own directory",
            hint="Name a folder elsewhere: who can read the log must not be able to forge it.",
        )


def _require_free(place: Directory) -> None:
    if place.is_log:
        raise ConfigurationError(
            str(place), "there is a log here already", hint="Use it as it is, or name another directory."
        )
    if place.path.exists() and not place.path.is_dir():
        raise ConfigurationError(str(place), "is not a directory", hint="Name a directory for the log.")
    if place.path.is_dir() and {path.name for path in place.path.iterdir()} - _UNFINISHED:
        raise ConfigurationError(
            str(place), "the directory is not empty and not a log", hint="Name a new or an empty directory."
        )
    place.require_private()
