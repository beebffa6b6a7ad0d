"""A sample of the fault matrix (docs/format/faults.md): `make faults` tries all of it.

The sample is drawn by pytest-randomly's seed; the name of a case that fails is enough to try it again.
"""

from __future__ import annotations

import os
import random
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.faults import disks, layer, matrix, oracle, power, situations, syscalls
from tests.faults.scenarios import SCENARIOS
from tests.faults.stage import EVENTS_MAX, Record, Word
from tests.faults.workplace import workplace

from vram_residency.audit.store.files import Files

CASES = 60
STRIKES = 4
POWER_CUTS = 10
every_scenario = pytest.mark.parametrize("name", list(SCENARIOS))


@pytest.fixture
def place() -> Iterator[Path]:
    with workplace() as folder:
        yield folder


def _require(reason: str) -> None:
    """Skip, and say why; where everything must be tried (`.ci/run`), fail instead."""
    if reason and os.environ.get("VRAM_TESTS_NEED_TOOLS"):
        pytest.fail(reason)
    if reason:
        pytest.skip(f"left out of the fault matrix: {reason}")


@every_scenario
def test_faults_in_the_file_layer_lose_nothing(place: Path, name: str) -> None:
    cases = list(layer.cases(SCENARIOS[name], place / "reference"))
    for case in layer.sample(cases, CASES, random.randrange(1 << 32)):
        try:
            layer.try_case(case, place / str(case))
        except AssertionError as error:
            pytest.fail(f"{case}: {error}")


@every_scenario
def test_a_loss_of_power_at_any_call_loses_nothing_that_was_durable(place: Path, name: str) -> None:
    seed = random.randrange(1 << 32)
    scenario = SCENARIOS[name]
    for number, moment in enumerate(power.moments(scenario, place / "reference")):
        try:
            power.try_moment(scenario, moment, place / str(number), seed + number)
        except AssertionError as error:
            pytest.fail(f"call {number + 1}, {moment.call}, seed {seed + number}: {error}")


@every_scenario
def test_strikes_at_system_calls_lose_nothing(place: Path, name: str) -> None:
    _require("" if syscalls.STRACE else "strace is not installed")
    strikes = list(syscalls.strikes(name, place))
    # The same in every run, so that a build does not fail by chance; `make faults` strikes everywhere.
    for strike in random.Random(name).sample(strikes, STRIKES):
        try:
            syscalls.try_strike(strike, place / str(strike))
        except AssertionError as error:
            pytest.fail(f"{strike}: {error}")


@pytest.mark.parametrize("name", list(situations.SITUATIONS))
def test_a_situation_holds(place: Path, name: str) -> None:
    """What must hold stands in the docstring of the situation."""
    before = oracle.open_descriptors(place)
    if name in situations.MOUNTING and (reason := disks.why_not()):
        pytest.skip(f"left out of the fault matrix: {reason}")
    situations.SITUATIONS[name](place / name)
    assert oracle.open_descriptors(place) == before


def test_a_power_cut_on_a_real_file_system_loses_nothing_that_was_durable(tmp_path: Path) -> None:
    if reason := disks.why_not():
        pytest.skip(f"left out of the fault matrix: {reason}")
    seed = random.randrange(1 << 32)
    cuts = matrix.power_cuts(seed, POWER_CUTS)
    assert situations.cut_power_on_ext4(tmp_path / "disk", cuts) > 0, f"seed {seed}"


# --- the matrix itself ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("word", "wrong"),
    [(Word.ACCEPTED, "lost"), (Word.DURABLE, "lost"), (Word.REFUSED, "1 events were refused")],
    ids=["accepted", "durable", "refused"],
)
def test_the_oracle_sees_that_an_event_is_missing(place: Path, word: Word, wrong: str) -> None:
    """The log is as it should be, but the caller was told of one event more."""
    folder, record = place / "log", Record(bytearray(Record.BYTES))
    layer.play(SCENARIOS["ordinary"], layer.begin(SCENARIOS["ordinary"], folder), record, Files())
    oracle.check(folder, record.read())
    record.say(EVENTS_MAX - 1, word)
    with pytest.raises(AssertionError, match=wrong):
        oracle.check(folder, record.read())


def test_the_model_of_the_disk_sees_a_sync_that_is_missing(place: Path) -> None:
    """Where fdatasync does nothing, some choice of what the disk holds must lack a durable event."""

    class Lying(power.RecordingFiles):
        def sync_data(self, descriptor: int) -> None:
            pass

    scenario = SCENARIOS["ordinary"]
    folder = layer.begin(scenario, place / "log")
    record = Record(bytearray(Record.BYTES))
    with Lying(folder, record) as files:
        layer.play(scenario, folder, record, files)
    found = 0
    for number, moment in enumerate(files.moments):
        try:
            power.try_moment(scenario, moment, place / str(number), number)
        except Exception:  # noqa: BLE001 - lost, or damaged
            found += 1
    assert found > 10


def test_the_page_tells_of_every_scenario_and_situation() -> None:
    """The table of docs/format/faults.md is of this matrix, and nothing in it failed."""
    page = matrix.PAGE.read_text("utf-8")
    assert matrix.scenario_table() in page
    assert "FAILED" not in page.split("<!-- scenarios -->")[1]
    for situation in situations.SITUATIONS.values():
        assert f"| {matrix.sentence(situation)} | held |" in page
