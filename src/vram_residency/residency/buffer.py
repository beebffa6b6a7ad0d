"""PEP 688 for Python 3.11: lets a class with ``__buffer__`` be an argument of ``memoryview()``.

From Python 3.12 on the interpreter does this itself and this module does nothing. It goes when 3.11 goes.
Only the stable ABI is used (PyType_FromSpec with Py_bf_getbuffer, part of it since 3.11).
"""

from __future__ import annotations

import ctypes
import sys
from typing import Any

_PY_BF_GETBUFFER = 1
_PY_TPFLAGS_DEFAULT_BASETYPE = (1 << 10) | (1 << 18)


class _Slot(ctypes.Structure):
    _fields_ = (("slot", ctypes.c_int), ("function", ctypes.c_void_p))


class _Spec(ctypes.Structure):
    _fields_ = (
        ("name", ctypes.c_char_p),
        ("basicsize", ctypes.c_int),
        ("itemsize", ctypes.c_int),
        ("flags", ctypes.c_uint),
        ("slots", ctypes.POINTER(_Slot)),
    )


_GetBuffer = ctypes.PYFUNCTYPE(ctypes.c_int, ctypes.py_object, ctypes.c_void_p, ctypes.c_int)


def _get_buffer(exporter: Any, view: int, flags: int) -> int:
    # The export is passed on to the memoryview behind it: that one counts it and releases it.
    pass_on = ctypes.pythonapi.PyObject_GetBuffer
    pass_on.argtypes = (ctypes.py_object, ctypes.c_void_p, ctypes.c_int)
    try:
        return int(pass_on(exporter.__buffer__(flags), view, flags))
    except Exception:  # noqa: BLE001 - ctypes lets no exception through a callback; -1 becomes SystemError
        return -1


# Kept for the life of the process: the type made below calls it.
_GET_BUFFER = _GetBuffer(_get_buffer)


def _build() -> type:
    slots = (_Slot * 2)(
        _Slot(_PY_BF_GETBUFFER, ctypes.cast(_GET_BUFFER, ctypes.c_void_p).value), _Slot(0, None)
    )
    spec = _Spec(b"vram_residency.residency.buffer.BufferBase", 0, 0, _PY_TPFLAGS_DEFAULT_BASETYPE, slots)
    from_spec = ctypes.pythonapi.PyType_FromSpec
    from_spec.restype = ctypes.py_object
    base: type = from_spec(ctypes.byref(spec))
    return base


BufferBase: type = object if sys.version_info >= (3, 12) else _build()
