"""One build of the kernels for all tests here."""

from __future__ import annotations

import ctypes
import os

import pytest
from tests.kernels import cpu


@pytest.fixture(scope="session")
def library(tmp_path_factory: pytest.TempPathFactory) -> ctypes.CDLL:
    """The kernels as g++ builds them. Without g++ their tests are left out: `make test` says so, CI fails."""
    if cpu.COMPILER is None:
        leave_out = pytest.fail if os.environ.get("VRAM_TESTS_NEED_TOOLS") else pytest.skip
        leave_out("g++ is missing, and with it the test of the GPU kernels on the CPU")
    return cpu.built(tmp_path_factory.mktemp("kernels"))


@pytest.fixture
def runner(library: ctypes.CDLL) -> cpu.CpuRunner:
    """Threads in ascending order."""
    return cpu.CpuRunner(library)


class Memory:
    """Random bytes at an address as a device would give it."""

    def __init__(self, size_bytes: int) -> None:
        self._buffer = ctypes.create_string_buffer(os.urandom(size_bytes + cpu.ALIGNMENT))
        self.address = -(-ctypes.addressof(self._buffer) // cpu.ALIGNMENT) * cpu.ALIGNMENT

    def bytes(self, size_bytes: int, start: int = 0) -> bytes:
        return ctypes.string_at(self.address + start, size_bytes)

    def flip(self, offset: int, bit: int = 0) -> None:
        place = ctypes.c_ubyte.from_address(self.address + offset)
        place.value ^= 1 << bit


@pytest.fixture(scope="session")
def memory() -> Memory:
    """24 MiB that no test changes."""
    return Memory(24 << 20)
