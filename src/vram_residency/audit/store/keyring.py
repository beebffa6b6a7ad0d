"""The folder of a log's keys (spec: audit-log.md sections 1 and 3). It lies outside the log's directory.

``log.key`` signs checkpoints; ``mac.key`` holds the key of the running epoch in one of two checksummed
slots, so that the next epoch's key is written beside it before the old one is erased; ``genesis.key`` (K_0)
is there only where somebody asked for it; ``pseudonym.key`` names customers; ``log.key.next`` is there while
one log key follows another.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import secrets
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import msgspec

from vram_residency.audit.format import chain, note
from vram_residency.audit.store import signers
from vram_residency.audit.store.files import (
    DIRECTORY_MODE,
    FILE_MODE,
    SYSTEM_FILES,
    Files,
    make_private_directory,
)
from vram_residency.core.canonical import canonical_json
from vram_residency.core.errors import (
    AuditWriteError,
    ConfigurationError,
    LogDamagedError,
    MissingKeyError,
)
from vram_residency.core.keys import read_secret_file, require_private

#: One disk sector: a slot is written whole or not at all on most disks, and its checksum tells.
SLOT_BYTES: Final = 512
_SLOTS: Final = 2
_BLANK: Final = b" " * (SLOT_BYTES - 1) + b"\n"
_HEX_KEY = re.compile(r"[0-9a-f]{64}\Z")


class MacState(msgspec.Struct, frozen=True, kw_only=True):
    """What the mac chain needs at the start of an epoch; ``repr`` does not show the key.

    ``tree_size`` is the index of the epoch's first entry, ``last_mac`` (32 bytes) the mac before it.
    """

    epoch: int
    key: bytes
    tree_size: int
    last_mac: bytes
    host_id: str

    def __repr__(self) -> str:
        return f"MacState(epoch={self.epoch}, tree_size={self.tree_size})"

    def encode(self) -> bytes:
        """One slot: canonical JSON with a checksum, padded with spaces and ended by a newline."""
        return _slot_json(self).ljust(SLOT_BYTES - 1) + b"\n"

    @classmethod
    def parse(cls, slot: bytes) -> MacState | None:
        """The state of a slot, or None where it is blank, torn or wrong in any byte."""
        with contextlib.suppress(ValueError, KeyError, TypeError):
            value = msgspec.json.decode(slot)
            state = cls(
                epoch=int(value["epoch"]),
                key=bytes.fromhex(value["key"]),
                tree_size=int(value["tree_size"]),
                last_mac=bytes.fromhex(value["last_mac"]),
                host_id=str(value["host_id"]),
            )
            if state.encode() == slot:
                return state
        return None


class Keyring:
    """The opened key folder. The private halves stay in this object.

    ``signer`` is the log key; ``next_signer`` the one that is about to follow it, if there is one.
    """

    def __init__(self, path: Path, *, files: Files = SYSTEM_FILES) -> None:
        """Read the folder's log key. Raises ConfigurationError: missing, malformed, or open to others."""
        self.path: Final = path
        self._files = files
        self._mac_path: Final = path / "mac.key"
        self._log_path: Final = path / "log.key"
        self._next_path: Final = path / "log.key.next"
        require_key_folder(path)
        self.signer = log_signer(self._log_path)
        self.next_signer = log_signer(self._next_path) if self._next_path.exists() else None

    def prepare_next(self, signer: note.Signer) -> None:
        """Keep the key that is to follow, durably; nothing trusts it yet. Raises AuditWriteError."""
        with _as_write_error(self._next_path, "prepare"):
            if self._log_path.is_symlink():
                raise OSError(None, "log.key is a symbolic link: put the file itself here", self._log_path)
            self._files.write_atomically(self._next_path, _log_key_file(signer))
        self.next_signer = signer

    def adopt_next(self) -> None:
        """Make the next key the log key, and the old one unreadable. May be repeated. AuditWriteError."""
        signer = self.next_signer
        assert signer is not None, "prepare_next() comes first"  # noqa: S101
        with _as_write_error(self._log_path, "replace"):
            if self._next_path.exists():
                descriptor = self._files.open_update(self._log_path)
                try:
                    self._files.replace(self._next_path, self._log_path)
                    # After a loss of power too, log.key is the new file. Only then the old one, which has no
                    # name any more, loses its bytes (best effort, like mac.key's).
                    self._files.sync_directory(self.path)
                    self._files.write_all_at(descriptor, bytes(os.fstat(descriptor).st_size), 0)
                    self._files.sync_data(descriptor)
                finally:
                    os.close(descriptor)
            self._files.sync_directory(self.path)
        self.signer, self.next_signer = signer, None

    def discard_next(self) -> None:
        """Remove a next key that no entry names: nothing ever trusted it. Raises AuditWriteError."""
        with _as_write_error(self._next_path, "remove"):
            if self._next_path.exists():
                self._files.remove(self._next_path)
        self.next_signer = None

    def read_mac_state(self) -> MacState:
        """The state of the newest epoch. Raises ConfigurationError (no file), LogDamagedError."""
        slots = [MacState.parse(slot) for slot in self._read_slots()]
        states = sorted((state for state in slots if state is not None), key=lambda state: state.epoch)
        if not states:
            raise LogDamagedError(str(self._mac_path), None, "neither slot holds a key with a right checksum")
        if len(states) == _SLOTS and states[0].epoch + 1 != states[1].epoch:
            raise LogDamagedError(str(self._mac_path), None, "the two slots are not neighbouring epochs")
        return states[-1]

    def write_mac_state(self, state: MacState) -> None:
        """Put ``state`` into its epoch's slot and sync. Afterwards it survives; so does the other slot."""
        self._write_slot(state.epoch % _SLOTS, state.encode())

    def erase_other_slot(self, epoch: int) -> None:
        """Overwrite the slot that does not belong to ``epoch`` (best effort on SSD and copy-on-write)."""
        self._write_slot((epoch + 1) % _SLOTS, _BLANK)

    def read_pseudonym_key(self) -> bytes:
        """The key that names customers; a new one for this process where the file was destroyed."""
        return _read_hex_key(self.path / "pseudonym.key") or secrets.token_bytes(chain.KEY_BYTES)

    def _read_slots(self) -> list[bytes]:
        try:
            require_private(self._mac_path, mode=FILE_MODE)
            data = self._mac_path.read_bytes()
        except FileNotFoundError as error:
            raise MissingKeyError(str(self._mac_path), "is not there") from error
        except OSError as error:
            raise ConfigurationError(str(self._mac_path), f"cannot be read: {error.strerror}") from error
        if len(data) != _SLOTS * SLOT_BYTES:
            raise LogDamagedError(
                str(self._mac_path), len(data), f"it is not {_SLOTS * SLOT_BYTES} bytes long"
            )
        return [data[:SLOT_BYTES], data[SLOT_BYTES:]]

    def _write_slot(self, number: int, slot: bytes) -> None:
        try:
            descriptor = self._files.open_update(self._mac_path)
            try:
                self._files.write_all_at(descriptor, slot, number * SLOT_BYTES)
                self._files.sync_data(descriptor)
            finally:
                os.close(descriptor)
        except OSError as error:
            raise AuditWriteError(str(self._mac_path), "write", error.strerror or str(error)) from error


