"""Getting the interpreter back at once after a system call, while somebody waits for the disk.

A thread that releases the interpreter for a system call waits for a whole switch interval (5 ms) beside a
thread that computes, and a durable event takes several such calls. So the interval is short for that while.
"""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

INTERVAL_S: Final = 0.0001


class _Waiters:
    """Those who wait now, and the interval of before; guarded by ``lock``."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.count = 0
        self.usual_s = 0.0


_waiters = _Waiters()


@contextmanager
def prompt_interpreter() -> Iterator[None]:
    """Let threads take turns quickly until the last of these blocks ends; then as before."""
    waiters = _waiters
    with waiters.lock:
        waiters.count += 1
        if waiters.count == 1:
            waiters.usual_s = sys.getswitchinterval()
            sys.setswitchinterval(min(waiters.usual_s, INTERVAL_S))
    try:
        yield
    finally:
        with waiters.lock:
            waiters.count -= 1
            # Where somebody set another interval in the meantime, that is what they want.
            if waiters.count == 0 and sys.getswitchinterval() <= INTERVAL_S:
                sys.setswitchinterval(waiters.usual_s)


def _restart_in_child() -> None:
    """A fork takes one thread along: what the others held or waited for has no end there."""
    global _waiters  # noqa: PLW0603 - one interpreter, one interval
    if _waiters.count:
        sys.setswitchinterval(_waiters.usual_s)
    _waiters = _Waiters()


os.register_at_fork(after_in_child=_restart_in_child)
