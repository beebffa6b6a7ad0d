"""Ranges scanned apart and put together give the verdict of one pass, line by line."""

from __future__ import annotations

import random
import signal
import subprocess
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.independent_log import SEGMENT, LogMaker, make_log

from vram_residency.audit import Verdict, verify
from vram_residency.audit.format import tree
from vram_residency.audit.reading import scan, scanners, survey
from vram_residency.audit.reading.replay import Replay

pytestmark = pytest.mark.filterwarnings("ignore::vram_residency.audit.KeyPlacementWarning")


def line_by_line(directory: Path, **keys: Any) -> Verdict:
    """The verdict where nothing is scanned: every line is fed to the replay."""

    class Nobody(scanners.LocalScanner):
        def answer(self, job: scanners.Job) -> scanners.Answer:
            return super().answer(job) if isinstance(job, scanners.HashJob) else scanners.Answer()

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(survey, "LocalScanner", Nobody)
        return verify(directory, workers=1, **keys)


def in_ranges(
    directory: Path, *, range_bytes: int, batch_bytes: int, workers: int = 1, **keys: Any
) -> Verdict:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(survey, "RANGE_BYTES", range_bytes)
        patch.setattr(scan, "_BATCH_BYTES", batch_bytes)
        return verify(directory, workers=workers, **keys)


def history(rng: random.Random) -> LogMaker:
    """Epochs, restarts, silence, unknown types, and lines that no writer of ours would make."""
    maker = LogMaker()
    maker.open()
    for _ in range(rng.randrange(40)):
        match rng.randrange(16):
            case 0:
                maker.end_epoch()
            case 1:
                maker.close()
                maker.now += timedelta(days=rng.randrange(3))
                maker.open(clean=rng.random() < 0.8)
            case 2:
                maker.append("acme.thing", names=["a", "ü"], nested={"x": [1, None]}, sanitized=["names"])
            case 3:
                maker.now += timedelta(seconds=rng.choice((1, 3000)))
            case 4 if rng.random() < 0.3:
                maker.append_body(maker.lines[-1][: rng.randrange(10, 200)].replace(b"\n", b""))
            case 5 if rng.random() < 0.3:
                maker.end_epoch(epoch=7)
            case _:
                maker.seal(rng.randrange(1000))
    return maker


def damage(rng: random.Random, directory: Path) -> None:
    path = rng.choice(sorted((directory / "entries").iterdir()))
    data = bytearray(path.read_bytes())
    where = rng.randrange(len(data))
    match rng.randrange(6):
        case 0:
            data[where] ^= 1 << rng.randrange(8)
        case 1:
            del data[where:]
        case 2:
            data[where:where] = rng.choice((b"\n", b"x", data[:400]))
        case 3:
            lines = data.split(b"\n")
            rng.shuffle(lines)
            data = bytearray(b"\n".join(lines))
        case _:
            return
    path.write_bytes(data)


def case(seed: int, folder: Path) -> tuple[Path, dict[str, Any]]:
    rng = random.Random(seed)
    maker = history(rng)
    count = len(maker.lines)
    starts = tuple(sorted({0, *(rng.randrange(count) for _ in range(rng.randrange(3)))}))
    directory = maker.write(folder / "log", size=rng.randrange(count + 1), segments=starts)
    damage(rng, directory)
    given = {"vkey": maker.vkey, "mac_key": maker.k0}
    names = rng.choice((["vkey"], ["mac_key"], ["vkey", "mac_key"], []))
    keys: dict[str, Any] = {name: given[name] for name in names}
    if rng.random() < 0.3:
        keys["checkpoint"] = maker.checkpoint(rng.randrange(count + 1))
    return directory, keys


