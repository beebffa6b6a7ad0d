"""Addresses of this process that the simulated driver hands out: reserved, backed by a memfd, protected."""

from __future__ import annotations

import ctypes
import mmap
import os
from typing import Final, Literal

_LIBRARY: Final = ctypes.CDLL(None, use_errno=True)
_MMAP: Final = _LIBRARY.mmap
_MMAP.restype = ctypes.c_void_p
_MMAP.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int, ctypes.c_int, ctypes.c_int, ctypes.c_long)
_MUNMAP: Final = _LIBRARY.munmap
_MUNMAP.argtypes = (ctypes.c_void_p, ctypes.c_size_t)
_MPROTECT: Final = _LIBRARY.mprotect
_MPROTECT.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)

_FIXED: Final = 0x10  # MAP_FIXED, the same on every Linux that matters here
_NONE: Final = 0  # PROT_NONE
_PROTECTIONS: Final = {"read": mmap.PROT_READ, "read_write": mmap.PROT_READ | mmap.PROT_WRITE}


class Reservation:
    """A range of addresses, a multiple of ``unit_bytes`` long and aligned to it. Raises OSError."""

    def __init__(self, size_bytes: int, unit_bytes: int) -> None:
        self.size_bytes = size_bytes
        self._whole_bytes = size_bytes + unit_bytes
        self._base = _mapped(None, self._whole_bytes, -1)
        self.address = -(-self._base // unit_bytes) * unit_bytes

    def map(self, descriptor: int) -> None:
        """Put a file behind the addresses, not accessible yet."""
        _mapped(self.address, self.size_bytes, descriptor)

    def allow(self, access: Literal["read", "read_write"]) -> None:
        """Say what may be done there."""
        _checked(_MPROTECT(self.address, self.size_bytes, _PROTECTIONS[access]))

    def unmap(self) -> None:
        """Take what lies behind away; the addresses stay ours."""
        _mapped(self.address, self.size_bytes, -1)

    def close(self) -> None:
        """Give the addresses back."""
        _checked(_MUNMAP(self._base, self._whole_bytes))


def _mapped(address: int | None, size_bytes: int, descriptor: int) -> int:
    kind = mmap.MAP_SHARED if descriptor >= 0 else mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS
    flags = kind | (_FIXED if address is not None else 0)
    found = _MMAP(address, size_bytes, _NONE, flags, descriptor, 0)
    if found is None or found == ctypes.c_void_p(-1).value:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return int(found)


def _checked(status: int) -> None:
    if status:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
