"""Runs the whole fault matrix and writes its table: ``make faults``.

``python -m tests.faults.matrix`` tries everything; ``--only layer`` and so on a part, ``--write`` puts the
table into docs/format/faults.md. A part that cannot be tried here is named, and leaves its table as it was.
"""

from __future__ import annotations

import argparse
import os
import random
import shutil
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from pathlib import Path
from typing import NamedTuple

from tests.faults import disks, kills, layer, power, situations, syscalls
from tests.faults.scenarios import SCENARIOS
from tests.faults.workplace import workplace

PAGE = Path(__file__).parents[2] / "docs" / "format" / "faults.md"
SEEDS = 20
EXT4_STOPS = 400
KILLS = 2000
_CHUNK = 20
_EXT4_CHUNK = 50


class Outcome(NamedTuple):
    """``places`` were struck in one cell of a table; ``failures`` tell of those that did not hold."""

    row: str
    column: str
    places: int
    failures: tuple[str, ...]


class Job(NamedTuple):
    """One call that a worker makes; ``arguments`` travel to it."""

    call: Callable[..., list[Outcome]]
    arguments: tuple[object, ...]


# --- what a worker does -----------------------------------------------------------------------------------


def try_layer(cases: tuple[layer.Case, ...]) -> list[Outcome]:
    outcomes = []
    with workplace() as place:
        for case in cases:
            failure = _try(lambda: layer.try_case(case, place / str(case)), str(case))  # noqa: B023
            outcomes.append(Outcome(case.scenario, case.fault.kind.value, 1, failure))
            shutil.rmtree(place / str(case), ignore_errors=True)
    return outcomes


def try_syscalls(strikes: tuple[syscalls.Strike, ...]) -> list[Outcome]:
    outcomes = []
    with workplace() as place:
        for strike in strikes:
            failure = _try(lambda: syscalls.try_strike(strike, place / str(strike)), str(strike))  # noqa: B023
            outcomes.append(Outcome(strike.call, strike.error, 1, failure))
            shutil.rmtree(place / str(strike), ignore_errors=True)
    return outcomes


def try_power(name: str, seed: int) -> list[Outcome]:
    with workplace() as place:
        moments = power.moments(SCENARIOS[name], place / "reference")
        outcomes = []
        for number, moment in enumerate(moments):
            home = place / str(number)
            label = f"{name}-{number}-{moment.call}-{seed}"
            failure = _try(lambda: power.try_moment(SCENARIOS[name], moment, home, seed), label)  # noqa: B023
            outcomes.append(Outcome(name, "layouts of the disk", 1, failure))
            shutil.rmtree(home, ignore_errors=True)
        return outcomes


def try_ext4(seed: int, count: int) -> list[Outcome]:
    with workplace(in_memory=False) as place:
        tried = []
        failure = _try(
            lambda: tried.append(situations.cut_power_on_ext4(place / "ext4", power_cuts(seed, count))),
            f"ext4, seed {seed}",
        )
        return [Outcome("stopped before a random call, unmounted, mounted", "ext4", sum(tried), failure)]


def try_kills(seed: int, count: int) -> list[Outcome]:
    with workplace() as place:
        tallies: list[kills.Tally] = []
        failure = _try(lambda: tallies.append(kills.kill_many(place, count, seed)), f"kills, seed {seed}")
        total: Counter[str] = Counter()
        for tally in tallies:
            total.update(tally._asdict())
        return [Outcome("SIGKILL under load", name, number, failure) for name, number in total.items()] or [
            Outcome("SIGKILL under load", "kills", count, failure)
        ]


def try_situation(name: str) -> list[Outcome]:
    with workplace() as place:
        failure = _try(lambda: situations.SITUATIONS[name](place / name), name)
        return [Outcome(name, "held", 1, failure)]


def power_cuts(seed: int, count: int) -> Iterator[tuple[str, int]]:
    """Random scenarios, each with a call to stop before."""
    choice = random.Random(seed)
    for _ in range(count):
        yield choice.choice(sorted(SCENARIOS)), choice.randint(1, 90)


# --- which jobs there are ---------------------------------------------------------------------------------


def layer_jobs() -> Iterator[Job]:
    with workplace() as place:
        cases = [
            case for scenario in SCENARIOS.values() for case in layer.cases(scenario, place / scenario.name)
        ]
    random.Random(0).shuffle(cases)
    for start in range(0, len(cases), _CHUNK):
        yield Job(try_layer, (tuple(cases[start : start + _CHUNK]),))


def syscall_jobs() -> Iterator[Job]:
    with workplace() as place:
        strikes = [strike for name in SCENARIOS for strike in syscalls.strikes(name, place / name)]
    random.Random(0).shuffle(strikes)
    for start in range(0, len(strikes), _CHUNK):
        yield Job(try_syscalls, (tuple(strikes[start : start + _CHUNK]),))


def power_jobs() -> Iterator[Job]:
    for seed in range(SEEDS):
        for name in SCENARIOS:
            yield Job(try_power, (name, seed))


