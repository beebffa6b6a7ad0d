"""The system calls of the log's writer that can fail, in one place.

Everything durable goes through a Files object, so that a test can make any call fail, write short, or find
the disk full. OSError comes out as it is; the callers turn it into AuditWriteError.
"""

from __future__ import annotations

import errno
import mmap
import os
import stat
from pathlib import Path
from typing import Final

DIRECTORY_MODE: Final = 0o700
FILE_MODE: Final = 0o600
CLOSED_MODE: Final = 0o400
_ALLOCATION_BYTES: Final = 1 << 20

_SYNC_DATA = getattr(os, "fdatasync", os.fsync)  # macOS has fsync alone


class Files:
    """Open, write, sync, cut, replace."""

    def create(self, path: Path) -> int:
        """A descriptor for appending to a file that must not exist yet (mode 0600)."""
        return os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, FILE_MODE)

    def open_append(self, path: Path) -> int:
        """A descriptor for appending to a file that exists and is no symbolic link."""
        return os.open(path, os.O_RDWR | os.O_APPEND | os.O_NOFOLLOW)

    def open_update(self, path: Path) -> int:
        """A descriptor for write_at() in a file that exists and is no symbolic link."""
        return os.open(path, os.O_RDWR | os.O_NOFOLLOW)

    def write(self, descriptor: int, data: bytes | memoryview) -> int:
        """Write some of ``data`` at the end; how many bytes it was."""
        return os.write(descriptor, data)

    def write_at(self, descriptor: int, data: bytes, offset: int) -> int:
        """Write some of ``data`` at ``offset``; how many bytes it was."""
        return os.pwrite(descriptor, data, offset)

    def sync_data(self, descriptor: int) -> None:
        """Return when the file's bytes and length would survive a loss of power."""
        _SYNC_DATA(descriptor)

    def truncate(self, descriptor: int, length: int) -> None:
        """Cut the file to ``length`` bytes."""
        os.ftruncate(descriptor, length)

    def replace(self, source: Path, target: Path) -> None:
        """Rename over ``target``, atomically."""
        source.replace(target)

    def protect(self, path: Path) -> None:
        """Make a file read-only (mode 0400), if it is not so yet."""
        if stat.S_IMODE(path.stat(follow_symlinks=False).st_mode) != CLOSED_MODE:
            path.chmod(CLOSED_MODE)

    def remove(self, path: Path) -> None:
        """Unlink ``path``. Durable after sync_directory()."""
        path.unlink()

    def sync_directory(self, path: Path) -> None:
        """Return when names created, replaced or removed in ``path`` would survive a loss of power."""
        descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)

    def free_bytes(self, descriptor: int) -> int:
        """What this user may still write on the file's disk."""
        status = os.fstatvfs(descriptor)
        return status.f_bavail * status.f_frsize

    def allocate(self, descriptor: int, size: int) -> None:
        """Make the file ``size`` bytes long, all on the disk: what is mapped can never lack a page."""
        try:
            os.posix_fallocate(descriptor, 0, size)
        except AttributeError:  # macOS
            self._fill(descriptor, size)
        except OSError as error:
            if error.errno not in {errno.EOPNOTSUPP, errno.EINVAL}:
                raise
            self._fill(descriptor, size)

    def _fill(self, descriptor: int, size: int) -> None:
        for offset in range(0, size, _ALLOCATION_BYTES):
            self.write_all_at(descriptor, bytes(min(_ALLOCATION_BYTES, size - offset)), offset)

    def map(self, descriptor: int, size: int) -> memoryview:
        """The file's first ``size`` bytes as shared memory, its pages at hand. Lives on after close()."""
        memory = memoryview(mmap.mmap(descriptor, size))
        # Written to once, so that the first events do not wait for a page fault each.
        memory[:: mmap.PAGESIZE] = bytes(memory[:: mmap.PAGESIZE])
        return memory

    def write_all(self, descriptor: int, data: bytes) -> None:
        """write() until everything is written: a short write is not an error, only a beginning."""
        rest = memoryview(data)
        while rest:
            rest = rest[_some(self.write(descriptor, rest)) :]

    def write_all_at(self, descriptor: int, data: bytes, offset: int) -> None:
        """write_at() until everything is written."""
        done = 0
        while done < len(data):
            done += _some(self.write_at(descriptor, data[done:], offset + done))

    def write_new(self, path: Path, data: bytes) -> None:
        """Make a file that must not exist yet, and sync it. Its name is durable after sync_directory()."""
        descriptor = self.create(path)
        try:
            self.write_all(descriptor, data)
            self.sync_data(descriptor)
        finally:
            os.close(descriptor)

    def write_atomically(self, path: Path, data: bytes) -> None:
        """Put ``data`` in place of what ``path`` holds: after a crash there is the old or the new, whole."""
        new = path.with_name(f"{path.name}.new")
        new.unlink(missing_ok=True)  # left by a crash: never had the final name
        self.write_new(new, data)
        self.replace(new, path)
        self.sync_directory(path.parent)


def _some(written: int) -> int:
    if written <= 0:
        raise OSError(errno.EIO, "nothing was written")
    return written


SYSTEM_FILES: Final = Files()


def make_private_directory(path: Path, files: Files = SYSTEM_FILES) -> None:
    """Make a directory and every missing one above it, each 0700 whatever the umask says, durably."""
    for missing in reversed([each for each in (path, *path.parents) if not each.exists()]):
        missing.mkdir(mode=DIRECTORY_MODE, exist_ok=True)
        files.sync_directory(missing.absolute().parent)
