"""Publishing to tiles, read back by a reader that knows the tiles alone."""

from __future__ import annotations

import contextlib
import errno
import stat
from pathlib import Path

import pytest
from tests.audit_logs import FaultyFiles, failing
from tests.independent_log import LogMaker, leaf_of
from tests.merkle_reference import ReferenceTree
from tests.tile_reader import TileReader
from tests.witness_server import Witness

from vram_residency.audit.publishing.publication import publish
from vram_residency.core.errors import AuditWriteError, ConfigurationError, LogDamagedError

ENTRIES = 1400


def make_long_log(count: int = ENTRIES) -> LogMaker:
    maker = LogMaker(epoch_interval_s=10**6)
    maker.open()
    for number in range(count - 3):
        maker.seal(number)
    maker.close()
    return maker


MAKER = make_long_log()


def write(folder: Path, size: int, *, maker: LogMaker = MAKER, segments: tuple[int, ...] = (0,)) -> Path:
    """The log as it was when its checkpoint covered ``size``; entries beyond it are there too."""
    log = folder / f"log-{size}"
    return log if log.exists() else maker.write(log, size=size, segments=segments)


def contents(out: Path) -> dict[str, bytes]:
    return {str(path.relative_to(out)): path.read_bytes() for path in out.rglob("*") if path.is_file()}


@pytest.mark.parametrize("size", [0, 1, 2, 255, 256, 257, 511, 512, 513, 1400])
def test_a_reader_of_tiles_alone_gets_root_and_entries(tmp_path: Path, size: int) -> None:
    done = publish(write(tmp_path, size), tmp_path / "out")
    reader = TileReader(tmp_path / "out", MAKER.vkey)
    assert reader.check() == MAKER.lines[:size]
    assert (done.size, done.root, done.old_size) == (size, MAKER.root(size), 0)
    assert set(contents(tmp_path / "out")) == reader.served | {"checkpoint"}
    assert done.files_written == len(reader.served) + 1


def test_proofs_can_be_made_of_the_tiles_alone(tmp_path: Path) -> None:
    publish(write(tmp_path, 1400), tmp_path / "out")
    reader = TileReader(tmp_path / "out", MAKER.vkey)
    reference = ReferenceTree(MAKER.lines)
    for start, end in [(0, 256), (256, 512), (0, 1024), (1024, 1400), (1280, 1400), (1399, 1400), (300, 301)]:
        assert reader.mth(start, end) == reference.mth(start, end)


@pytest.mark.parametrize(
    "sizes",
    [
        (0, 1, 2, 3),
        (1, 255, 256, 257),
        (256, 512, 513),
        (100, 100, 700, 1400),
        (255, 1400),
        (1024, 1025),
        tuple(range(0, 1400, 97)),
    ],
)
def test_publishing_step_by_step_is_publishing_at_once(tmp_path: Path, sizes: tuple[int, ...]) -> None:
    """What remains beside are partial tiles of older checkpoints, whose beginnings they are."""
    out = tmp_path / "out"
    for before, size in zip((0, *sizes), sizes, strict=False):
        done = publish(write(tmp_path, size), out)
        assert (done.old_size, done.size) == (before, size)
        assert TileReader(out, MAKER.vkey).check() == MAKER.lines[:size]
    publish(write(tmp_path, sizes[-1]), tmp_path / "at-once")
    at_once, step_by_step = contents(tmp_path / "at-once"), contents(out)
    assert {name: step_by_step[name] for name in at_once} == at_once
    for name in step_by_step.keys() - at_once.keys():
        assert ".p/" in name
        whole = next(key for key in at_once if key.startswith(name.rpartition("/")[0] + "/"))
        assert at_once[whole].startswith(step_by_step[name])


def test_full_tiles_are_never_written_again(tmp_path: Path) -> None:
    out = tmp_path / "out"
    publish(write(tmp_path, 700), out)
    full = [path for path in (out / "tile").rglob("*") if path.is_file() and ".p/" not in str(path)]
    before = {path: path.stat() for path in full}
    assert len(full) == 4
    files = FaultyFiles()
    publish(write(tmp_path, 1400), out, files=files)
    assert {path: path.stat() for path in full} == before
    # level 0: 3 full, 1 partial; as many bundles; level 1: 1 partial; the checkpoint.
    assert files.calls.count("create") == 10
    again = FaultyFiles()
    assert publish(write(tmp_path, 1400), out, files=again).files_written == 0
    assert "create" not in again.calls


