"""One device's kernels: loaded once, used by one thread at a time."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from vram_residency.digest.compiler import architecture_of
from vram_residency.digest.cubin_cache import cached_kernels
from vram_residency.digest.runner import KernelRunner

#: Loads machine code that it asks for by compute capability, major and minor.
LoadKernels = Callable[[Callable[[int, int], bytes]], KernelRunner]


class Kernels:
    """A runner behind a lock. Safe to use from several threads, and again by the thread that has it."""

    def __init__(self, load: LoadKernels) -> None:
        self._load = load
        self._runner: KernelRunner | None = None
        self._lock = threading.RLock()  # guards the runner and its one stream
        self._passes = itertools.count(1)

    def load(self) -> None:
        """Have them ready. Raises ConfigurationError where they cannot be compiled, DeviceLostError."""
        with self.runner():
            pass

    @contextmanager
    def runner(self) -> Iterator[KernelRunner]:
        """The runner, for this thread alone while the block lasts."""
        with self._lock:
            if self._runner is None:
                self._runner = self._load(_cubin_for)
            yield self._runner

    def next_pass(self) -> int:
        """The number of a new full pass; none comes twice."""
        return next(self._passes)


def _cubin_for(major: int, minor: int) -> bytes:
    return cached_kernels(architecture_of(major, minor))