@given(
    seed=st.integers(0, 2**32),
    range_bytes=st.sampled_from([1, 100, 400, 1000, 5000, 1 << 22]),
    batch_bytes=st.sampled_from([100, 700, 3000, 1 << 17]),
)
def test_any_division_into_ranges_gives_the_same_verdict_at_the_same_place(
    seed: int, range_bytes: int, batch_bytes: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    directory, keys = case(seed, tmp_path_factory.mktemp("scan"))
    expected = line_by_line(directory, **keys)
    assert in_ranges(directory, range_bytes=range_bytes, batch_bytes=batch_bytes, **keys) == expected


def test_processes_give_the_same_verdicts(tmp_path: Path) -> None:
    for seed in range(12):
        (tmp_path / str(seed)).mkdir()
        directory, keys = case(seed, tmp_path / str(seed))
        expected = line_by_line(directory, **keys)
        assert in_ranges(directory, range_bytes=1500, batch_bytes=700, workers=2, **keys) == expected, seed


def test_the_running_epochs_key_alone_gives_the_same_verdict(tmp_path: Path) -> None:
    """mac.key begins in the middle of the log: before it there are no macs to check."""
    from vram_residency.audit import AuditLogger, VramSealed, create_log

    create_log(tmp_path / "log", service_id="w")
    for _ in range(2):
        with AuditLogger.open(tmp_path / "log", service_id="w") as logger:
            for number in range(20):
                logger.emit(
                    VramSealed(shard_id=f"s{number}", gpu_device=0, vram_bytes=1, digest="d", worker_id="w")
                )
            logger.flush()
            divided = in_ranges(tmp_path / "log", range_bytes=900, batch_bytes=700)
            assert divided == line_by_line(tmp_path / "log")
            assert divided.verdict == "intact"


def big_log(folder: Path) -> tuple[Path, LogMaker]:
    maker = make_log(seals=1000)
    return maker.write(folder / "log", segments=(0, 400)), maker


def test_almost_nothing_is_fed_line_by_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Else the equality above would compare the slow way with itself."""
    directory, maker = big_log(tmp_path)
    fed = []
    feed = Replay.feed
    monkeypatch.setattr(
        Replay, "feed", lambda self, line, **place: (fed.append(line), feed(self, line, **place))
    )
    assert verify(directory, mac_key=maker.k0).verdict == "intact"
    assert len(fed) <= 6


def test_a_killed_process_means_that_nothing_can_be_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    directory, maker = big_log(tmp_path)
    monkeypatch.setattr(survey, "RANGE_BYTES", 10_000)
    started: list[subprocess.Popen[bytes]] = []

    def report(done: int, total: int) -> None:
        if done == total:
            return
        for process in started:
            process.kill()
            process.wait()

    monkeypatch.setattr(scanners.subprocess, "Popen", recording(started))
    verdict = verify(directory, mac_key=maker.k0, workers=2, on_progress=report)
    assert (verdict.verdict, verdict.exit_code) == ("unverifiable", 5)
    assert verdict.first_bad is not None
    assert "died" in verdict.first_bad.reason
    assert not verdict.checked.mac
    assert not verdict.checked.tree


def recording(started: list[subprocess.Popen[bytes]]) -> Any:
    popen = subprocess.Popen

    def start(*arguments: Any, **options: Any) -> subprocess.Popen[bytes]:
        started.append(popen(*arguments, **options))
        return started[-1]

    return start


def test_an_interrupt_ends_the_processes_and_reaches_the_caller(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    directory, maker = big_log(tmp_path)
    monkeypatch.setattr(survey, "RANGE_BYTES", 10_000)
    started: list[subprocess.Popen[bytes]] = []
    monkeypatch.setattr(scanners.subprocess, "Popen", recording(started))

    def interrupt(done: int, total: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        verify(directory, mac_key=maker.k0, workers=2, on_progress=interrupt)
    assert [process.returncode for process in started] == [-signal.SIGKILL] * 2


def test_progress_goes_up_to_all_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    directory, maker = big_log(tmp_path)
    monkeypatch.setattr(survey, "RANGE_BYTES", 50_000)
    seen: list[tuple[int, int]] = []
    verify(directory, mac_key=maker.k0, on_progress=lambda *values: seen.append(values))
    total = sum(path.stat().st_size for path in (directory / "entries").iterdir())
    assert seen == sorted(seen)
    assert seen[-1] == (total, total)
    assert len(seen) > 5


def test_a_key_shows_in_no_text_of_a_job() -> None:
    job = scan.ScanJob(
        path=b"p",
        start=0,
        end=1,
        service_id="s",
        key_id="k",
        key=b"secretsecret",
        epoch=0,
        key_from=0,
        epochs_ahead_max=0,
        singles=(),
    )
    assert "secret" not in repr(job)


def segments_with_rotation(folder: Path, **wrong: Any) -> tuple[Path, LogMaker]:
    """Two segments, the second begins by stating the first."""
    import hashlib

    maker = LogMaker()
    maker.open()
    for number in range(50):
        maker.seal(number)
    maker.end_epoch()
    first = b"".join(line + b"\n" for line in maker.lines)
    stated = {
        "closed_segment": f"entries/{SEGMENT}",
        "sha256": hashlib.sha256(first).hexdigest(),
        "entries": len(maker.lines),
    }
    start = len(maker.lines)
    maker.append("segment_rotated", **(stated | wrong))
    maker.close()
    return maker.write(folder / "log", segments=(0, start)), maker


@pytest.mark.parametrize("workers", [1, 2])
def test_the_hash_that_segment_rotated_states_is_recomputed(tmp_path: Path, workers: int) -> None:
    directory, maker = segments_with_rotation(tmp_path / "right")
    assert verify(directory, mac_key=maker.k0, workers=workers).verdict == "intact"
    directory, maker = segments_with_rotation(tmp_path / "wrong", sha256="00" * 32)
    verdict = verify(directory, mac_key=maker.k0, workers=workers)
    assert verdict.verdict == "tampered"
    assert verdict.first_bad is not None
    assert (verdict.first_bad.index, verdict.first_bad.file) == (52, f"entries/{52:020}.jsonl")


def leaves() -> Iterator[bytes]:
    return (tree.leaf_hash(b"%d" % number) for number in range(300))


@given(st.lists(st.integers(0, 70), max_size=8))
def test_subtrees_of_any_parts_make_the_tree_of_the_whole(sizes: list[int]) -> None:
    every = list(leaves())
    whole = parts = tree.Frontier()
    for size in sizes:
        added = every[parts.size : parts.size + size]
        parts = parts.extend_subtrees(tree.cover(parts.size, added))
        for leaf in added:
            whole = whole.append(leaf)
        assert parts == whole


def test_a_subtree_goes_only_where_it_belongs() -> None:
    with pytest.raises(ValueError, match="cannot begin"):
        tree.Frontier().append(b"x" * 32).extend_subtrees([(1, b"y" * 32)])
