"""Compiled kernels kept on disk, so that only the first use of a device waits for the compiler.

What lies there runs beside the weights, so it is believed only if this very user wrote it for this very
purpose: the directory is private, and each file carries a MAC over its name and content, by a key that lies
beside it. Who can read that key runs as this user, and needs no cache to do harm.
"""

from __future__ import annotations

import contextlib
import hashlib
import hmac
import os
import secrets
import stat
from collections.abc import Callable, Iterator
from pathlib import Path

from vram_residency.digest.compiler import OPTIONS, compile_kernels, compiler_version, kernel_source

#: Called with why a file or the directory was not believed.
OnRefused = Callable[[str], None]

_KEY_NAME = "key"
_KEY_BYTES = 32
_MAC_BYTES = 32
_FILE_BYTES_MAX = 64 << 20
_DIRECTORY_FLAGS = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
# O_NONBLOCK: a pipe in a file's place must not hang us.
_READ_FLAGS = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_NEW_FLAGS = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC


class RefusedFileError(Exception):
    """What lies on disk is not believed; never leaves this module."""


def default_directory() -> Path:
    """The user's cache directory by the XDG rules."""
    base = os.environ.get("XDG_CACHE_HOME", "")
    return (Path(base) if base.startswith("/") else Path.home() / ".cache") / "vram-residency" / "kernels"


def narrate_refusal(reason: str) -> None:
    """Warn that something in the cache was not believed."""
    from vram_residency.narration import narrate_validation_failed

    narrate_validation_failed(what="kernel cache", reason=reason)


def cached_kernels(
    architecture: str, *, directory: Path | None = None, on_refused: OnRefused = narrate_refusal
) -> bytes:
    """A cubin for ``architecture``: from the cache, or compiled now and kept there.

    Whatever is wrong with the cache is told to ``on_refused`` and costs a compilation, nothing else.
    Raises ConfigurationError where the compiler does.
    """
    source = kernel_source()
    name = cubin_name(source, architecture, compiler_version())
    cubin: bytes | None = None
    try:
        with _private_directory(directory or default_directory()) as folder:
            key = _cache_key(folder)
            cubin = _believed(folder, name, key, on_refused)
            if cubin is None:
                cubin = compile_kernels(source, architecture)
                _replace(folder, name, _mac(key, name, cubin) + cubin)
    except (OSError, RefusedFileError) as error:
        on_refused(f"the cache of kernels is not used: {_words(error)}")
    return compile_kernels(source, architecture) if cubin is None else cubin


def cubin_name(source: bytes, architecture: str, version: str) -> str:
    """The file's name: SHA-256 over all that decides what is in it."""
    digest = hashlib.sha256()
    for part in (source, architecture.encode(), version.encode(), *(option.encode() for option in OPTIONS)):
        digest.update(len(part).to_bytes(8, "little") + part)
    return f"{architecture}-{digest.hexdigest()}.cubin"


@contextlib.contextmanager
def _private_directory(path: Path) -> Iterator[int]:
    """A descriptor of the cache's directory, which is made if need be. All else is done relative to it."""
    path.mkdir(mode=0o700, parents=True, exist_ok=True)
    folder = os.open(path, _DIRECTORY_FLAGS)
    try:
        _require_own(os.fstat(folder), "its directory")
        yield folder
    finally:
        os.close(folder)


def _believed(folder: int, name: str, key: bytes, on_refused: OnRefused) -> bytes | None:
    """The cubin that lies there, or None; a file that is not believed is told of."""
    try:
        data = _read(folder, name)
        _require_mac(key, name, data)
    except FileNotFoundError:
        return None
    except (OSError, RefusedFileError) as error:
        on_refused(f"{name} is compiled again: {_words(error)}")
        return None
    return data[_MAC_BYTES:]


def _require_mac(key: bytes, name: str, data: bytes) -> None:
    # It covers the name: a cubin for another architecture or of another source is refused too.
    if not hmac.compare_digest(data[:_MAC_BYTES], _mac(key, name, data[_MAC_BYTES:])):
        raise RefusedFileError("its content is not what was written")


def _cache_key(folder: int) -> bytes:
    """The key of this cache, made once. Of several processes that make one at a time, one wins."""
    with contextlib.suppress(FileNotFoundError):
        return _require_key(_read(folder, _KEY_NAME))
    name = _write_new(folder, secrets.token_bytes(_KEY_BYTES))
    try:
        with contextlib.suppress(FileExistsError):
            os.link(name, _KEY_NAME, src_dir_fd=folder, dst_dir_fd=folder, follow_symlinks=False)
    finally:
        os.unlink(name, dir_fd=folder)
    return _require_key(_read(folder, _KEY_NAME))


def _require_key(key: bytes) -> bytes:
    if len(key) != _KEY_BYTES:
        raise RefusedFileError(f"the file '{_KEY_NAME}' in it is damaged; delete the directory")
    return key


def _read(folder: int, name: str) -> bytes:
    """All of a file that is ours alone. Raises FileNotFoundError, other OSError, RefusedFileError."""
    fd = os.open(name, _READ_FLAGS, dir_fd=folder)
    try:
        status = os.fstat(fd)
        # 1. A plain file, no pipe or device; no symbolic link, by O_NOFOLLOW.
        if not stat.S_ISREG(status.st_mode):
            raise RefusedFileError("it is no regular file")
        # 2. Ours, and closed to everybody else.
        _require_own(status, "the file")
        # 3. No larger than a cubin can be.
        if status.st_size > _FILE_BYTES_MAX:
            raise RefusedFileError("it is too large")
        with os.fdopen(fd, "rb", closefd=False) as file:
            return file.read(_FILE_BYTES_MAX)
    finally:
        os.close(fd)


def _require_own(status: os.stat_result, what: str) -> None:
    if status.st_uid != os.geteuid():
        raise RefusedFileError(f"{what} belongs to another user")
    if stat.S_IMODE(status.st_mode) & 0o077:
        raise RefusedFileError(f"{what} is open to others (mode {stat.S_IMODE(status.st_mode):04o})")


def _replace(folder: int, name: str, data: bytes) -> None:
    """Put a file in place whole or not at all; of several processes the last one wins."""
    new = _write_new(folder, data)
    try:
        os.replace(new, name, src_dir_fd=folder, dst_dir_fd=folder)
    except BaseException:
        os.unlink(new, dir_fd=folder)
        raise


def _write_new(folder: int, data: bytes) -> str:
    name = f".new-{secrets.token_hex(8)}"
    fd = os.open(name, _NEW_FLAGS, 0o600, dir_fd=folder)
    try:
        with os.fdopen(fd, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
    except BaseException:
        os.unlink(name, dir_fd=folder)
        raise
    return name


def _mac(key: bytes, name: str, content: bytes) -> bytes:
    return hmac.digest(key, name.encode() + b"\n" + content, "sha256")


def _words(error: OSError | RefusedFileError) -> str:
    return str(error) if isinstance(error, RefusedFileError) else (error.strerror or type(error).__name__)
