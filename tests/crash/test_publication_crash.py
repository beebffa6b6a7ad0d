"""The machine stops before each step of a publication: the old one stands, and the next run completes it."""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from tests.audit_logs import FaultyFiles, PowerCutError
from tests.independent_log import LogMaker
from tests.tile_reader import TileReader

from vram_residency.audit.publishing.publication import publish

CALLS_MAX = 200
OLD, NEW = 300, 800
PUBLISH = (
    "import sys; from vram_residency.audit.publishing.publication import publish; publish(*sys.argv[1:])"
)


def _maker(entries: int) -> LogMaker:
    maker = LogMaker(epoch_interval_s=10**6)
    maker.open()
    for number in range(entries - 1):
        maker.seal(number)
    return maker


MAKER = _maker(NEW)


def _publish_until(folder: Path, stop_at: int) -> bool:
    """One run whose machine stops before call ``stop_at``; whether it came that far."""

    def on_call(_name: str, number: int) -> None:
        if number == stop_at:
            raise PowerCutError

    try:
        publish(folder / "new", folder / "out", files=FaultyFiles(on_call))
    except PowerCutError:
        return True
    return False


@pytest.mark.parametrize("old_size", [None, OLD])
def test_a_crash_before_any_step_leaves_a_whole_publication(tmp_path: Path, old_size: int | None) -> None:
    out = tmp_path / "out"
    MAKER.write(tmp_path / "new")
    if old_size is not None:
        publish(MAKER.write(tmp_path / "old", size=old_size), tmp_path / "before")
    for stop_at in range(1, CALLS_MAX):
        shutil.rmtree(out, ignore_errors=True)
        if old_size is not None:
            shutil.copytree(tmp_path / "before", out)
        was_stopped = _publish_until(tmp_path, stop_at)
        if (out / "checkpoint").exists():
            reader = TileReader(out, MAKER.vkey)
            assert reader.check() == MAKER.lines[: reader.size]
            assert reader.size in {old_size, NEW}
        else:
            assert old_size is None
        publish(tmp_path / "new", out)
        assert TileReader(out, MAKER.vkey).check() == MAKER.lines
        assert not list(out.rglob("*.new"))
        if not was_stopped:
            break
    else:
        pytest.fail("the story has more calls than were tried")
    assert stop_at > 10


def test_what_a_power_cut_left_of_unpublished_tiles_is_made_good(tmp_path: Path) -> None:
    """A tile beyond the published checkpoint may be anything: nobody was told of it."""
    out = tmp_path / "out"
    publish(MAKER.write(tmp_path / "old", size=OLD), out)
    (out / "tile/0/001").write_bytes(b"")
    (out / "tile/entries/001").write_bytes(bytes(100))
    (out / "tile/0/001.new").write_bytes(b"half")
    publish(MAKER.write(tmp_path / "new"), out)
    assert TileReader(out, MAKER.vkey).check() == MAKER.lines


def test_a_publisher_that_is_killed_leaves_a_whole_publication(tmp_path: Path) -> None:
    """SIGKILL at random moments after a real process has begun to write."""
    out, chance = tmp_path / "out", random.Random(1)
    publish(MAKER.write(tmp_path / "old", size=OLD), tmp_path / "before")
    log = MAKER.write(tmp_path / "new")
    for _ in range(10):
        shutil.copytree(tmp_path / "before", out)
        command = [sys.executable, "-c", PUBLISH, str(log), str(out)]
        with subprocess.Popen(command) as process:
            _wait_for_the_first_new_file(process, out)
            time.sleep(chance.random() * 0.004)
            process.send_signal(signal.SIGKILL)
            process.wait()
        assert process.returncode in {0, -signal.SIGKILL}
        reader = TileReader(out, MAKER.vkey)
        assert reader.size in {OLD, NEW}
        assert reader.check() == MAKER.lines[: reader.size]
        publish(log, out)
        assert TileReader(out, MAKER.vkey).check() == MAKER.lines
        shutil.rmtree(out)


def _wait_for_the_first_new_file(process: subprocess.Popen[bytes], out: Path) -> None:
    while process.poll() is None:
        if os.path.lexists(out / "tile/0/001") or os.path.lexists(out / "tile/0/001.new"):
            return
