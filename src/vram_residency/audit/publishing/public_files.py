"""Files that others may read, put in place in batches: durable before they have their names.

Syncing files one after another, each right after it was written, costs a turn of the disk for each; written
first and synced then, they share it.
"""

from __future__ import annotations

import os
from pathlib import Path
from types import TracebackType
from typing import Final, NamedTuple, Self

from vram_residency.audit.reading import source as reading
from vram_residency.audit.store.files import Files

#: What is published is there to be read by a server that runs as another user.
FILE_MODE: Final = 0o644
_BATCH_FILES: Final = 128


class _Pending(NamedTuple):
    """A file that is written and neither durable nor in place yet."""

    descriptor: int
    new: Path
    path: Path


class PublicFiles:
    """Writes files below ``root``; a context manager, which closes what is open.

    Invariant: a path holds what it held before, or what put() was given for it and settle() made durable.
    """

    def __init__(self, root: Path, files: Files) -> None:
        self._root = root
        self._files = files
        self._pending: list[_Pending] = []
        self._folders: set[Path] = set()
        self.count = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for pending in self._pending:
            os.close(pending.descriptor)
        self._pending.clear()

    def put(self, name: str, data: bytes) -> None:
        """Have ``data`` stand under ``name`` after settle(); nothing to do where it stands there already."""
        path = self._root / name
        if _holds(path, data):
            return
        path.parent.mkdir(parents=True, exist_ok=True)
        self._folders.add(path.parent)
        new = path.with_name(f"{path.name}.new")
        new.unlink(missing_ok=True)  # left by a crash
        descriptor = self._files.create(new)
        self._pending.append(_Pending(descriptor, new, path))
        os.fchmod(descriptor, FILE_MODE)
        self._files.write_all(descriptor, data)
        if len(self._pending) == _BATCH_FILES:
            self._place()

    def settle(self) -> None:
        """Return when all that was put is in place and would survive a loss of power."""
        self._place()
        above = {parent for folder in self._folders for parent in folder.parents}
        inside = {folder for folder in above if folder.is_relative_to(self._root)}
        for folder in sorted(self._folders | inside, reverse=True):
            self._files.sync_directory(folder)
        self._folders.clear()

    def _place(self) -> None:
        for pending in self._pending:
            self._files.sync_data(pending.descriptor)
        while self._pending:
            descriptor, new, path = self._pending.pop()
            os.close(descriptor)
            self._files.replace(new, path)
            self.count += 1


def _holds(path: Path, data: bytes) -> bool:
    try:
        with reading.open_regular(path) as file:
            return file.read(len(data) + 1) == data
    except FileNotFoundError:
        return False
