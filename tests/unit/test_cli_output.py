"""What people see: safe cells, colour and progress only on a terminal."""

from __future__ import annotations

import io
import sys
from pathlib import Path

import click
import msgspec
import pytest

from vram_residency.cli import output


class Terminal(io.StringIO):
    """A stream that says it is a terminal."""

    def isatty(self) -> bool:
        return True


class Pair(msgspec.Struct):
    path: Path
    count: int


def become_terminal(monkeypatch: pytest.MonkeyPatch) -> Terminal:
    """One stream for both, as a person sees them. No fixture: pytest swaps the streams after those."""
    stream = Terminal()
    monkeypatch.setattr(sys, "stdout", stream)
    monkeypatch.setattr(sys, "stderr", stream)
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("TERM", "xterm")
    return stream


def test_a_struct_is_printed_as_an_object(capsys: pytest.CaptureFixture[str]) -> None:
    """Typed results need no conversion by the command."""
    output.document([Pair(Path("a"), 1)])
    assert capsys.readouterr().out == '[{"path": "a", "count": 1}]\n'


def test_colour_is_for_terminals_that_want_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """NO_COLOR and dumb terminals stay plain."""
    become_terminal(monkeypatch)
    assert output.style("good", "green") == "\x1b[32mgood\x1b[0m"
    monkeypatch.setenv("TERM", "dumb")
    assert output.style("good", "green") == "good"
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("NO_COLOR", "1")
    assert output.style("good", "bold") == "good"


def test_a_pipe_gets_no_colour(capsys: pytest.CaptureFixture[str]) -> None:
    """Neither from style nor from tables."""
    assert output.style("good", "green") == "good"
    output.table(["name"], [["value"]])
    assert "\x1b" not in capsys.readouterr().out


def test_a_table_makes_its_cells_safe_and_keeps_them_whole(capsys: pytest.CaptureFixture[str]) -> None:
    """Control characters become visible, markup stays text, long digests are not cut."""
    digest = "blake3:" + "0" * 64
    output.table(["file", "digest"], [["a\x1b[31m\n[bold]b", digest]])
    printed = capsys.readouterr().out
    assert "a\\u{001B}[31m\\u{000A}[bold]b" in printed
    assert digest in printed


def test_progress_draws_after_a_second_and_erases_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing in the first second, a bar afterwards, a clean line in the end."""
    terminal, now_s = become_terminal(monkeypatch), [100.0]
    monkeypatch.setattr("vram_residency.cli.progress.time.monotonic", lambda: now_s[0])
    with output.progress("hashing") as report:
        report(1, 4)
        assert terminal.getvalue() == ""
        now_s[0] = 101.0
        report(2, 4)
        assert "hashing" in terminal.getvalue()
        assert "50%" in terminal.getvalue()
    assert terminal.getvalue().endswith("\r\x1b[K")


def test_progress_of_nothing_is_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    """A total of zero bytes divides nothing."""
    terminal, times = become_terminal(monkeypatch), iter([0.0, 5.0])
    monkeypatch.setattr("vram_residency.cli.progress.time.monotonic", lambda: next(times))
    with output.progress("hashing") as report:
        report(0, 0)
    assert "100%" in terminal.getvalue()


def test_progress_is_silent_off_a_terminal(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Logs of a service are not filled with bars."""
    monkeypatch.setattr("vram_residency.cli.progress._PATIENCE_S", 0.0)
    with output.progress("hashing") as report:
        report(1, 2)
    assert capsys.readouterr().err == ""


def test_a_list_has_one_line_a_row_however_narrow(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a terminal the last column is cut first; nothing is folded, no line ends in blanks."""
    terminal, _ = become_terminal(monkeypatch), monkeypatch.setenv("COLUMNS", "40")
    rows = [["1", "vram_sealed", "shard-1 " * 20], ["2", "log_closed", ""]]
    output.table(["index", "event", "details"], rows, is_list=True)
    _, _, first, second = click.unstyle(terminal.getvalue()).splitlines()
    assert first.split()[:3] == ["1", "vram_sealed", "shard-1"]
    assert first.endswith("…")
    assert len(first) <= 40
    assert second.split() == ["2", "log_closed"]
    assert second == second.rstrip()