def test_a_server_that_runs_as_another_user_can_read_what_is_published(tmp_path: Path) -> None:
    publish(write(tmp_path, 300), tmp_path / "out")
    modes = {stat.S_IMODE(path.stat().st_mode) for path in (tmp_path / "out").rglob("*") if path.is_file()}
    assert modes == {0o644}


def test_cosignatures_are_published_with_the_checkpoint(tmp_path: Path) -> None:
    log, out, witness = write(tmp_path, 300), tmp_path / "out", Witness()
    publish(log, out)
    text = MAKER.checkpoint(300).decode().rpartition("\n\n")[0] + "\n"
    (log / "cosignatures").mkdir()
    cosigned = MAKER.checkpoint(300) + witness.cosign(text)
    (log / "cosignatures" / "01234567.note").write_bytes(cosigned)
    assert publish(log, out).files_written == 1
    assert (out / "checkpoint").read_bytes() == cosigned
    TileReader(out, MAKER.vkey).check()


def test_segments_and_a_partial_bundle_make_no_difference(tmp_path: Path) -> None:
    out = tmp_path / "out"
    publish(write(tmp_path, 300), out)
    publish(write(tmp_path, 1400, segments=(0, 299, 301, 700)), out)
    assert TileReader(out, MAKER.vkey).check() == MAKER.lines


def _prune(log: Path, keep_from: int) -> None:
    (log / "tree").mkdir()
    segments = sorted(int(path.stem) for path in (log / "entries").iterdir())
    for first, end in zip(segments, [*segments[1:], ENTRIES], strict=True):
        leaves = b"".join(leaf_of(line) for line in MAKER.lines[first:end])
        (log / "tree" / f"{first:020}.leaves").write_bytes(leaves)
        if first < keep_from:
            (log / "entries" / f"{first:020}.jsonl").unlink()


def test_a_pruned_log_goes_on_being_published(tmp_path: Path) -> None:
    """Entries pruned since the last time come from what was published."""
    out = tmp_path / "out"
    publish(write(tmp_path, 700), out)
    log = write(tmp_path, 1400, segments=(0, 350, 690, 800))
    _prune(log, 690)
    publish(log, out)
    assert TileReader(out, MAKER.vkey).check() == MAKER.lines


def test_what_was_pruned_before_it_was_published_has_tiles_but_no_bundles(tmp_path: Path) -> None:
    out = tmp_path / "out"
    log = write(tmp_path, 1400, segments=(0, 350, 690, 800))
    _prune(log, 690)
    publish(log, out)
    reader = TileReader(out, MAKER.vkey)
    assert reader.mth(0, 1400) == reader.root
    bundles = sorted(path.name for path in (out / "tile" / "entries").iterdir())
    assert bundles == ["003", "004", "005.p"]


# --- refusals: and what was published stays, byte for byte --------------------------------------------


def _refused(log: Path, out: Path, error: type[Exception], match: str) -> None:
    before = contents(out)
    with pytest.raises(error, match=match):
        publish(log, out)
    assert contents(out) == before


def test_an_older_log_is_refused(tmp_path: Path) -> None:
    out = tmp_path / "out"
    publish(write(tmp_path, 700), out)
    _refused(write(tmp_path, 699), out, LogDamagedError, "it covers 700 entries, .* 699: rolled back")
    _refused(write(tmp_path, 0), out, LogDamagedError, "rolled back")


def _forked(from_index: int) -> LogMaker:
    """The same log and key, another history from an entry on."""
    fork = LogMaker()
    fork.__dict__.update(MAKER.__dict__)
    fork.lines = [*MAKER.lines]
    fork.lines[from_index] = fork.lines[from_index].replace(b'"mac":"', b'"mac":"0', 1)
    return fork


@pytest.mark.parametrize(("from_index", "size"), [(3, 700), (3, 1400), (699, 1400), (650, 701)])
def test_a_fork_is_refused(tmp_path: Path, from_index: int, size: int) -> None:
    out = tmp_path / "out"
    publish(write(tmp_path, 700), out)
    fork = write(tmp_path / "fork", size, maker=_forked(from_index))
    _refused(fork, out, LogDamagedError, "another root for 700|do not lead from the 700 published")


