"""What an opening reads: the open segment, never the whole log."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from tests.audit_logs import FaultyFiles, ManualClock, copy_tree, open_log, sealed, segments

from vram_residency.audit import verify
from vram_residency.audit.format.checkpoint import SignedCheckpoint
from vram_residency.core.errors import LogDamagedError

_opened: list[str] | None = None


def _note(event: str, arguments: tuple[Any, ...]) -> None:
    if event == "open" and _opened is not None and isinstance(arguments[0], (str, bytes, Path)):
        _opened.append(Path(str(arguments[0])).name)


sys.addaudithook(_note)


@contextmanager
def _files_opened() -> Iterator[list[str]]:
    """Names of all files that this process opens meanwhile."""
    global _opened  # noqa: PLW0603 - an audit hook stays for ever
    _opened = names = []
    try:
        yield names
    finally:
        _opened = None


@pytest.fixture(scope="module")
def story(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[SignedCheckpoint]]:
    """A log of many segments, and the checkpoints that it signed on the way."""
    folder = tmp_path_factory.mktemp("log")
    clock, anchors = ManualClock(), []
    with open_log(folder, clock=clock, rotate_bytes=2000) as logger:
        for number in range(40):
            logger.emit(sealed(number), durable=True)
            clock.advance(2)
            anchors.append(logger.flush())
    assert len(segments(folder)) > 5
    return folder, [anchor for anchor in anchors if anchor is not None]


@pytest.fixture
def log(story: tuple[Path, list[SignedCheckpoint]], tmp_path: Path) -> Path:
    return copy_tree(story[0], tmp_path / "copy")


def _segments_read(names: list[str]) -> set[str]:
    return {name for name in names if ".jsonl" in name}


def test_an_opening_reads_the_last_segments_alone(log: Path) -> None:
    paths = segments(log)
    with _files_opened() as names:
        open_log(log).close()
    assert _segments_read(names) <= {path.name for path in paths[-2:]}
    assert not [name for name in names if name.endswith(".leaves") and name < paths[-2].name]


@pytest.mark.parametrize("position", [0, 3, 20, -1])
def test_an_old_anchor_is_compared_with_the_stored_leaf_hashes(
    log: Path, story: tuple[Path, list[SignedCheckpoint]], position: int
) -> None:
    paths = segments(log)
    with _files_opened() as names:
        open_log(log, anchor=story[1][position]).close()
    assert _segments_read(names) <= {path.name for path in paths[-2:]}


def test_without_a_frontier_the_leaf_hashes_serve(log: Path) -> None:
    paths = segments(log)
    (log / "log" / "tree" / "frontier").unlink()
    with _files_opened() as names:
        open_log(log).close()
    assert _segments_read(names) <= {path.name for path in paths[-2:]}


@pytest.mark.parametrize("damage", ["missing", "changed", "short", "long", "all missing"])
def test_wrong_leaf_hashes_cost_time_and_nothing_else(
    log: Path, story: tuple[Path, list[SignedCheckpoint]], damage: str
) -> None:
    leaves = sorted((log / "log" / "tree").glob("*.leaves"))
    data = leaves[1].read_bytes()
    if damage == "missing":
        leaves[1].unlink()
    elif damage == "all missing":
        for path in leaves:
            path.unlink()
    else:
        changed = bytes([data[0] ^ 1]) + data[1:]
        new = {"changed": changed, "short": data[:-1], "long": data + data[:32]}[damage]
        leaves[1].write_bytes(new)
    with _files_opened() as names:
        open_log(log, anchor=story[1][2]).close()
    assert segments(log)[0].name in _segments_read(names)
    key = (log / "keys" / "genesis.key").read_text().strip()
    assert verify(log / "log", keys=log / "keys", mac_key=key).verdict == "intact"


def test_leaf_hashes_that_were_exchanged_do_not_hide_a_rewritten_log(
    log: Path, story: tuple[Path, list[SignedCheckpoint]], tmp_path: Path
) -> None:
    """Another history with the same key: its own leaves are right, and the anchor is not under them."""
    import shutil

    from tests.audit_logs import make_log

    folder = tmp_path / "other"
    make_log(folder)
    shutil.copytree(folder, tmp_path / "twin")
    (tmp_path / "twin").chmod(0o700)
    clock = ManualClock()
    with open_log(folder, clock=clock) as logger:
        logger.emit(sealed(1), durable=True)
    with open_log(tmp_path / "twin", clock=clock) as logger:
        logger.emit(sealed(2), durable=True)
        anchor = logger.flush()
    assert anchor is not None
    with pytest.raises(LogDamagedError, match="not those of its anchor"):
        open_log(folder, anchor=anchor)


def test_a_thousand_segments_are_no_burden(tmp_path: Path) -> None:
    """Opening, rotating and closing open as few files among a thousand segments as among six."""
    options: dict[str, Any] = {"clock": ManualClock(), "rotate_bytes": 1, "files": FaultyFiles()}
    counts = []
    for rotations in (6, 1000):
        with open_log(tmp_path, **options) as logger:
            for _ in range(rotations):
                logger.flush()
        with _files_opened() as names, open_log(tmp_path, **options) as logger:
            logger.emit(sealed(), durable=True)
        counts.append(len(names))
    assert counts[0] == counts[1]
    assert len(segments(tmp_path)) > 1000
