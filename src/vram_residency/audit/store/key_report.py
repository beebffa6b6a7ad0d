"""What there is to know of a log's keys without using them: names, places, modes, and what is amiss."""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import Final, Literal

import msgspec

from vram_residency.audit.format import note, ssh_agent
from vram_residency.audit.store.directory import Directory, LogConfig, Parent
from vram_residency.audit.store.files import DIRECTORY_MODE, FILE_MODE
from vram_residency.audit.store.keyring import log_signer
from vram_residency.audit.store.signers import AgentSigner
from vram_residency.core.errors import ConfigurationError, MissingKeyError

_PURPOSES: Final = {
    "log.key": "signs checkpoints",
    "log.key.next": "is about to follow log.key: the next opening finishes the rotation, or removes it",
    "mac.key": "authenticates the entries of the running epoch",
    "pseudonym.key": "names customers; destroying it is their erasure",
    "genesis.key": "K_0: proves every entry, and can forge every entry",
}


class LogKey(msgspec.Struct, frozen=True, kw_only=True):
    """One public key of a log; ``fingerprint`` as ssh-keygen shows it; ``is_current``: it signs now."""

    vkey: str
    key_id: str
    fingerprint: str
    is_current: bool


class KeyFile(msgspec.Struct, frozen=True, kw_only=True):
    """A file of the key folder; ``mode`` is octal."""

    name: str
    mode: str
    purpose: str


class KeyReport(msgspec.Struct, frozen=True, kw_only=True):
    """The keys of one log. ``signer``: where the private log key lies; ``warnings``: what to mend."""

    origin: str
    folder: str
    signer: Literal["file", "ssh-agent"]
    vkeys: list[LogKey]
    files: list[KeyFile]
    parent: Parent | None
    warnings: list[str]


def report_keys(directory: str | os.PathLike[str], keys: str | os.PathLike[str] | None = None) -> KeyReport:
    """Read-only, also beside a live writer. Modes that are too loose are warned of, not refused.

    Raises ConfigurationError (no log; a malformed key), MissingKeyError, LogDamagedError.
    """
    place = Directory(directory)
    config, _ = place.read_config()
    folder = place.default_keys if keys is None else Path(keys)
    if not folder.is_dir():
        hint = "Name the folder of this log's keys with --keys; verifying needs none of them."
        raise MissingKeyError(str(folder), "no such folder of keys", hint=hint)
    signer = _signer(folder)
    files = [_file(folder / name) for name in _PURPOSES if (folder / name).is_file()]
    return KeyReport(
        origin=config.origin,
        folder=str(folder),
        signer="ssh-agent" if isinstance(signer, AgentSigner) else "file",
        vkeys=[_log_key(key, config) for key in config.verifier_keys()],
        files=files,
        parent=None if isinstance(config.parent, msgspec.UnsetType) else config.parent,
        warnings=_warnings(place, folder, config, signer),
    )


def _signer(folder: Path) -> note.Signer:
    try:
        return log_signer(folder / "log.key", must_be_private=False)
    except OSError as error:
        raise ConfigurationError(str(folder), f"cannot be read: {error.strerror or error}") from error


def _log_key(key: note.VerifierKey, config: LogConfig) -> LogKey:
    return LogKey(
        vkey=str(key),
        key_id=key.id.hex(),
        fingerprint=ssh_agent.fingerprint(key.public_key),
        is_current=str(key) == config.vkeys[-1],
    )


def _file(path: Path) -> KeyFile:
    return KeyFile(name=path.name, mode=f"{_mode(path):04o}", purpose=_PURPOSES[path.name])


def _mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def _warnings(place: Directory, folder: Path, config: LogConfig, signer: note.Signer) -> list[str]:
    found = []
    if str(signer.verifier) not in config.vkeys[-1:]:
        found.append("log.key is not the key that log.json names last: are these the keys of this log?")
    expected = {folder: DIRECTORY_MODE, **{folder / name: FILE_MODE for name in _PURPOSES}}
    for path, mode in expected.items():
        if path.exists() and _mode(path) & ~mode:
            found.append(f"{path} is open to others (mode {_mode(path):04o}): run `chmod {mode:o} {path}`")
    if folder.resolve().parent == place.path.resolve().parent:
        found.append(
            f"the keys lie beside the log: move {folder} to where readers of the log cannot reach it"
        )
    if (folder / "genesis.key").exists():
        found.append(
            "genesis.key is still here: whoever reads it can forge every entry; move it off this machine"
        )
    if (folder / "log.key.next").exists():
        found.append(
            "a rotation of the log key was cut short: open the log once, and it is finished or undone"
        )
    return found
