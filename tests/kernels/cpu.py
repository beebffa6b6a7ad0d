"""The kernels on the CPU: ``kernels.cu`` compiled by g++ behind a header, and a runner for it."""

from __future__ import annotations

import ctypes
import shutil
import subprocess
from pathlib import Path

import vram_residency.digest
from vram_residency.digest.launches import Launch

HERE = Path(__file__).parent
SOURCES = Path(vram_residency.digest.__file__).parent
COMPILER = shutil.which("g++")
#: Undefined behaviour ends the process at once; warnings are errors.
OPTIONS = (
    *("-std=c++17", "-O2", "-shared", "-fPIC", "-fno-strict-aliasing"),
    *("-Wall", "-Wextra", "-Werror", "-Wno-unknown-pragmas"),
    *("-fsanitize=undefined", "-fsanitize-undefined-trap-on-error"),
)
ALIGNMENT = 256


def built(folder: Path) -> ctypes.CDLL:
    """Compile the kernels into ``folder`` and load them."""
    assert COMPILER is not None
    library = folder / "kernels.so"
    command = [COMPILER, *OPTIONS, f"-I{SOURCES}", str(HERE / "cpu_build.cpp"), "-o", str(library)]
    subprocess.run(command, check=True)
    loaded = ctypes.CDLL(str(library))
    loaded.launch.argtypes = [ctypes.c_char_p, ctypes.c_uint64, ctypes.c_uint, ctypes.c_void_p]
    loaded.launch.restype = ctypes.c_bool
    return loaded


class CpuRunner:
    """A KernelRunner whose device memory is ours. ``order`` is that of threads and thread blocks."""

    def __init__(self, library: ctypes.CDLL, order: int = 0) -> None:
        self.compiled = library
        self.order = order
        self.launched: list[Launch] = []
        self.reserved: dict[int, ctypes.Array[ctypes.c_char]] = {}
        self.wiped: list[bool] = []

    def reserve(self, size_bytes: int) -> int:
        """Rubbish, not zeros, as on a device."""
        buffer = ctypes.create_string_buffer(b"\xee" * (size_bytes + ALIGNMENT), size_bytes + ALIGNMENT)
        address = -(-ctypes.addressof(buffer) // ALIGNMENT) * ALIGNMENT
        self.reserved[address] = buffer
        return address

    def release(self, address: int) -> None:
        buffer = self.reserved.pop(address)
        ctypes.memset(buffer, 0, len(buffer))
        self.wiped.append(not any(buffer.raw))

    def write(self, address: int, data: bytes | bytearray) -> None:
        ctypes.memmove(address, bytes(data), len(data))

    def read(self, address: int, size_bytes: int) -> bytearray:
        return bytearray(ctypes.string_at(address, size_bytes))

    def launch(self, launch: Launch) -> None:
        arguments = (ctypes.c_uint64 * len(launch.arguments))(*launch.arguments)
        assert self.compiled.launch(launch.kernel.encode(), launch.blocks, self.order, arguments)
        self.launched.append(launch)