class NewKeys(msgspec.Struct, frozen=True):
    """What create_keys() made; ``genesis_key`` is K_0 (32 bytes) and may live nowhere else."""

    signer: note.Signer
    genesis_key: bytes

    def __repr__(self) -> str:
        return f"NewKeys({self.signer!r})"


def create_keys(
    path: Path, signer: note.Signer, *, host_id: str, keep_genesis: bool, files: Files = SYSTEM_FILES
) -> NewKeys:
    """Make the folder with new keys for the log of ``signer``. Never writes over a key that is there.

    A crash in between leaves keys without a log: they authenticate nothing and can be removed.
    Raises ConfigurationError, AuditWriteError.
    """
    origin = signer.verifier.name
    genesis_key = secrets.token_bytes(chain.KEY_BYTES)
    state = MacState(
        epoch=0, key=genesis_key, tree_size=0, last_mac=chain.initial_mac(origin), host_id=host_id
    )
    contents = {
        "log.key": _log_key_file(signer),
        "mac.key": state.encode() + _BLANK,
        "pseudonym.key": f"{secrets.token_hex(chain.KEY_BYTES)}\n".encode(),
    }
    if keep_genesis:
        contents["genesis.key"] = f"{genesis_key.hex()}\n".encode()
    with _as_write_error(path, "create"):
        make_private_directory(path, files)
        require_key_folder(path)
        for name, data in contents.items():
            _write_key(path / name, data, files)
        files.sync_directory(path)
    return NewKeys(signer, genesis_key)


def read_genesis_key(path: Path) -> bytes | None:
    """K_0 (32 bytes) of a folder, or None where it is not kept there. Raises ConfigurationError."""
    return _read_hex_key(path / "genesis.key")


def require_key_folder(path: Path) -> None:
    """The folder must be there and be closed to others (0700). Raises ConfigurationError."""
    if not path.is_dir():
        raise MissingKeyError(
            str(path), "no such folder of keys", hint="Name the folder of this log's keys: --keys or keys=."
        )
    require_private(path, mode=DIRECTORY_MODE)


def _slot_json(state: MacState) -> bytes:
    content = {
        "epoch": state.epoch,
        "host_id": state.host_id,
        "key": state.key.hex(),
        "last_mac": state.last_mac.hex(),
        "tree_size": state.tree_size,
    }
    checksum = hashlib.sha256(canonical_json(content)).hexdigest()
    return canonical_json({**content, "sha256": checksum})


def _log_key_file(signer: note.Signer) -> bytes:
    return f"{signers.signer_text(signer)}\n".encode()


def log_signer(path: Path, *, must_be_private: bool = True) -> note.Signer:
    """The signer that a file such as ``log.key`` holds or names.

    Raises MissingKeyError, ConfigurationError (open to others, malformed; the text is in no message).
    """
    if not path.exists():
        raise MissingKeyError(str(path), "is not there")
    text = read_secret_file(path, must_be_private=must_be_private)
    try:
        return signers.parse_signer(text)
    except note.NoteFormatError as error:
        raise ConfigurationError(str(path), f"is not a log key: {error}") from None


def _read_hex_key(path: Path) -> bytes | None:
    if not path.exists():
        return None
    text = read_secret_file(path)
    if _HEX_KEY.match(text) is None:
        raise ConfigurationError(str(path), "is not a key of 64 lower-case hex digits")
    return bytes.fromhex(text)


def _write_key(path: Path, data: bytes, files: Files) -> None:
    try:
        files.write_new(path, data)
    except FileExistsError:
        raise ConfigurationError(
            str(path),
            "a key is here already and is never written over",
            hint="Name another folder: --keys or keys=. Or remove the keys of a log that was never finished.",
        ) from None


@contextlib.contextmanager
def _as_write_error(path: Path, operation: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        name = str(error.filename or path)
        raise AuditWriteError(name, operation, error.strerror or str(error)) from error
