"""The log's directory: paths, modes, log.json and the lock of its one writer (audit-log.md section 1)."""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import msgspec

from vram_residency.audit.format import note, tree
from vram_residency.audit.store.archive import ARCHIVE_SUFFIX
from vram_residency.audit.store.files import DIRECTORY_MODE, FILE_MODE, SYSTEM_FILES, Files
from vram_residency.core.clock import parse_rfc3339
from vram_residency.core.errors import (
    AuditWriteError,
    ConfigurationError,
    InvalidInputError,
    LogDamagedError,
    LogLockedError,
)
from vram_residency.core.identifiers import parse_service_id
from vram_residency.core.keys import require_private

FORMAT: Final = "vram-residency/audit/v1"
INDEX_DIGITS: Final = 20
SEGMENT_SUFFIX: Final = ".jsonl"
TORN_SUFFIX: Final = ".torn"
LOG_JSON_BYTES_MAX: Final = 65_536
EPOCH_INTERVAL_S: Final = 900

_ORIGIN_SUFFIX = re.compile(r"[0-9a-f]{32}\Z")
_ORIGIN = re.compile(r"[A-Za-z0-9._-]{1,128}/[0-9a-f]{32}\Z")
_ROOT_HASH = re.compile(r"[0-9a-f]{64}\Z")
_GENESIS_ID = re.compile(r"[0-9a-f]{16}\Z")
_SEGMENT_NAME = re.compile(rf"[0-9]{{{INDEX_DIGITS}}}\.jsonl(\.zst)?\Z")
#: What a crash may leave among the segments, and no reader looks at.
_LEFT_OVER = (SEGMENT_SUFFIX + TORN_SUFFIX, SEGMENT_SUFFIX + ARCHIVE_SUFFIX + ".new")
_HOLDER_BYTES_MAX: Final = 200


class LogConfigError(ValueError):
    """The bytes of a log.json break a rule."""


