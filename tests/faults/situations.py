"""What happens to a log besides a failing call: disks, limits, forks, other writers, other hands, clocks.

Each function is a row of the table; its docstring says what must hold.
"""

from __future__ import annotations

import errno
import multiprocessing
import os
import resource
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from tests.audit_logs import SERVICE, PowerCutError, event_types, read_entries, sealed, segments
from tests.faults import disks, oracle
from tests.faults.layer import Fault, Kind, StruckFiles, begin
from tests.faults.scenarios import SCENARIOS, SMALL
from tests.faults.stage import Record, Stage

from vram_residency.audit.log import AuditLogger
from vram_residency.audit.reading.verification import verify
from vram_residency.audit.store.files import Files
from vram_residency.audit.writing.options import LogOptions
from vram_residency.core.errors import AuditWriteError, LogClosedError, LogDamagedError, LogLockedError

Situation = Callable[[Path], None]
SITUATIONS: dict[str, Situation] = {}
#: Those that mount a file system.
MOUNTING: Final[set[str]] = set()


def _situation(function: Situation) -> Situation:
    SITUATIONS[function.__name__] = function
    return function


def _mounting(function: Situation) -> Situation:
    MOUNTING.add(function.__name__)
    return _situation(function)


def _stage(folder: Path, *, is_new: bool = True, files: Files | None = None, **options: Any) -> Stage:
    """An opened log with one durable event in ``folder``."""
    if is_new:
        begin(SCENARIOS["ordinary"], folder)
    more = {} if files is None else {"files": files}
    stage = Stage(folder, Record(bytearray(Record.BYTES)), **more, **(SMALL | options))
    stage.open()
    stage.emit_durable()
    return stage


def _require_failing(stage: Stage, why: str = "") -> None:
    """flush() raises an AuditWriteError, however often it is asked."""
    for _ in range(2):
        try:
            stage.logger.flush()
        except AuditWriteError as error:
            assert why in str(error), f"'{why}' was expected, not: {error}"
        else:
            raise AssertionError("flush() acknowledged what cannot be on the disk")


def _finish(stage: Stage) -> None:
    stage.flush()
    stage.close()
    oracle.check(stage.folder, stage.record.read())


def _die(stage: Stage) -> None:
    stage.die()
    oracle.check(stage.folder, stage.record.read())


# --- disks ------------------------------------------------------------------------------------------------


def _fill(place: Path) -> Path:
    filler = place / "filler"
    with filler.open("wb", buffering=0) as file:
        try:
            while file.write(bytes(4096)):
                pass
        except OSError as error:
            assert error.errno == errno.ENOSPC
    return filler


class _Blind(Files):
    """Does not look how much room there is, and runs into the wall."""

    def free_bytes(self, descriptor: int) -> int:
        return 1 << 40


@_mounting
def full_tmpfs(folder: Path) -> None:
    """A tmpfs is full to the last byte: flush() raises, events wait; with room again all are written."""
    with disks.tmpfs(folder.with_name(f"{folder.name}.disk"), "4m") as place:
        stage = _stage(place / "log", files=_Blind())
        filler = _fill(place)
        for _ in range(SMALL["capacity"]):
            stage.emit(digest="x" * 900)
        _require_failing(stage, "No space left")
        filler.unlink()
        _finish(stage)


@_mounting
def full_tmpfs_and_killed(folder: Path) -> None:
    """The process dies on a full tmpfs: the journal keeps what was accepted until there is room."""
    with disks.tmpfs(folder.with_name(f"{folder.name}.disk"), "4m") as place:
        stage = _stage(place / "log")
        filler = _fill(place)
        for _ in range(SMALL["capacity"]):
            stage.emit(digest="x" * 1000)
        stage.die()
        try:
            stage.open()
        except Exception as error:  # noqa: BLE001 - GaveUpError, whatever the cause was
            assert "GaveUp" in type(error).__name__
        else:
            stage.die()
        filler.unlink()
        oracle.check(stage.folder, stage.record.read())