def test_a_log_that_contradicts_its_own_checkpoint_is_refused(tmp_path: Path) -> None:
    log, out = write(tmp_path, 1400), tmp_path / "out"
    out.mkdir()
    path = log / "entries" / f"{0:020}.jsonl"
    good = path.read_bytes()
    path.write_bytes(good.replace(b"shard-900", b"shard-9x0"))
    _refused(log, out, LogDamagedError, "first 1400 entries do not hash to the signed root")
    path.write_bytes(good[: len(good) // 2])
    _refused(log, out, LogDamagedError, "do not hash to the signed root")
    publish(write(tmp_path, 700), out)
    _refused(log, out, LogDamagedError, "do not lead from the 700 published")


def test_published_tiles_that_somebody_changed_are_refused(tmp_path: Path) -> None:
    out = tmp_path / "out"
    publish(write(tmp_path, 700), out)
    for name in ("tile/0/002.p/188", "tile/1/000.p/2"):
        path = out / name
        good = path.read_bytes()
        for bad in (bytes(32) + good[32:], good[:-1], good + b"\0", b""):
            path.write_bytes(bad)
            _refused(write(tmp_path, 1400), out, LogDamagedError, "published tiles were changed")
        path.unlink()
        _refused(write(tmp_path, 1400), out, LogDamagedError, "published tiles were changed")
        path.write_bytes(good)
    publish(write(tmp_path, 1400), out)


def test_a_directory_that_holds_something_else_is_refused(tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    (out / "index.html").write_text("hello")
    _refused(write(tmp_path, 300), out, ConfigurationError, "not a publication: index.html")
    (out / "index.html").unlink()
    for alien in (b"", b"hello\n", LogMaker().checkpoint()):
        (out / "checkpoint").write_bytes(alien)
        _refused(write(tmp_path, 300), out, ConfigurationError, "not a checkpoint of this log")


def test_the_log_s_own_directory_is_no_place_to_publish(tmp_path: Path) -> None:
    log = write(tmp_path, 300)
    for out in (log, log / "out", tmp_path, log / ".." / log.name / "x"):
        with pytest.raises(ConfigurationError, match="the log's own directory"):
            publish(log, out)
    with pytest.raises(ConfigurationError, match="not an audit log"):
        publish(tmp_path / "nowhere", tmp_path / "out")


def test_two_publishers_do_not_meet(tmp_path: Path) -> None:
    log, out = write(tmp_path, 300), tmp_path / "out"
    errors = []

    def on_call(_name: str, _number: int) -> None:
        if not errors:
            with pytest.raises(AuditWriteError, match="another process publishes"):
                publish(log, out)
            errors.append("refused")

    publish(log, out, files=FaultyFiles(on_call))
    assert errors == ["refused"]
    assert TileReader(out, MAKER.vkey).check() == MAKER.lines[:300]


def test_a_full_disk_is_told_and_the_old_publication_stands(tmp_path: Path) -> None:
    out = tmp_path / "out"
    publish(write(tmp_path, 300), out)
    files = FaultyFiles(failing("write", OSError(errno.ENOSPC, "No space left on device")))
    with pytest.raises(AuditWriteError, match="No space left") as caught:
        publish(write(tmp_path, 1400), out, files=files)
    assert "old publication still stands" in caught.value.hint
    assert TileReader(out, MAKER.vkey).check() == MAKER.lines[:300]
    short = FaultyFiles()
    short.short_writes = 50
    publish(write(tmp_path, 1400), out, files=short)
    assert TileReader(out, MAKER.vkey).check() == MAKER.lines


@pytest.mark.parametrize("call", ["create", "write", "sync_data", "replace", "sync_directory"])
def test_a_failed_call_is_told_leaks_nothing_and_the_next_run_completes(tmp_path: Path, call: str) -> None:
    out, descriptors = tmp_path / "out", Path("/proc/self/fd")
    publish(write(tmp_path, 300), out)
    log, before = write(tmp_path, 1400), len(list(descriptors.iterdir()))
    for times_before in range(0, 12, 3):
        left = [times_before]

        def on_call(name: str, _number: int, left: list[int] = left) -> None:
            if name == call and left[0] == 0:
                raise OSError(errno.EIO, "Input/output error")
            left[0] -= name == call

        with contextlib.suppress(AuditWriteError):
            publish(log, out, files=FaultyFiles(on_call))
        reader = TileReader(out, MAKER.vkey)
        assert reader.check() == MAKER.lines[: reader.size]
        assert len(list(descriptors.iterdir())) == before
    with pytest.raises(AuditWriteError, match="Input/output error"):
        publish(
            log, tmp_path / "new", files=FaultyFiles(failing(call, OSError(errno.EIO, "Input/output error")))
        )
    publish(log, out)
    assert TileReader(out, MAKER.vkey).check() == MAKER.lines


def test_progress_rises_to_the_end(tmp_path: Path) -> None:
    seen: list[tuple[int, int]] = []
    publish(write(tmp_path, 1400), tmp_path / "out", on_progress=lambda *step: seen.append(step))
    assert seen == sorted(seen)
    assert {total for _, total in seen} == {2800}
