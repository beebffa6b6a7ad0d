"""Faults at every system call of a real process, by ``strace -e inject``.

A run without faults is traced first; each of its calls that leads into the folder is then struck in a run of
its own: SIGKILL at its entry, or an error instead of the call. What the product does behind the file layer
(its lock, its mapped journal, its derived files) is struck too.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Final, NamedTuple

from tests.faults import driver, oracle
from tests.faults.layer import begin
from tests.faults.scenarios import SCENARIOS
from tests.faults.stage import Record, Told

#: Calls that change something, or without which nothing can be changed.
CALLS: Final = (
    "openat", "write", "pwrite64", "fsync", "fdatasync", "ftruncate", "rename", "renameat", "renameat2",
    "unlink", "unlinkat", "link", "linkat", "mkdir", "mkdirat", "chmod", "fchmod", "fchmodat", "fallocate",
    "flock", "fstatfs", "read", "pread64", "getdents64",
)  # fmt: skip
OTHER_ERRORS: Final = ("ENOSPC", "EDQUOT", "EROFS", "EINTR")
KILL: Final = "KILL"
STRACE: Final = shutil.which("strace")
_CALL = re.compile(r"(?:\d+ +)?(\w+)\((.*)")
_READS: Final = {"read", "pread64", "getdents64", "flock", "fstatfs"}


class Strike(NamedTuple):
    """The ``number``-th ``call`` of the process (from 1) is killed at, or gives ``error``."""

    scenario: str
    call: str
    number: int
    error: str

    def __str__(self) -> str:
        return f"{self.scenario}-{self.call}-{self.number}-{self.error}"


def strikes(name: str, workplace: Path) -> Iterator[Strike]:
    """Every strike at a call of a run without faults that leads into the folder."""
    folder = begin(SCENARIOS[name], workplace / "log-of-reference")
    trace = workplace / "trace"
    _, code = _run(name, folder, ["-y", "-o", str(trace), "-e", f"trace={','.join(CALLS)}"])
    assert code == 0, "the scenario does not end without faults"
    leads_there = re.compile(re.escape(str(folder)) + '[/">]')
    seen: Counter[str] = Counter()
    for line in trace.read_text("utf-8", "replace").splitlines():
        if found := _CALL.match(line):
            call, rest = found.groups()
            seen[call] += 1
            if not leads_there.search(rest):
                continue
            yield Strike(name, call, seen[call], KILL)
            yield Strike(name, call, seen[call], "EIO")
            if call not in _READS:
                # One of the others in turn: the file layer is struck with each of them at every call.
                yield Strike(name, call, seen[call], OTHER_ERRORS[seen[call] % len(OTHER_ERRORS)])


def try_strike(strike: Strike, workplace: Path) -> None:
    """AssertionError where something did not hold."""
    scenario = SCENARIOS[strike.scenario]
    folder = begin(scenario, workplace)
    how = "signal=KILL" if strike.error == KILL else f"error={strike.error}"
    trace = workplace.with_name(f"{workplace.name}.trace")
    inject = [f"trace={strike.call}", f"inject={strike.call}:{how}:when={strike.number}"]
    told, code = _run(
        strike.scenario, folder, ["-o", str(trace), *(word for each in inject for word in ("-e", each))]
    )
    if strike.error == KILL:
        assert code in {-9, 137}, f"the process was not killed: {code}"
    else:
        assert code in {0, driver.GAVE_UP}, f"something else than an AuditWriteError came out: {code}"
        assert "(INJECTED)" in trace.read_text("utf-8", "replace"), "the strike missed"
    if not scenario.may_lack_log or (folder / "log" / "log.json").exists():
        oracle.check(folder, told, scenario)


def _run(name: str, folder: Path, options: list[str]) -> tuple[Told, int]:
    record = folder.with_name(f"{folder.name}.record")
    record.write_bytes(bytes(Record.BYTES))
    assert STRACE is not None
    # No pyc is written and no hash is random: two runs make the same calls.
    command = [STRACE, "-f", "-qq", *options, "--", sys.executable, "-B", "-m", "tests.faults.driver"]
    done = subprocess.run(
        [*command, name, str(folder), str(record)],
        check=False,
        capture_output=True,
        text=True,
        cwd=Path(__file__).parents[2],
        env={"PYTHONHASHSEED": "0", "PYTHONPATH": ":".join(sys.path), "PATH": "/usr/bin:/bin"},
    )
    assert not done.stderr, done.stderr
    return Record(record.read_bytes()).read(), done.returncode
