"""Publishing a log as tiles that any static file server can serve (spec: audit-log.md section 8).

A publication is what its ``checkpoint`` covers. That file is replaced last, so after a crash at any moment
the old publication stands, whole; what lies beyond it is written again. A full tile that a checkpoint covers
is never opened for writing.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Final

import msgspec

from vram_residency.audit.format import note, tiles
from vram_residency.audit.format.checkpoint import CheckpointFormatError, SignedCheckpoint, open_signed
from vram_residency.audit.format.tree import leaf_hash
from vram_residency.audit.publishing.public_files import PublicFiles
from vram_residency.audit.publishing.signed_log import Leaf, Progress, SignedLog
from vram_residency.audit.reading import source as reading
from vram_residency.audit.store.files import SYSTEM_FILES, Files
from vram_residency.core.errors import AuditWriteError, ConfigurationError, LogDamagedError

_OWN_NAMES: Final = frozenset({"tile", "checkpoint", "checkpoint.new"})
_BUNDLE_BYTES_MAX: Final = tiles.WIDTH * (2 + 0xFFFF)
_STEPS_BETWEEN_REPORTS: Final = 1024
_ANEW_HINT: Final = "Keep both for comparison; publish into a new directory once you know which one is right."


class Published(msgspec.Struct, frozen=True):
    """What now stands in the directory, and what stood there before (0 entries: nothing)."""

    origin: str
    size: int
    root: bytes
    old_size: int
    files_written: int


def publish(
    directory: str | os.PathLike[str],
    out: str | os.PathLike[str],
    *,
    files: Files = SYSTEM_FILES,
    on_progress: Progress | None = None,
) -> Published:
    """Bring the publication in ``out`` up to the log's newest checkpoint, or begin one there.

    ``on_progress`` gets steps done and in all: each new entry is read twice, to check it and to write it.
    Raises ConfigurationError (no log, or ``out`` holds something else), LogDamagedError (the log is older
    than what was published, contradicts it or itself), AuditWriteError. Then what was published stays.
    """
    log = SignedLog.open(directory)
    place = Path(out)
    _require_apart(log.directory.path, place)
    try:
        place.mkdir(parents=True, exist_ok=True)
        with _locked(place):
            return _Publication(log, place, files, on_progress or _ignore).run()
    except OSError as error:
        raise AuditWriteError(
            str(error.filename or place),
            "publish",
            error.strerror or str(error),
            hint="Make room or mend the file system and publish again; the old publication still stands.",
        ) from error


class _Publication:
    """One run, under the publication's lock."""

    def __init__(self, log: SignedLog, out: Path, files: Files, on_progress: Progress) -> None:
        self._log = log
        self._out = out
        self._files = PublicFiles(out, files)
        self._on_progress = on_progress
        self._steps = 0
        self._outgrown: list[Path] = []

    def run(self) -> Published:
        # 1. What is published already, and that it is of this log and not ahead of it.
        old = self._read_old()
        old_size = 0 if old is None else old.size
        # 2. The edge of its tiles hashes to its root.
        edge = self._read_edge(old)
        # 3. The log continues it, up to the signed root: before anything is written.
        kept = self._require_continued(edge, old_size)
        # 4. Tiles and bundles, durable before anything points to them.
        with self._files:
            self._write_tiles(edge, kept)
            self._files.settle()
            # 5. The checkpoint: from here on it is the new publication.
            self._files.put("checkpoint", self._log.cosigned_note())
            self._files.settle()
        # 6. Partial tiles that are full now serve nobody (tlog-tiles, "Partial Tiles").
        for folder in self._outgrown:
            shutil.rmtree(folder, ignore_errors=True)
        return Published(
            self._log.origin, self._log.size, self._log.checkpoint.root, old_size, self._files.count
        )

    # --- 1, 2: what is there --------------------------------------------------------------------------------

    def _read_old(self) -> SignedCheckpoint | None:
        path = self._out / "checkpoint"
        try:
            data = reading.read_small(path)
        except FileNotFoundError:
            self._require_free()
            return None
        try:
            old = open_signed(data, self._log.config.verifier_keys(), origin=self._log.origin)
        except (note.NoteFormatError, note.NoteVerificationError, CheckpointFormatError) as error:
            raise ConfigurationError(
                str(path), f"is not a checkpoint of this log: {error}", hint="Name another directory."
            ) from None
        if old.size > self._log.size:
            reason = f"it covers {old.size} entries, the log's own checkpoint {self._log.size}: rolled back"
            raise LogDamagedError(str(path), None, reason, hint=_ANEW_HINT)
        if old.size == self._log.size and old.root != self._log.checkpoint.root:
            reason = f"the log signed another root for {old.size} entries"
            raise LogDamagedError(str(path), None, reason, hint=_ANEW_HINT)
        return old

    def _require_free(self) -> None:
        alien = sorted({path.name for path in self._out.iterdir()} - _OWN_NAMES)
        if alien:
            raise ConfigurationError(
                str(self._out),
                f"is not empty and not a publication: {alien[0]}",
                hint="Name a new or an empty directory.",
            )

    def _read_edge(self, old: SignedCheckpoint | None) -> tiles.TileEdge:
        if old is None:
            return tiles.TileEdge()
        levels: list[list[bytes]] = [[] for _ in tiles.widths(old.size)]
        for tile in tiles.partial_tiles(old.size):
            data = self._read(tile, tile.width * 32)
            with contextlib.suppress(tiles.TileFormatError):  # then the size does not fit below
                levels[int(tile.level)] = tiles.split_hashes(data, tile.width)
        try:
            edge = tiles.TileEdge(old.size, levels)
        except tiles.TileFormatError as error:
            raise self._damaged(str(error)) from None
        if edge.root() != old.root:
            raise self._damaged("they do not hash to the published root")
        return edge

    def _read(self, tile: tiles.Tile, bytes_max: int) -> bytes:
        try:
            with reading.open_regular(self._out / tile.path) as file:
                return file.read(bytes_max + 1)
        except FileNotFoundError:
            return b""

    # --- 3: what comes ----------------------------------------------------------------------------------

    def _require_continued(self, edge: tiles.TileEdge, old_size: int) -> list[bytes | None]:
        """The entries of the bundle that was partial, once the log proves to continue the publication."""
        partial = old_size % tiles.WIDTH
        leaves = self._log.leaves(old_size - partial)
        begun = list(islice(leaves, partial))
        if [leaf.hash for leaf in begun] != edge.hashes(0):
            raise self._contradicted(old_size)
        future = edge.copy()
        for leaf in leaves:
            future.append(leaf.hash)
            self._step(old_size)
        if (future.size, future.root()) != (self._log.size, self._log.checkpoint.root):
            raise self._contradicted(old_size)
        return self._begun_lines(begun, old_size)

    def _begun_lines(self, begun: list[Leaf], old_size: int) -> list[bytes | None]:
        """The lines of the partial bundle; those that the log pruned come from the bundle itself."""
        if all(leaf.line is not None for leaf in begun):
            return [leaf.line for leaf in begun]
        bundle = tiles.Tile("entries", old_size // tiles.WIDTH, len(begun))
        try:
            lines = tiles.split_entries(self._read(bundle, _BUNDLE_BYTES_MAX), len(begun))
        except tiles.TileFormatError:
            return [leaf.line for leaf in begun]
        return [
            line if leaf_hash(line) == leaf.hash else leaf.line
            for line, leaf in zip(lines, begun, strict=True)
        ]

    # --- 4: writing ----------------------------------------------------------------------------------

    def _write_tiles(self, edge: tiles.TileEdge, begun: list[bytes | None]) -> None:
        old_size, lines = edge.size, list(begun)
        for leaf in self._log.leaves(edge.size):
            lines.append(leaf.line)
            filled = edge.append(leaf.hash)
            self._step(old_size)
            for tile, data in filled:
                self._write_tile(tile, data)
            if filled:
                self._write_bundle(edge.size, lines)
                lines.clear()
        if edge.root() != self._log.checkpoint.root:
            raise self._contradicted(old_size)  # changed since step 3
        for tile, data in edge.partial():
            self._write_tile(tile, data)
        self._write_bundle(edge.size, lines)

    def _write_bundle(self, size: int, lines: list[bytes | None]) -> None:
        """The bundle that ends at ``size``; none where entries were pruned before they were published."""
        present = [line for line in lines if line is not None]
        if present and len(present) == len(lines):
            bundle = tiles.Tile("entries", (size - 1) // tiles.WIDTH, len(lines))
            self._write_tile(bundle, tiles.join_entries(present))

    def _write_tile(self, tile: tiles.Tile, data: bytes) -> None:
        self._files.put(tile.path, data)
        folder = self._out / tile.partial_folder
        if tile.is_full and folder.is_dir():
            self._outgrown.append(folder)

    def _step(self, old_size: int) -> None:
        self._steps += 1
        if self._steps % _STEPS_BETWEEN_REPORTS == 0:
            self._on_progress(self._steps, 2 * (self._log.size - old_size))

    # --- what is said -----------------------------------------------------------------------------------

    def _damaged(self, reason: str) -> LogDamagedError:
        path = str(self._out / "tile")
        hint = "Publish into a new directory, and ask who could write to this one."
        return LogDamagedError(path, None, f"published tiles were changed: {reason}", hint=hint)

    def _contradicted(self, old_size: int) -> LogDamagedError:
        size = self._log.size
        reason = f"the first {size} entries do not hash to the signed root"
        if old_size:
            reason = f"they do not lead from the {old_size} published ones to the signed root of {size}"
        return LogDamagedError(str(self._log.directory.entries), None, reason)


def _ignore(done: int, total: int) -> None:
    del done, total


def _require_apart(log: Path, out: Path) -> None:
    if out.exists() and not out.is_dir():
        raise ConfigurationError(str(out), "is not a directory", hint="Name a directory to publish into.")
    inner, outer = out.resolve(), log.resolve()
    if inner.is_relative_to(outer) or outer.is_relative_to(inner):
        raise ConfigurationError(
            str(out),
            "lies in the log's own directory, or around it",
            hint="Name a directory elsewhere: a server must not reach the log itself.",
        )


@contextlib.contextmanager
def _locked(out: Path) -> Iterator[None]:
    """flock(2) on the directory itself: one publisher at a time, and no lock file to serve."""
    descriptor = os.open(out, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    except BlockingIOError:
        raise AuditWriteError(
            str(out), "publish", "another process publishes there", hint="Try again when it is done."
        ) from None
    finally:
        os.close(descriptor)
