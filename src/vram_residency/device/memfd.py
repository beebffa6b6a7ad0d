"""One memfd: memory behind a descriptor, that the kernel can make immutable (memfd_create(2)).

``F_SEAL_WRITE`` is the kernel's own promise: from then on no write, no writable shared mapping and no
punched hole succeeds, by any process and any privilege, and the seals themselves cannot be taken off.
"""

from __future__ import annotations

import errno
import fcntl as _fcntl
import os
import re
from pathlib import Path
from typing import Any

# Any: the module has the names of seals only on Linux.
fcntl: Any = _fcntl

_DESCRIPTORS = Path("/proc/self/fd")
_NAME_BYTES_MAX = 249
# The kernel shows the name in /proc, line by line.
_UNPRINTABLE = re.compile(r"[^A-Za-z0-9._:-]")
_MFD_NOEXEC_SEAL = 0x0008
_F_SEAL_EXEC = 0x0020

#: Without these: resizable, and for the fault device writable.
SIZE_SEALS = ("seal", "shrink", "grow")
ALL_SEALS = (*SIZE_SEALS, "write")


def is_supported() -> bool:
    """Whether this system has memfd_create and sealing, and can reopen descriptors."""
    return hasattr(os, "memfd_create") and hasattr(fcntl, "F_ADD_SEALS") and _DESCRIPTORS.is_dir()


def create(label: str, size_bytes: int) -> int:
    """A writable descriptor of a new memfd. Close-on-exec; not executable where the kernel knows how.

    Raises OSError.
    """
    name = ("vram:" + _UNPRINTABLE.sub("?", label))[:_NAME_BYTES_MAX]
    flags = os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING
    try:
        fd = os.memfd_create(name, flags | _MFD_NOEXEC_SEAL)
    except OSError as error:
        # Linux before 6.3 does not know the flag.
        if error.errno != errno.EINVAL:
            raise
        fd = os.memfd_create(name, flags)
    try:
        os.ftruncate(fd, size_bytes)
    except BaseException:
        os.close(fd)
        raise
    return fd


def reopen_read_only(fd: int) -> int:
    """A second descriptor of the same memory that cannot write: nor can what is mapped from it, ever.

    Raises OSError.
    """
    return os.open(_DESCRIPTORS / str(fd), os.O_RDONLY | os.O_CLOEXEC)


def add_seals(fd: int, names: tuple[str, ...]) -> None:
    """Put seals on for good. Raises OSError: EBUSY while a writable mapping exists."""
    flags = 0
    for name in names:
        flags |= getattr(fcntl, f"F_SEAL_{name.upper()}")
    fcntl.fcntl(fd, fcntl.F_ADD_SEALS, flags)


def seals(fd: int) -> str:
    """The seals on a descriptor's memory, in one order, joined by commas. Raises OSError."""
    flags = fcntl.fcntl(fd, fcntl.F_GET_SEALS)
    known = {name: getattr(fcntl, f"F_SEAL_{name.upper()}") for name in ALL_SEALS}
    return ",".join(name for name, bit in (*known.items(), ("exec", _F_SEAL_EXEC)) if flags & bit)


def can_write(fd: int) -> bool:
    """Whether a descriptor was opened for writing. Raises OSError."""
    return bool(fcntl.fcntl(fd, fcntl.F_GETFL) & (os.O_WRONLY | os.O_RDWR))