class Parent(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The log that a fork goes on from, as its newest checkpoint covered it; ``root_hash`` is hex."""

    origin: str
    tree_size: int
    root_hash: str


class LogConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """log.json. ``created_at`` is RFC 3339; ``vkeys`` are in order of use, the last one signs now.

    ``parent`` is there in a fork alone.
    """

    format: str = FORMAT
    origin: str
    service_id: str
    created_at: str
    epoch_interval_s: int = EPOCH_INTERVAL_S
    mac_genesis_id: str
    vkeys: tuple[str, ...]
    parent: Parent | msgspec.UnsetType = msgspec.UNSET

    def encode(self) -> bytes:
        """Compact JSON and a newline."""
        return msgspec.json.encode(self) + b"\n"

    @classmethod
    def parse(cls, data: bytes) -> LogConfig:
        """The inverse of encode(), white space apart; every field is checked. Raises LogConfigError."""
        try:
            config = msgspec.json.decode(data, type=cls)
            parse_service_id(config.service_id)
            parse_rfc3339(config.created_at)
            keys = config.verifier_keys()
        except (ValueError, OverflowError, RecursionError, InvalidInputError) as error:
            raise LogConfigError(f"{type(error).__name__}: {error}") from error
        service, _, random = config.origin.rpartition("/")
        rules = {
            f"format is not {FORMAT}": config.format == FORMAT,
            "origin is not <service_id>/<32 hex>": service == config.service_id
            and _ORIGIN_SUFFIX.match(random),
            "epoch_interval_s is not a number of seconds from 1 up": config.epoch_interval_s >= 1,
            "mac_genesis_id is not 16 hex digits": _GENESIS_ID.match(config.mac_genesis_id),
            "vkeys is empty": keys,
            "a vkey stands there twice": len(set(config.vkeys)) == len(config.vkeys),
            "parent is no origin, size and root hash": _is_parent(config),
            "a vkey does not bear the origin's name": all(key.name == config.origin for key in keys),
        }
        for rule, holds in rules.items():
            if not holds:
                raise LogConfigError(rule)
        return config

    def verifier_keys(self) -> tuple[note.VerifierKey, ...]:
        """The vkeys, parsed. They are self-asserted. Raises NoteFormatError."""
        return tuple(note.VerifierKey.parse(text) for text in self.vkeys)


def _is_parent(config: LogConfig) -> bool:
    parent = config.parent
    if isinstance(parent, msgspec.UnsetType):
        return True
    is_another = _ORIGIN.match(parent.origin) is not None and parent.origin != config.origin
    return is_another and 0 <= parent.tree_size <= tree.SIZE_MAX and bool(_ROOT_HASH.match(parent.root_hash))


class Directory:
    """The paths of one log. Holds no resource."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path: Final = Path(path)
        self.log_json: Final = self.path / "log.json"
        self.entries: Final = self.path / "entries"
        self.tree: Final = self.path / "tree"
        self.frontier: Final = self.tree / "frontier"
        self.checkpoint: Final = self.path / "checkpoint"
        self.cosignatures: Final = self.path / "cosignatures"
        self.journal: Final = self.path / "journal"
        self.lock: Final = self.path / "lock"

    def __str__(self) -> str:
        return str(self.path)

    @property
    def default_keys(self) -> Path:
        """Where the keys lie if nobody named a better place: beside the directory, never in it."""
        absolute = Path(os.path.abspath(self.path))  # noqa: PTH100 - resolve() would follow a symbolic link
        return absolute.with_name(f"{absolute.name}.keys")

    @property
    def is_log(self) -> bool:
        """Whether there is a log.json, which creation writes last."""
        return self.log_json.is_file()

    def segment(self, first_index: int) -> Path:
        """The segment that begins with entry ``first_index``."""
        return self.entries / f"{first_index:0{INDEX_DIGITS}}{SEGMENT_SUFFIX}"

    def archived(self, first_index: int) -> Path:
        """The same segment once it is compressed."""
        path = self.segment(first_index)
        return path.with_name(path.name + ARCHIVE_SUFFIX)

    def leaves(self, first_index: int) -> Path:
        """The leaf hashes of that segment, 32 bytes each."""
        return self.tree / f"{first_index:0{INDEX_DIGITS}}.leaves"

    def segment_starts(self) -> list[int]:
        """First indexes of all segments, ascending. Raises LogDamagedError for an alien name."""
        starts = set()
        try:
            names = os.listdir(self.entries)  # noqa: PTH208 - there may be thousands
        except OSError as error:
            raise LogDamagedError(str(self.entries), None, error.strerror or "cannot be listed") from error
        for name in names:
            if name.endswith(_LEFT_OVER):
                continue
            if _SEGMENT_NAME.match(name) is None:
                reason = "this file does not belong among the segments"
                raise LogDamagedError(str(self.entries / name), None, reason)
            starts.add(int(name[:INDEX_DIGITS]))
        return sorted(starts)

    def read_config(self) -> tuple[LogConfig, bytes]:
        """log.json, parsed and as it is. Raises ConfigurationError (no log here), LogDamagedError."""
        try:
            with open(self.log_json, "rb", opener=_open_at_once) as file:
                data = file.read(LOG_JSON_BYTES_MAX + 1)
        except OSError as error:
            raise ConfigurationError(
                str(self.path),
                f"is not an audit log: log.json: {error.strerror}",
                hint="Name the directory that holds log.json; `vram audit init` or create=True makes one.",
            ) from error
        if len(data) > LOG_JSON_BYTES_MAX:
            raise LogDamagedError(str(self.log_json), LOG_JSON_BYTES_MAX, "over 65536 bytes")
        try:
            return LogConfig.parse(data), data
        except LogConfigError as error:
            raise LogDamagedError(str(self.log_json), None, str(error)) from error

    def require_private(self) -> None:
        """Directories 0700 and files 0600 at most, else ConfigurationError with the mending command."""
        try:
            for path in self._open_to_others():
                # Removed while we looked, or not there yet: what must exist is opened later.
                with contextlib.suppress(FileNotFoundError):
                    require_private(path, mode=DIRECTORY_MODE if path.is_dir() else FILE_MODE)
        except OSError as error:
            path_text = error.filename or str(self.path)
            raise ConfigurationError(str(path_text), f"cannot be read: {error.strerror}") from error

    def _open_to_others(self) -> Iterator[Path]:
        """Directories, and the files whose mode is too loose: there may be thousands that are not."""
        for directory in (self.path, self.entries, self.tree):
            yield directory
            if directory.is_dir():
                with os.scandir(directory) as found:
                    yield from (Path(file.path) for file in found if _is_open_to_others(file))


def _open_at_once(path: str, flags: int) -> int:
    """A descriptor, also of a named pipe that nobody writes to: waiting for one is no way to read a log."""
    return os.open(path, flags | os.O_NONBLOCK)


class WriterLock:
    """flock(2) on the file ``lock``: one writer per directory. Release with close().

    The lock lives with the open file, so a forked child shares it: the child must close its descriptor and
    must not unlock.
    """

    def __init__(self, directory: Directory, *, holder: str, files: Files = SYSTEM_FILES) -> None:
        """Take the lock at once. Raises LogLockedError naming the holder, AuditWriteError."""
        self.descriptor = -1
        try:
            self._lock(directory, holder, files)
        except OSError as error:
            raise AuditWriteError(str(directory.lock), "lock", error.strerror or str(error)) from error

    def _lock(self, directory: Directory, holder: str, files: Files) -> None:
        flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
        self.descriptor = os.open(directory.lock, flags, FILE_MODE)
        try:
            self._take(directory)
            # A file removed or replaced in the meantime would let a second writer lock another inode.
            self._require_same_file(directory)
            files.truncate(self.descriptor, 0)
            files.write_at(self.descriptor, f"{holder}\n".encode(), 0)
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Give the lock back. May be called twice."""
        descriptor, self.descriptor = self.descriptor, -1
        if descriptor >= 0:
            os.close(descriptor)

    def _take(self, directory: Directory) -> None:
        try:
            fcntl.flock(self.descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            text = os.pread(self.descriptor, _HOLDER_BYTES_MAX, 0).decode("utf-8", "replace")
            holder = "".join(c for c in text if c.isprintable()) or "a process that did not give its name"
            raise LogLockedError(str(directory), holder) from None

    def _require_same_file(self, directory: Directory) -> None:
        try:
            same = os.path.samestat(os.fstat(self.descriptor), directory.lock.lstat())
        except FileNotFoundError:
            same = False
        if not same:
            raise LogLockedError(str(directory), "a process that replaced the file 'lock' just now")


def _is_open_to_others(file: os.DirEntry[str]) -> bool:
    try:
        mode = file.stat().st_mode
    except FileNotFoundError:
        return False
    return not stat.S_ISDIR(mode) and bool(stat.S_IMODE(mode) & ~FILE_MODE)