@_mounting
def nearly_full_tmpfs(folder: Path) -> None:
    """Under 10 MiB are free: nothing is written before the disk is full, and the error says so."""
    with disks.tmpfs(folder.with_name(f"{folder.name}.disk"), "8m") as place:
        stage = _stage(place / "log", free_bytes_min=0)
        stage.flush()
        stage.close()
        size = segments(stage.folder)[0].stat().st_size
        try:
            stage.open(free_bytes_min=10 << 20)
        except Exception as error:  # noqa: BLE001
            assert "GaveUp" in type(error).__name__
        else:
            raise AssertionError("the log was opened for writing on a nearly full disk")
        assert segments(stage.folder)[0].stat().st_size == size, "something was written"
        oracle.check(stage.folder, stage.record.read())


@_mounting
def no_room_for_the_journal(folder: Path) -> None:
    """A full disk at the first opening: an error, never SIGBUS; with room again the log opens."""
    with disks.tmpfs(folder.with_name(f"{folder.name}.disk"), "2m") as place:
        begin(SCENARIOS["ordinary"], place / "log")
        filler = _fill(place)
        stage = Stage(place / "log", Record(bytearray(Record.BYTES)), **SMALL)
        try:
            stage.open()
        except Exception as error:  # noqa: BLE001
            assert "GaveUp" in type(error).__name__
        else:
            raise AssertionError("a journal was made on a full disk")
        filler.unlink()
        _die(stage)


@_mounting
def read_only_at_opening(folder: Path) -> None:
    """The file system is read-only: opening raises one AuditWriteError, verify still works."""
    with disks.tmpfs(folder.with_name(f"{folder.name}.disk"), "4m") as place:
        stage = _stage(place / "log")
        stage.close()
        subprocess.run(["mount", "-o", "remount,ro", str(place)], check=True)
        try:
            AuditLogger.open(
                place / "log" / "log", service_id=SERVICE, keys=place / "log" / "keys", options=stage.options
            )
        except AuditWriteError as error:
            assert "Read-only" in str(error)
        else:
            raise AssertionError("a log was opened on a read-only file system")
        oracle.read_intact(stage.folder)
        subprocess.run(["mount", "-o", "remount,rw", str(place)], check=True)
        _die(stage)


@_mounting
def ext4_turns_read_only(folder: Path) -> None:
    """ext4 meets an error and turns read-only under the writer: flush() raises; what was durable is there."""
    with disks.Ext4(folder.with_name(f"{folder.name}.disk")) as disk:
        begin(SCENARIOS["ordinary"], disk.place / "log")
        os.sync()
        stage = _stage(disk.place / "log", is_new=False)
        disk.turn_read_only()
        stage.emit()
        _require_failing(stage)
        stage.die()
        disk.unmount()
        disk.mount()
        oracle.check(stage.folder, stage.record.read(), is_power_lost=True)


def cut_power_on_ext4(folder: Path, stops: Iterator[tuple[str, int]]) -> int:
    """Stop a real ext4 before a call of a scenario, mount it again; how often that was done.

    ``stops`` are scenarios and numbers of calls. What the kernel had not written is gone.
    """
    count = 0
    with disks.Ext4(folder.with_name(f"{folder.name}.disk")) as disk:
        for number, (name, stop_at) in enumerate(stops):
            scenario = SCENARIOS[name]
            home = begin(scenario, disk.place / f"log-{number}")
            os.sync()
            record = Record(bytearray(Record.BYTES))
            stage = Stage(home, record, files=_Stopping(disk, stop_at), **scenario.options)
            try:
                scenario.drive(stage)
            except PowerCutError:
                count += 1
            stage.die()
            told = record.read()
            disk.unmount()
            disk.mount()
            if not scenario.may_lack_log or (home / "log" / "log.json").exists():
                oracle.check(home, told, scenario, is_power_lost=True)
            shutil.rmtree(home)
    return count


class _Stopping(StruckFiles):
    """Real syncs, unlike its base; at one call the power goes."""

    def __init__(self, disk: disks.Ext4, stop_at: int) -> None:
        super().__init__(Fault(Kind.KILL_BEFORE, stop_at))
        self._disk = disk
        self._stop_at = stop_at

    def strike(self, name: str, call: Callable[..., Any], arguments: tuple[Any, ...]) -> Any:
        if len(self.calls) + 1 == self._stop_at:
            self._disk.cut_power()
        return super().strike(name, lambda *rest: getattr(Files, name)(self, *rest), arguments)


