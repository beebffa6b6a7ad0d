"""The few calls of the C library that Python does not offer, and the addresses that they need.

Addresses stay inside this package: they are never in facts, errors, logs or reprs (residency.md section 1).
"""

from __future__ import annotations

import ctypes
import errno
import functools
import mmap
import os
from typing import Any

PAGE_BYTES = mmap.PAGESIZE

_PYBUF_FULL_RO = 0x011C
_MLOCK_ONFAULT = 1
# Linux 5.4. "Cold" only tells the kernel that a page may be reclaimed first: no content changes.
_MADV_COLD = 20


class _Buffer(ctypes.Structure):
    """Py_buffer, part of Python's stable ABI since 3.11."""

    _fields_ = (
        ("buf", ctypes.c_void_p),
        ("obj", ctypes.c_void_p),
        ("len", ctypes.c_ssize_t),
        ("itemsize", ctypes.c_ssize_t),
        ("readonly", ctypes.c_int),
        ("ndim", ctypes.c_int),
        ("format", ctypes.c_char_p),
        ("shape", ctypes.c_void_p),
        ("strides", ctypes.c_void_p),
        ("suboffsets", ctypes.c_void_p),
        ("internal", ctypes.c_void_p),
    )


def address_of(exporter: object) -> int:
    """Where the first element of a buffer lies, whatever its shape and strides."""
    buffer = _Buffer()
    ctypes.pythonapi.PyObject_GetBuffer(ctypes.py_object(exporter), ctypes.byref(buffer), _PYBUF_FULL_RO)
    try:
        return int(buffer.buf or 0)
    finally:
        ctypes.pythonapi.PyBuffer_Release(ctypes.byref(buffer))


def lock(region: mmap.mmap) -> None:
    """Keep every page of a mapping in memory (mlock(2)). Raises OSError; nothing is locked then."""
    try:
        _call("mlock", region)
    except OSError:
        # The kernel may have marked the mapping before it ran out of pages.
        _call("munlock", region)
        raise


def lock_on_fault(region: mmap.mmap) -> bool:
    """Lock each page as it is first touched (mlock2(2), Linux 4.4); False where that is refused."""
    if not hasattr(_libc(), "mlock2"):
        return False
    try:
        _call("mlock2", region, _MLOCK_ONFAULT)
    except OSError:
        return False
    return True


def make_read_only(region: mmap.mmap) -> None:
    """Take the right to write from a mapping (mprotect(2)). Raises OSError."""
    _call("mprotect", region, mmap.PROT_READ)


def is_locked(region: mmap.mmap, offset: int = 0) -> bool:
    """Whether the part of a mapping that begins at ``offset``, a multiple of the page size, is locked.

    MADV_COLD is refused with EINVAL for locked memory and only there (madvise(2)). That is exact for each
    kernel mapping and costs a microsecond; /proc/self/smaps says the same but walks every page of the
    process: 12 ms for each resident GB, an eighth of hashing it.
    Holds where ``can_tell_locks()``.
    """
    try:
        region.madvise(_MADV_COLD, offset, PAGE_BYTES)
    except OSError as error:
        if error.errno != errno.EINVAL:
            raise
        return True
    return False


@functools.cache
def can_tell_locks() -> bool:
    """Whether this kernel answers ``is_locked``: tried on one page that is certainly not locked."""
    try:
        with mmap.mmap(-1, PAGE_BYTES) as page:
            # mlockall(MCL_FUTURE) may have locked it from the start.
            _call("munlock", page)
            return not is_locked(page)
    except OSError:
        return False


def _call(name: str, region: mmap.mmap, *rest: int) -> None:
    address = ctypes.c_void_p(address_of(region))
    if getattr(_libc(), name)(address, ctypes.c_size_t(len(region)), *rest) != 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))


@functools.cache
def _libc() -> Any:
    return ctypes.CDLL(None, use_errno=True)
