"""Faults at every call of the injectable file layer: killed before and after, errors, short writes.

The calls are found, not listed: whatever public method ``Files`` has is a place to strike.
"""

from __future__ import annotations

import errno
import mmap
import os
import random
import signal
import sys
import traceback
from collections.abc import Callable, Iterator
from enum import StrEnum
from pathlib import Path
from typing import Any, Final, NamedTuple

from tests.audit_logs import PowerCutError, copy_tree
from tests.faults import oracle
from tests.faults.scenarios import SCENARIOS, Scenario
from tests.faults.stage import GaveUpError, Record, Stage, Told, Word

from vram_residency.audit.store.files import Files
from vram_residency.core.errors import VramError

#: Methods made of others, which are struck one by one.
_COMPOSITE: Final = {"write_all", "write_all_at", "write_new", "write_atomically"}
_WRITES: Final = {"write": 1, "write_at": 1}  # the position of the data among the arguments
_SYNCS: Final = {"sync_data", "sync_directory"}
_OPENINGS: Final = {name for name in vars(Files) if name.startswith(("open", "create"))}
CALLS: Final = tuple(name for name in vars(Files) if not name.startswith("_") and name not in _COMPOSITE)
ERRORS: Final = ("EIO", "ENOSPC", "EDQUOT", "EROFS", "EINTR")


class Kind(StrEnum):
    """What happens at a call."""

    KILL_BEFORE = "killed before the call"
    KILL_AFTER = "killed after the call"
    KILL_MIDDLE = "killed in the middle of a write"
    SIGKILL = "a forked process sends itself SIGKILL before the call"
    ERROR = "the call fails once"
    ERROR_AFTER = "the call does its work and says that it failed"
    ERROR_MIDDLE = "a write stops half-way and then fails"
    ERROR_STAYS = "the call and every later one fail, then the process is killed"
    SHORT = "a write takes half of the bytes, the next one a single byte"


class Fault(NamedTuple):
    """``number`` counts the calls from 1; ``error`` is an errno name, for the kinds that have one."""

    kind: Kind
    number: int
    error: str = ""

    def __str__(self) -> str:
        return f"{self.kind.name}{'-' * bool(self.error)}{self.error}@{self.number}"


class StruckFiles(Files):
    """Counts its calls and does to one of them what the fault says. Without a fault it only counts."""

    def __init__(self, fault: Fault | None = None) -> None:
        self.calls: list[str] = []
        self._fault = fault
        self._is_short = False

    def strike(self, name: str, call: Callable[..., Any], arguments: tuple[Any, ...]) -> Any:
        self.calls.append(name)
        fault = self._fault
        if fault is None:
            return call(*arguments)
        if self._is_short and name in _WRITES:
            self._is_short = False
            return call(*_cut(name, arguments, 1))
        number = len(self.calls)
        if number == fault.number or (fault.kind is Kind.ERROR_STAYS and number > fault.number):
            return self._struck(fault, name, call, arguments)
        return call(*arguments)

    def _struck(self, fault: Fault, name: str, call: Callable[..., Any], arguments: tuple[Any, ...]) -> Any:
        kind = fault.kind
        if kind is Kind.KILL_BEFORE:
            raise PowerCutError
        if kind is Kind.SIGKILL:
            os.kill(os.getpid(), signal.SIGKILL)
        if kind in {Kind.ERROR, Kind.ERROR_STAYS}:
            raise _os_error(fault.error)
        if kind is Kind.SHORT:
            self._is_short = True
        is_whole = kind in {Kind.KILL_AFTER, Kind.ERROR_AFTER}
        result = call(*(arguments if is_whole else _cut(name, arguments, None)))
        if kind is Kind.SHORT:
            return result
        if name in _OPENINGS:
            os.close(result)  # nobody gets it
        raise PowerCutError if kind in {Kind.KILL_AFTER, Kind.KILL_MIDDLE} else _os_error(fault.error)


def _make(name: str) -> Callable[..., Any]:
    def method(self: StruckFiles, *arguments: Any) -> Any:
        if name in _SYNCS:  # nobody takes the power from this disk
            return self.strike(name, lambda *_: None, arguments)
        return self.strike(name, lambda *rest: getattr(Files, name)(self, *rest), arguments)

    return method


