"""Real file systems that run full, turn read-only or lose their power. Needs root that may mount."""

from __future__ import annotations

import fcntl
import os
import struct
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final, Self

_SHUTDOWN: Final = 0x8004587D  # FS_IOC_SHUTDOWN (linux/fs.h): ext4, xfs, f2fs, btrfs
_WITHOUT_LOG_FLUSH: Final = 2
_EXT4_BYTES: Final = 16 << 20


def why_not() -> str:
    """Why nothing can be mounted here; empty where it can."""
    if not hasattr(os, "geteuid") or os.geteuid() != 0:
        return "mounting needs root"
    for program in ("mount", "umount", "mkfs.ext4"):
        if subprocess.run(["which", program], check=False, capture_output=True).returncode:
            return f"{program} is not installed"
    probe = "mount -t tmpfs none /mnt && umount /mnt"
    done = subprocess.run(["unshare", "-m", "sh", "-c", probe], check=False, capture_output=True, text=True)
    return f"this kernel does not let us mount: {done.stderr.strip()}" if done.returncode else ""


@contextmanager
def tmpfs(place: Path, size: str) -> Iterator[Path]:
    """A file system in memory that holds ``size``, at ``place``."""
    place.mkdir()
    _run("mount", "-t", "tmpfs", "-o", f"size={size},mode=0700", "none", str(place))
    try:
        yield place
    finally:
        _run("umount", "-l", str(place))


class Ext4:
    """A real ext4 in a file, mounted at ``place`` over a loop device. Use as a context manager."""

    def __init__(self, place: Path) -> None:
        self.place = place
        self._image = place.with_name(f"{place.name}.img")
        self._is_mounted = False

    def __enter__(self) -> Self:
        with self._image.open("wb") as file:
            file.truncate(_EXT4_BYTES)
        _run("mkfs.ext4", "-q", "-F", "-E", "lazy_itable_init=0", str(self._image))
        self.place.mkdir()
        self.mount()
        return self

    def __exit__(self, *_: object) -> None:
        self.unmount()

    def mount(self) -> None:
        """Mount it; its journal is replayed where it needs that."""
        _run("mount", "-o", "loop,errors=remount-ro", str(self._image), str(self.place))
        self._is_mounted = True

    def unmount(self) -> None:
        if self._is_mounted:
            _run("umount", str(self.place))
            self._is_mounted = False

    def cut_power(self) -> None:
        """From now on nothing reaches the disk, not even what the file system's journal still held."""
        descriptor = os.open(self.place, os.O_RDONLY)
        try:
            fcntl.ioctl(descriptor, _SHUTDOWN, struct.pack("I", _WITHOUT_LOG_FLUSH))
        finally:
            os.close(descriptor)

    def turn_read_only(self) -> None:
        """What ext4 does after an error of its own, with files open for writing."""
        device = os.stat(self.place).st_dev
        name = Path(f"/sys/dev/block/{os.major(device)}:{os.minor(device)}").resolve().name
        Path(f"/sys/fs/ext4/{name}/trigger_fs_error").write_text("1")


def _run(*command: str) -> None:
    subprocess.run(command, check=True, capture_output=True)