# --- limits -----------------------------------------------------------------------------------------------


@contextmanager
def _limited(what: int, soft: int) -> Iterator[None]:
    before = resource.getrlimit(what)
    resource.setrlimit(what, (soft, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(what, before)


@_situation
def file_size_limit(folder: Path) -> None:
    """`ulimit -f` is reached inside a line: SIGXFSZ kills nobody, flush() raises, no half line stays."""
    stage = _stage(folder)
    size = segments(folder)[0].stat().st_size
    for more in (0, 1, 100, 700):
        stage.emit()
        with _limited(resource.RLIMIT_FSIZE, size + more):
            _require_failing(stage, "File too large")
        assert segments(folder)[0].read_bytes().endswith(b"\n"), "half a line was left"
    _finish(stage)


@_situation
def no_more_descriptors(folder: Path) -> None:
    """`ulimit -n` is reached: no checkpoint can be written, flush() raises, nothing is lost."""
    stage = _stage(folder)
    stage.clock.advance(5)
    stage.emit()
    lowest_free = os.dup(0)
    os.close(lowest_free)
    with _limited(resource.RLIMIT_NOFILE, lowest_free):
        for _ in range(2):
            try:
                stage.logger.flush()
            except AuditWriteError as error:
                assert "Too many open files" in str(error)
            else:
                raise AssertionError("a checkpoint was signed without a descriptor")
    _finish(stage)


@_situation
def no_descriptors_at_opening(folder: Path) -> None:
    """`ulimit -n` is reached at each step of an opening: an error, no lock and no descriptor kept."""
    stage = _stage(folder)
    stage.emit()
    stage.die()
    before = len(os.listdir("/proc/self/fd"))
    lowest_free = os.dup(0)
    os.close(lowest_free)
    for more in range(12):
        with _limited(resource.RLIMIT_NOFILE, lowest_free + more):
            try:
                stage.open()
            except Exception as error:  # noqa: BLE001
                assert "GaveUp" in type(error).__name__, f"{type(error).__name__}: {error}"
            else:
                stage.die()
        assert len(os.listdir("/proc/self/fd")) == before, "descriptors were left open"
    _die(stage)


# --- processes --------------------------------------------------------------------------------------------


def _child_must_be_refused(logger: AuditLogger) -> None:
    for action in (lambda: logger.emit(sealed()), logger.flush):
        try:
            action()
        except LogClosedError:
            continue
        os._exit(1)
    logger.close()


@_situation
def forked_children(folder: Path) -> None:
    """Children are forked while a thread writes: closed to them, open to the parent."""
    stage = _stage(folder, background=True)
    context = multiprocessing.get_context("fork")
    for number in range(6):
        stage.emit()
        if number % 2:
            process = context.Process(target=_child_must_be_refused, args=(stage.logger,))
            process.start()
            process.join()
            code = process.exitcode
        else:
            child = os.fork()
            if child == 0:  # pragma: no cover - coverage does not follow
                refused = 1
                try:
                    _child_must_be_refused(stage.logger)
                    refused = 0
                finally:
                    os._exit(refused)  # nothing of the test run may go on in the child
            code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        assert code == 0, "a forked child wrote"
        stage.flush()
    _finish(stage)


_SECOND_WRITER: Final = """
import sys
from vram_residency.audit.log import AuditLogger
from vram_residency.core.errors import LogLockedError
try:
    AuditLogger.open(sys.argv[1] + "/log", service_id=sys.argv[2], keys=sys.argv[1] + "/keys")
except LogLockedError as error:
    print(error)
    sys.exit(7)
"""


@_situation
def two_writers(folder: Path) -> None:
    """A second process fails at once and names the holder; killing the first gives the lock back."""
    stage = _stage(folder)
    command = [sys.executable, "-c", _SECOND_WRITER, str(folder), SERVICE]
    second = subprocess.run(command, check=False, capture_output=True, text=True)
    assert second.returncode == 7, second.stderr
    assert f"pid {os.getpid()} " in second.stdout
    stage.emit()
    _die(stage)


@_situation
def many_openings_at_once(folder: Path) -> None:
    """Ten threads open one log at the same moment: one has it, nine get LogLockedError."""
    begin(SCENARIOS["ordinary"], folder)
    start, opened, refused = threading.Barrier(10), [], []

    def open_it() -> None:
        options = LogOptions(background=False, free_bytes_min=0)
        start.wait()
        try:
            opened.append(
                AuditLogger.open(folder / "log", service_id=SERVICE, keys=folder / "keys", options=options)
            )
        except LogLockedError as error:
            refused.append(error)

    threads = [threading.Thread(target=open_it) for _ in range(10)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (len(opened), len(refused)) == (1, 9)
    opened[0].close()
    oracle.check(folder, Record(bytearray(Record.BYTES)).read())


# --- other hands in the directory -------------------------------------------------------------------------


@_situation
def segment_removed(folder: Path) -> None:
    """The open segment is removed: flush() raises, nothing is overwritten; put back, the log goes on."""
    stage = _stage(folder)
    segment = segments(folder)[0]
    segment.rename(folder / "stolen")
    stage.emit()
    _require_failing(stage, "removed, replaced or changed")
    assert not segments(folder), "a segment was made in its place"
    (folder / "stolen").rename(segment)
    _finish(stage)


@_situation
def segment_replaced(folder: Path) -> None:
    """The open segment is replaced by a copy: flush() raises, the copy stays; after a kill all is there."""
    stage = _stage(folder)
    segment = segments(folder)[0]
    shutil.copy2(segment, folder / "copy")
    (folder / "copy").replace(segment)
    before = segment.read_bytes()
    stage.emit()
    _require_failing(stage, "removed, replaced or changed")
    assert segment.read_bytes() == before
    _die(stage)


@_situation
def segment_grown_or_cut(folder: Path) -> None:
    """Somebody appends to the open segment or cuts it: flush() raises; as it was before, the log goes on."""
    stage = _stage(folder)
    segment = segments(folder)[0]
    data = segment.read_bytes()
    stage.emit()
    for other in (data + b"x", data[:-5], b""):
        with segment.open("r+b") as file:
            file.truncate(0)
            file.write(other)
        _require_failing(stage, "removed, replaced or changed")
        assert segment.read_bytes() == other
    with segment.open("r+b") as file:
        file.write(data)
    _finish(stage)


@_situation
def journal_removed(folder: Path) -> None:
    """The journal is removed: flush() writes, and raises since emit() can promise no more."""
    stage = _stage(folder)
    (folder / "log" / "journal").unlink()
    stage.emit()
    _require_failing(stage, "journal")
    assert stage.logger.stats().waiting == 0, "what could be written was not"
    _die(stage)


@_situation
def journal_of_before(folder: Path) -> None:
    """A journal of before is put back after a kill: its events stand in the log already, and stay single."""
    stage = _stage(folder)
    for _ in range(3):
        stage.emit()
    shutil.copy2(folder / "log" / "journal", folder / "old")
    stage.flush()
    stage.emit_durable()
    stage.die()
    (folder / "old").replace(folder / "log" / "journal")
    _die(stage)


@_situation
def checkpoint_removed(folder: Path) -> None:
    """The checkpoint is removed: the next takes its place; killed before that, the log does not open."""
    stage = _stage(folder)
    checkpoint = folder / "log" / "checkpoint"
    kept = checkpoint.read_bytes()
    checkpoint.unlink()
    stage.die()
    _require_damaged(folder, "checkpoint")
    checkpoint.write_bytes(kept)
    checkpoint.chmod(0o600)
    stage.open()
    checkpoint.unlink()
    stage.emit()
    _finish(stage)


@_situation
def checkpoint_of_before(folder: Path) -> None:
    """An older checkpoint is put back: it is true, and the next one follows it."""
    stage = _stage(folder)
    old = (folder / "log" / "checkpoint").read_bytes()
    stage.wait(901)
    (folder / "log" / "checkpoint").write_bytes(old)
    stage.emit()
    stage.flush()
    _die(stage)


@_situation
def keys_removed(folder: Path) -> None:
    """mac.key is removed before an epoch ends: flush() raises until it is back; nothing is lost."""
    stage = _stage(folder)
    mac_key = folder / "keys" / "mac.key"
    mac_key.rename(folder / "stolen")
    stage.wait(901)
    stage.emit()
    _require_failing(stage, "mac.key")
    (folder / "stolen").rename(mac_key)
    _finish(stage)


@_situation
def keys_of_before(folder: Path) -> None:
    """An older mac.key is put back after a kill: the log refuses to open."""
    stage = _stage(folder)
    mac_key = folder / "keys" / "mac.key"
    old = mac_key.read_bytes()
    stage.wait(901)
    stage.emit_durable()
    stage.wait(901)
    stage.emit_durable()
    stage.die()
    new = mac_key.read_bytes()
    mac_key.write_bytes(old)
    _require_damaged(folder, "")
    mac_key.write_bytes(new)
    _die(stage)


@_situation
def lock_removed(folder: Path) -> None:
    """The lock is removed and a second writer comes: the first gets errors, no entry is damaged."""
    first = _stage(folder)
    (folder / "log" / "lock").unlink()
    second = Stage(folder, Record(bytearray(Record.BYTES)), **SMALL)
    second.open()
    first.emit()
    _require_failing(first, "removed, replaced or changed")
    first.die()
    second.logger.emit(sealed(shard_id="second"), durable=True)
    second.close()
    entries = oracle.read_intact(folder)
    assert [entry["shard_id"] for entry in entries if "shard_id" in entry] == ["event-0", "second"]


@_situation
def directory_moved(folder: Path) -> None:
    """The log's directory is moved away: flush() raises, nothing is made there; moved back, it goes on."""
    stage = _stage(folder)
    stage.emit()
    (folder / "log").rename(folder / "elsewhere")
    _require_failing(stage)
    assert not (folder / "log").exists()
    (folder / "elsewhere").rename(folder / "log")
    _finish(stage)


@_situation
def tree_removed(folder: Path) -> None:
    """Leaf hashes and frontier are removed, under the writer and before an opening: they are made again."""
    stage = _stage(folder)
    shutil.rmtree(folder / "log" / "tree")
    stage.emit()
    stage.wait(901)
    stage.emit()
    stage.flush()
    stage.die()
    shutil.rmtree(folder / "log" / "tree", ignore_errors=True)
    _die(stage)


# --- clocks -----------------------------------------------------------------------------------------------


@_situation
def clock_steps(folder: Path) -> None:
    """The wall clock steps back a day and forward again: order stays, each step back is an entry."""
    stage = _stage(folder)
    for seconds in (-86_400, 600, -1, 800, -31_536_000):
        stage.clock.step(seconds)
        stage.emit()
        stage.flush()
    stage.clock.step(-10)
    stage.emit()
    _die(stage)
    indexes = [entry["index"] for entry in read_entries(folder)]
    assert indexes == list(range(len(indexes)))
    assert event_types(folder).count("clock_stepped_back") >= 3


@_situation
def clock_leaps(folder: Path) -> None:
    """The wall clock leaps forward over many epochs' ends: all is there, and verify says `unsealed`."""
    stage = _stage(folder)
    stage.clock.step(31_536_000)
    stage.emit()
    stage.flush()
    stage.close()
    verdict = verify(folder / "log", keys=folder / "keys", workers=1)
    assert verdict.verdict == "unsealed", verdict
    assert [entry["shard_id"] for entry in read_entries(folder) if "shard_id" in entry] == [
        "event-0",
        "event-1",
    ]


# --- signals ----------------------------------------------------------------------------------------------


@_situation
def sigterm_between_events(folder: Path) -> None:
    """A signal handler emits in the middle of everything else: no deadlock, nothing is lost."""
    stage = _stage(folder)
    logger = stage.logger

    def handle(*_: object) -> None:
        logger.emit(sealed(shard_id="signal"))

    before = signal.signal(signal.SIGTERM, handle)
    try:
        for _ in range(10):
            os.kill(os.getpid(), signal.SIGTERM)
            stage.emit()
            stage.flush()
    finally:
        signal.signal(signal.SIGTERM, before)
    _finish(stage)
    assert sum(entry.get("shard_id") == "signal" for entry in read_entries(folder)) == 10


def _require_damaged(folder: Path, why: str) -> None:
    try:
        oracle.reopen(folder)
    except LogDamagedError as error:
        assert why in str(error)
    else:
        raise AssertionError("the log was opened in spite of it")