def ext4_jobs() -> Iterator[Job]:
    for seed in range(EXT4_STOPS // _EXT4_CHUNK):
        yield Job(try_ext4, (seed, _EXT4_CHUNK))


def kill_jobs() -> Iterator[Job]:
    for seed in range(KILLS // kills.KILLS_PER_LOG):
        yield Job(try_kills, (seed, kills.KILLS_PER_LOG))


def situation_jobs() -> Iterator[Job]:
    reason = disks.why_not()
    for name in situations.SITUATIONS:
        if name not in situations.MOUNTING or not reason:
            yield Job(try_situation, (name,))


class Part(NamedTuple):
    """A part of the matrix: ``why_not`` says why it cannot be tried here; ``render`` makes its table."""

    jobs: Callable[[], Iterator[Job]]
    render: Callable[[list[Outcome]], str]
    why_not: Callable[[], str] = str


# --- tables -----------------------------------------------------------------------------------------------


def as_grid(outcomes: list[Outcome]) -> str:
    """Rows and columns; in each cell how many places held of those that were struck."""
    struck: Counter[tuple[str, str]] = Counter()
    failed: Counter[tuple[str, str]] = Counter()
    for outcome in outcomes:
        struck[outcome.row, outcome.column] += outcome.places
        failed[outcome.row, outcome.column] += len(outcome.failures)
    rows = sorted({row for row, _ in struck}, key=_place_of)
    columns = sorted({column for _, column in struck}, key=_place_of)
    lines = [f"| | {' | '.join(columns)} |", "|---" * (len(columns) + 1) + "|"]
    for row in rows:
        cells = []
        for column in columns:
            number, bad = struck[row, column], failed[row, column]
            cells.append(f"**{bad} of {number} FAILED**" if bad else str(number or ""))
        lines.append(f"| {row} | {' | '.join(cells)} |")
    total = sum(struck.values())
    return "\n".join(lines) + f"\n\nHeld: {total - sum(failed.values()):,} of {total:,}.\n"


def as_numbers(outcomes: list[Outcome]) -> str:
    """One row of numbers that do not add up to anything."""
    grid, _, held = as_grid(outcomes).rpartition("\n\nHeld:")
    return f"{grid}\n" if "FAILED" not in grid else f"{grid}\n\nHeld:{held}"


def as_list(outcomes: list[Outcome]) -> str:
    """One line for each situation, in the words of its docstring."""
    failures = {outcome.row: outcome.failures for outcome in outcomes}
    lines = ["| what happens, and what then holds | |", "|---|---|"]
    for name, situation in situations.SITUATIONS.items():
        word = "not tried here" if name not in failures else "**FAILED**" if failures[name] else "held"
        lines.append(f"| {sentence(situation)} | {word} |")
    return "\n".join(lines) + "\n"


def scenario_table() -> str:
    """What the scenarios are."""
    lines = ["| scenario | what happens in it |", "|---|---|"]
    lines += [f"| {scenario.name} | {scenario.says} |" for scenario in SCENARIOS.values()]
    return "\n".join(lines) + "\n"


PARTS: dict[str, Part] = {
    "layer": Part(layer_jobs, as_grid),
    "syscalls": Part(syscall_jobs, as_grid, lambda: "" if syscalls.STRACE else "strace is not installed"),
    "power": Part(power_jobs, as_grid),
    "ext4": Part(ext4_jobs, as_grid, disks.why_not),
    "kills": Part(kill_jobs, as_numbers),
    "situations": Part(situation_jobs, as_list),
}


def rewritten(page: str, name: str, table: str) -> str:
    """The page with the table of one part as it is now."""
    begin, end = f"<!-- {name} -->", f"<!-- end of {name} -->"
    before, _, rest = page.partition(begin)
    _, _, after = rest.partition(end)
    return f"{before}{begin}\n\n{table}\n{end}{after}"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", choices=list(PARTS), action="append", help="a part, may be repeated")
    parser.add_argument("--one-in", type=int, default=1, help="strike one place in so many, by a fixed seed")
    parser.add_argument("--write", action="store_true", help="put the tables into docs/format/faults.md")
    arguments = parser.parse_args()
    page = PAGE.read_text("utf-8")
    page = rewritten(page, "scenarios", scenario_table())
    failures: list[str] = []
    for name in arguments.only or PARTS:
        part = PARTS[name]
        if reason := part.why_not():
            print(f"{name}: LEFT OUT, {reason}")
            continue
        start = time.monotonic()
        outcomes = _run(_thinned(part.jobs(), arguments.one_in))
        table = part.render(outcomes)
        if arguments.one_in > 1:
            table += f"\nOne place in {arguments.one_in} was struck in this run, chosen by a fixed seed.\n"
        bad = [failure for outcome in outcomes for failure in outcome.failures]
        print(f"{name}: {time.monotonic() - start:.0f} s\n{table}", *bad, sep="\n", flush=True)
        page = rewritten(page, name, table)
        failures += bad
    if arguments.write:
        PAGE.write_text(page, "utf-8")
    return bool(failures)


def _thinned(jobs: Iterator[Job], one_in: int) -> Iterator[Job]:
    choice = random.Random(0)
    return (job for job in jobs if one_in == 1 or choice.randrange(one_in) == 0)


def _run(jobs: Iterator[Job]) -> list[Outcome]:
    with ProcessPoolExecutor(max_workers=os.cpu_count()) as pool:
        futures = [pool.submit(job.call, *job.arguments) for job in jobs]
        return [outcome for future in as_completed(futures) for outcome in future.result()]


def _try(action: Callable[[], object], label: str) -> tuple[str, ...]:
    try:
        action()
    except Exception as error:  # noqa: BLE001 - whatever it is, it did not hold
        return (f"{label}: {type(error).__name__}: {error}",)
    return ()


def sentence(function: Callable[..., object]) -> str:
    """The docstring on one line."""
    return " ".join((function.__doc__ or "").split()).removesuffix(".")


def _place_of(name: str) -> tuple[int, str]:
    """In the order in which things are declared; what is declared nowhere by name."""
    order = [*SCENARIOS, *(kind.value for kind in layer.Kind), *kills.Tally._fields, syscalls.KILL]
    return (order.index(name), "") if name in order else (len(order), name)


if __name__ == "__main__":
    sys.exit(main())
