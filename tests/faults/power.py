"""A disk that loses power: what was not synced is there, or not, or in part.

``RecordingFiles`` does what ``Files`` does and looks at the folder after every call. A ``Moment`` then knows
of every file the contents and of every directory the names that the disk may hold: those of the last sync
and all that came after it. ``Moment.lay_out`` makes a folder of one such choice:

* names: a directory is as it was at one moment since its last sync, each directory at its own;
* bytes: a file that grew is cut anywhere, or its new end is zeros; one that was changed in place is, sector
  by sector, of any age since its last sync. A file that nobody synced may be empty;
* nothing is taken for durable because of what some file system does beyond its promises.

A file whose size reached the disk with other data than its own (ext4 with data=writeback) is covered as far
as zeros go.
"""

from __future__ import annotations

import os
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, NamedTuple, Self

from tests.faults import oracle
from tests.faults.layer import CALLS, begin, play
from tests.faults.scenarios import Scenario
from tests.faults.stage import Record, Told, Word

from vram_residency.audit.store.files import Files

SECTOR_BYTES: Final = 512
#: The folder that a listing is of, by inode; a name and the inode it leads to.
Listing = dict[str, int]


class Moment(NamedTuple):
    """The state after one call. Histories begin with what is durable and end with what programs see."""

    call: str
    told: Told
    contents: dict[int, tuple[bytes, ...]]
    listings: dict[int, tuple[Listing, ...]]
    root: int

    def lay_out(self, target: Path, seed: int) -> Path:
        """What a disk may hold after the power was lost now."""
        self._lay_out_directory(self.root, target, random.Random(seed))
        return target

    def _lay_out_directory(self, inode: int, target: Path, choice: random.Random) -> None:
        target.mkdir(mode=0o700)
        for name, child in sorted(_one_of(self.listings[inode], choice).items()):
            if child in self.listings:
                self._lay_out_directory(child, target / name, choice)
            else:
                (target / name).touch(mode=0o600)
                (target / name).write_bytes(_torn(self.contents[child], choice))


class RecordingFiles(Files):
    """Keeps a Moment for every call of a story that plays in ``root``. Use as a context manager."""

    def __init__(self, root: Path, record: Record) -> None:
        self.moments: list[Moment] = []
        self._root = root
        self._record = record
        #: Held open, so that no number is given twice and what was unlinked can still be read.
        self._descriptors: dict[int, int] = {}
        self._contents: dict[int, tuple[bytes, ...]] = {}
        self._listings: dict[int, tuple[Listing, ...]] = {}

    def __enter__(self) -> Self:
        self._look()
        # The power was on long before the story began: all of this is durable.
        self._contents = {inode: history[-1:] for inode, history in self._contents.items()}
        self._listings = {inode: history[-1:] for inode, history in self._listings.items()}
        return self

    def __exit__(self, *_: object) -> None:
        for descriptor in self._descriptors.values():
            os.close(descriptor)

    def call(self, name: str, arguments: tuple[Any, ...]) -> Any:
        if name == "sync_data":
            self._look()
            inode = os.fstat(arguments[0]).st_ino
            self._contents[inode] = self._contents[inode][-1:]
        elif name == "sync_directory":
            self._look()
            inode = arguments[0].stat().st_ino
            self._listings[inode] = self._listings[inode][-1:]
        else:
            result = getattr(Files, name)(self, *arguments)
            self._note(name)
            return result
        self._note(name)
        return None

    def _note(self, name: str) -> None:
        self._look()
        root = self._root.stat().st_ino
        self.moments.append(
            Moment(name, self._record.read(), dict(self._contents), dict(self._listings), root)
        )

    def _look(self) -> None:
        for folder, directories, files in os.walk(self._root):
            listing = {name: os.lstat(os.path.join(folder, name)).st_ino for name in directories + files}
            # A directory begins empty: nobody synced its first names.
            _append(self._listings, os.stat(folder).st_ino, listing, {})
            for name in files:
                self._hold(os.path.join(folder, name))
        for inode, descriptor in self._descriptors.items():
            content = os.pread(descriptor, os.fstat(descriptor).st_size, 0)
            _append(self._contents, inode, content, b"")

    def _hold(self, path: str) -> None:
        if (inode := os.stat(path).st_ino) not in self._descriptors:
            self._descriptors[inode] = os.open(path, os.O_RDONLY)


def _make(name: str) -> Callable[..., Any]:
    def method(self: RecordingFiles, *arguments: Any) -> Any:
        return self.call(name, arguments)

    return method


for _name in CALLS:
    setattr(RecordingFiles, _name, _make(_name))


def _append(histories: dict[int, tuple[Any, ...]], inode: int, state: Any, first: Any) -> None:
    history = histories.get(inode, (first,))
    if history[-1] != state:
        history = (*history, state)
    histories[inode] = history


def _one_of(history: tuple[Any, ...], choice: random.Random) -> Any:
    """The oldest and the newest more often than what lies between."""
    return choice.choice((history[0], history[-1], choice.choice(history)))


def _torn(history: tuple[bytes, ...], choice: random.Random) -> bytes:
    if len({len(content) for content in history}) == 1:
        return _sectors(history, choice)
    number = choice.randrange(len(history))
    old, new = history[number], history[min(number + 1, len(history) - 1)]
    if new.startswith(old):
        kept = new[: choice.choice((len(old), len(new), choice.randint(len(old), len(new))))]
        return kept if choice.random() < 0.7 else kept.ljust(len(new), b"\0")
    return choice.choice((old, new))


def _sectors(history: tuple[bytes, ...], choice: random.Random) -> bytes:
    content = bytearray(history[0])
    for start in range(0, len(content), SECTOR_BYTES):
        end = start + SECTOR_BYTES
        versions = {version[start:end] for version in history}
        if len(versions) > 1:
            content[start:end] = choice.choice(sorted(versions))
    return bytes(content)


def moments(scenario: Scenario, workplace: Path) -> list[Moment]:
    """Every moment of a run without faults."""
    folder = begin(scenario, workplace)
    record = Record(bytearray(Record.BYTES))
    with RecordingFiles(folder, record) as files:
        play(scenario, folder, record, files)
    return files.moments


def try_moment(scenario: Scenario, moment: Moment, target: Path, seed: int) -> None:
    """AssertionError where something does not hold on one layout of the disk at that moment."""
    moment.lay_out(target, seed)
    if scenario.may_lack_log and not (target / "log" / "log.json").exists():
        assert not moment.told.numbers(Word.DURABLE), "events without a log"
        return
    oracle.check(target, moment.told, scenario, is_power_lost=True)
