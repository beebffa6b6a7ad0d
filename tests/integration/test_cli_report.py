"""`vram audit report` from the outside: forms, files, exit codes."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from tests.independent_log import make_log

from vram_residency.audit.reporting.control import STANDARD_IDS
from vram_residency.audit.reporting.rendering import FORMS
from vram_residency.audit.reporting.statements import STATUSES
from vram_residency.cli import audit_report
from vram_residency.cli.main import main

MAKER = make_log()
#: The times of the log are all of October 2025.
TIME = re.compile(r"202[^5]-\d\d-\d\dT[0-9:.]+Z")


@pytest.fixture
def log(tmp_path: Path) -> Path:
    return MAKER.write(tmp_path / "log")


def _report(log: Path, *words: object) -> int:
    return main(["audit", "report", str(log), *map(str, words)])


def test_the_choices_are_those_of_the_table() -> None:
    assert audit_report._STANDARDS == STANDARD_IDS
    assert audit_report._FORMS == FORMS


@pytest.mark.parametrize("standard", STANDARD_IDS)
def test_each_standard_gives_a_document_with_the_three_statuses_alone(
    log: Path, capsys: pytest.CaptureFixture[str], standard: str
) -> None:
    assert _report(log, "--standard", standard, "--vkey", MAKER.vkey, "--json") == 0
    document = json.loads(capsys.readouterr().out)
    assert document["verification"]["verdict"] == "intact"
    assert document["standard"] == standard
    assert {control["status"] for control in document["controls"]} <= set(STATUSES)
    assert document["events"] == [
        {"event_type": "epoch_closed", "count": 1, "examples": [7]},
        {"event_type": "log_closed", "count": 1, "examples": [6]},
        {"event_type": "log_opened", "count": 1, "examples": [0]},
        {"event_type": "vram_sealed", "count": 5, "examples": [1, 2, 3, 5]},
    ]


def test_the_exit_code_is_that_of_the_verification(
    log: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    assert _report(log, "--standard", "soc2") == 5
    captured = capsys.readouterr()
    assert "**The log does not verify: unverifiable" in captured.out
    assert "the log does not verify" in captured.err
    segment = log / "entries" / f"{0:020}.jsonl"
    segment.write_bytes(segment.read_bytes().replace(b"shard-1", b"shard-2"))
    target = tmp_path / "report.html"
    words = ("--standard", "soc2", "--vkey", MAKER.vkey, "--format", "html", "--output", target)
    assert _report(log, *words) == 1
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "Written: " in captured.err
    head = target.read_text("utf-8").partition("At a glance")[0]
    assert 'class="verdict bad">The log does not verify: tampered' in head


@pytest.mark.parametrize("form", FORMS)
def test_a_file_holds_what_stdout_would(
    log: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], form: str
) -> None:
    """But for the moment at which each was made."""
    target = tmp_path / "report"
    words = ("--standard", "gdpr", "--vkey", MAKER.vkey, "--format", form)
    assert _report(log, *words, "--output", target) == 0
    assert capsys.readouterr().out == ""
    assert _report(log, *words) == 0
    made, shown = (TIME.sub("", text) for text in (target.read_text("utf-8"), capsys.readouterr().out))
    assert made == shown
    assert TIME.search(shown) is None


@pytest.mark.parametrize(
    "words",
    [
        ["LOG", "--standard", "pci"],
        ["LOG"],
        ["LOG", "--standard", "soc2", "--since", "yesterday"],
        ["LOG", "--standard", "soc2", "--format", "pdf"],
        ["LOG", "--standard", "soc2", "--vkey", "nonsense"],
        ["NOWHERE", "--standard", "soc2"],
        ["LOG", "--standard", "soc2", "--output", "NOWHERE/x/y"],
    ],
    ids=["standard", "no standard", "time", "form", "vkey", "no log", "no folder"],
)
def test_bad_input_is_one_line_a_hint_and_exit_code_2(
    log: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], words: list[str]
) -> None:
    filled = [word.replace("LOG", str(log)).replace("NOWHERE", str(tmp_path / "nowhere")) for word in words]
    assert main(["audit", "report", *filled]) == 2
    lines = capsys.readouterr().err.splitlines()
    assert [line.partition(":")[0] for line in lines] == ["vram", "hint"]