for _name in CALLS:
    setattr(StruckFiles, _name, _make(_name))


class Case(NamedTuple):
    """One cell of the matrix."""

    scenario: str
    fault: Fault

    def __str__(self) -> str:
        return f"{self.scenario}-{self.fault}"


def cases(scenario: Scenario, workplace: Path) -> Iterator[Case]:
    """Every fault at every call of a run without faults."""
    files = StruckFiles()
    play(scenario, begin(scenario, workplace / "reference"), Record(bytearray(Record.BYTES)), files)
    for number, name in enumerate(files.calls, 1):
        for kind in (Kind.KILL_BEFORE, Kind.KILL_AFTER, Kind.SIGKILL):
            yield Case(scenario.name, Fault(kind, number))
        if name in _WRITES:
            yield Case(scenario.name, Fault(Kind.KILL_MIDDLE, number))
            yield Case(scenario.name, Fault(Kind.SHORT, number))
        for error in ERRORS:
            for kind in (Kind.ERROR, Kind.ERROR_AFTER, Kind.ERROR_STAYS):
                yield Case(scenario.name, Fault(kind, number, error))
            if name in _WRITES:
                yield Case(scenario.name, Fault(Kind.ERROR_MIDDLE, number, error))


def try_case(case: Case, workplace: Path) -> None:
    """AssertionError where something did not hold."""
    scenario = SCENARIOS[case.scenario]
    folder = begin(scenario, workplace)
    if case.fault.kind is Kind.SIGKILL:
        told = _play_in_child(scenario, folder, case.fault)
    else:
        record = Record(bytearray(Record.BYTES))
        play(scenario, folder, record, StruckFiles(case.fault))
        told = record.read()
    assert oracle.open_descriptors(folder) == 0, "descriptors were left open"
    if not scenario.may_lack_log or (folder / "log" / "log.json").exists():
        oracle.check(folder, told, scenario)
    else:
        assert not told.numbers(Word.ACCEPTED, Word.DURABLE), "events without a log"


def begin(scenario: Scenario, workplace: Path) -> Path:
    """A copy of the folder that the scenario starts from, which is made once."""
    template = workplace.parent / f"template-{scenario.name}"
    if not template.exists():
        scenario.begin(template)
    return copy_tree(template, workplace)


def play(scenario: Scenario, folder: Path, record: Record, files: Files) -> None:
    """Until the end, the kill, or a service that gives up, which is killed too."""
    stage = Stage(folder, record, files=files, **scenario.options)
    try:
        scenario.drive(stage)
    except (PowerCutError, GaveUpError):
        pass
    except VramError as error:
        raise AssertionError(f"{type(error).__name__} came out: {error}") from error
    finally:
        stage.die()


def _play_in_child(scenario: Scenario, folder: Path, fault: Fault) -> Told:
    """The same in a process that really dies."""
    with mmap.mmap(-1, mmap.PAGESIZE) as shared:
        child = os.fork()
        if child == 0:  # pragma: no cover - coverage does not follow
            try:
                play(scenario, folder, Record(shared), StruckFiles(fault))
            except BaseException:  # noqa: BLE001 - nothing may run on in the child
                traceback.print_exc(file=sys.stderr)
            finally:
                os._exit(1)
        _, status = os.waitpid(child, 0)
        assert os.waitstatus_to_exitcode(status) == -signal.SIGKILL, "the child was not killed"
        return Record(shared).read()


def _cut(name: str, arguments: tuple[Any, ...], length: int | None) -> tuple[Any, ...]:
    place = _WRITES[name]
    data = memoryview(arguments[place])
    length = max(len(data) // 2, 1) if length is None else length
    return (*arguments[:place], data[:length], *arguments[place + 1 :])


def _os_error(name: str) -> OSError:
    number = getattr(errno, name)
    return OSError(number, os.strerror(number))


def sample(some: list[Case], count: int, seed: int) -> list[Case]:
    """So many of them, and at least one of each kind and scenario where they suffice."""
    order = random.Random(seed)
    shuffled = order.sample(some, len(some))
    first: dict[tuple[str, Kind], Case] = {}
    for case in shuffled:
        first.setdefault((case.scenario, case.fault.kind), case)
    chosen = list(first.values())
    rest = [case for case in shuffled if case not in set(chosen)]
    return (chosen + rest)[:count]
