"""The machine stops before each system call in turn; then the log is opened again.

What was acknowledged must be there, the chain must hold, and the log must go on.
"""

from __future__ import annotations

import errno
import stat
from pathlib import Path

import pytest
from tests.audit_logs import (
    FaultyFiles,
    ManualClock,
    PowerCutError,
    abandon,
    copy_tree,
    open_log,
    reference_check,
    sealed,
    segments,
)

from vram_residency.audit import verify
from vram_residency.audit.log import AuditLogger
from vram_residency.core.errors import AuditWriteError, ConfigurationError

CALLS_MAX = 200


class _Story:
    """Events of every kind on a log whose machine stops before call ``stop_at``."""

    def __init__(
        self, folder: Path, stop_at: int, *, sync_error_at: int = 0, rotate_bytes: int = 1 << 30
    ) -> None:
        self.folder = folder
        self.acknowledged: list[str] = []
        self.logger: AuditLogger | None = None
        self._clock = ManualClock()
        self._rotate_bytes = rotate_bytes
        self._sync_error_at = sync_error_at
        self._syncs = 0
        self._stop_at = stop_at
        self._files = FaultyFiles(self._on_call)

    def _on_call(self, name: str, number: int) -> None:
        if number == self._stop_at:
            raise PowerCutError
        if name == "sync_data":
            self._syncs += 1
            if self._syncs == self._sync_error_at:
                raise OSError(errno.EIO, "Input/output error")

    def run(self) -> bool:
        """Whether the machine stopped."""
        try:
            self._tell()
        except PowerCutError:
            return True
        finally:
            if self.logger is not None:
                abandon(self.logger)
        return False

    def _tell(self) -> None:
        for part in range(2):
            self.logger = open_log(
                self.folder, files=self._files, clock=self._clock, rotate_bytes=self._rotate_bytes
            )
            for number in range(2):
                name = f"shard-{part}-{number}"
                self._files.short_writes = 1
                self.logger.emit(sealed(shard_id=name))
                self.logger.flush()
                self.acknowledged.append(name)
            self._clock.advance(901)
            self.logger.tick()
            self.logger.emit(sealed(shard_id=f"last-{part}"))
            self.logger.close()
            self.acknowledged.append(f"last-{part}")


def require_modes(folder: Path) -> None:
    """Only the last segment may be written to."""
    modes = [stat.S_IMODE(path.stat().st_mode) for path in segments(folder)]
    assert modes[:-1] == [0o400] * (len(modes) - 1)
    assert modes[-1] == 0o600


def _stop_everywhere(tmp_path: Path, *, sync_error_at: int = 0, rotate_bytes: int = 1 << 30) -> int:
    stops = 0
    open_log(tmp_path / "template", clock=ManualClock()).close()
    for stop_at in range(1, CALLS_MAX):
        folder = copy_tree(tmp_path / "template", tmp_path / str(stop_at))
        story = _Story(folder, stop_at, sync_error_at=sync_error_at, rotate_bytes=rotate_bytes)
        try:
            stopped = story.run()
        except AuditWriteError:
            continue  # the injected error struck where there is no second way: nothing was acknowledged
        with open_log(folder, files=FaultyFiles(), rotate_bytes=rotate_bytes) as logger:
            logger.emit(sealed(shard_id="afterwards"))
        require_modes(folder)
        genesis_key = (folder / "keys" / "genesis.key").read_text().strip()
        assert verify(folder / "log", keys=folder / "keys", mac_key=genesis_key).verdict == "intact"
        entries = reference_check(folder)
        names = [entry["shard_id"] for entry in entries if "shard_id" in entry]
        kept = [name for name in names if name in story.acknowledged]
        assert kept == story.acknowledged, f"stopped before call {stop_at}"
        assert len(names) == len(set(names)), "an event stands twice"
        assert names[-1] == "afterwards"
        stops += stopped
        if not stopped:
            return stops
    raise AssertionError("the story never ended")


def test_no_stop_loses_what_was_acknowledged(tmp_path: Path) -> None:
    assert _stop_everywhere(tmp_path) > 30


@pytest.mark.parametrize("sync_error_at", [3, 5])
def test_no_stop_around_a_failed_sync_loses_what_was_acknowledged(tmp_path: Path, sync_error_at: int) -> None:
    assert _stop_everywhere(tmp_path, sync_error_at=sync_error_at) > 30


@pytest.mark.parametrize("sync_error_at", [0, 7])
def test_no_stop_in_a_rotation_loses_what_was_acknowledged(tmp_path: Path, sync_error_at: int) -> None:
    """A new segment after every other event: each step of each rotation is stopped before."""
    stops = _stop_everywhere(tmp_path, sync_error_at=sync_error_at, rotate_bytes=1000)
    assert stops > 60


def test_a_stop_while_a_log_is_made_leaves_no_log_or_a_whole_one(tmp_path: Path) -> None:
    from vram_residency.audit.writing.creation import create_log
    from vram_residency.audit.writing.options import LogOptions

    for stop_at in range(1, CALLS_MAX):
        folder = tmp_path / str(stop_at)

        def stop(_name: str, number: int, at: int = stop_at) -> None:
            if number == at:
                raise PowerCutError

        options = LogOptions(files=FaultyFiles(stop))
        try:
            create_log(
                folder / "log", service_id="s", keys=folder / "keys", keep_genesis=True, options=options
            )
        except PowerCutError:
            _open_or_make_again(folder)
            continue
        assert stop_at > 8
        return
    raise AssertionError("making a log never ended")


def _open_or_make_again(folder: Path) -> None:
    if not (folder / "log" / "log.json").exists():
        with pytest.raises(ConfigurationError, match="is not an audit log"):
            AuditLogger.open(folder / "log", service_id="s", keys=folder / "keys")
        from vram_residency.audit.writing.creation import create_log

        create_log(folder / "log", service_id="s", keys=folder / "other", keep_genesis=True)
        if (folder / "keys").exists():
            (folder / "keys").rename(folder / "unused")
        (folder / "other").rename(folder / "keys")
    AuditLogger.open(folder / "log", service_id="s", keys=folder / "keys").close()
    reference_check(folder)
