"""Where logs are struck: in memory where there is such a place, since only a loss of power needs a disk."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

_MEMORY: Final = Path("/dev/shm")


@contextmanager
def workplace(*, in_memory: bool = True) -> Iterator[Path]:
    """A folder that is gone afterwards."""
    where = _MEMORY if in_memory and os.access(_MEMORY, os.W_OK) else None
    with tempfile.TemporaryDirectory(dir=where, prefix="faults-", ignore_cleanup_errors=True) as folder:
        yield Path(folder)
