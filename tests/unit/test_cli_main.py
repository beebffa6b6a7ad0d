"""Every way to fail ends in two lines, or one document, and a code; never in a traceback."""

from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys
import unicodedata
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

import click
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vram_residency.cli import output
from vram_residency.cli.errors import ExitCode, describe
from vram_residency.cli.main import COMMANDS, cli, main
from vram_residency.core import errors
from vram_residency.core.errors import VramError

CODES = {
    "InsufficientMemoryError": 4,
    "AllocationError": 4,
    "DeviceBusyError": 4,
    "SealVerificationError": 1,
    "PolicyViolationError": 3,
    "DeviceLostError": 5,
    "InvalidInputError": 2,
    "MalformedModelError": 2,
    "DigestMismatchError": 1,
    "DuplicateShardError": 2,
    "UnknownShardError": 2,
    "NotSealedError": 1,
    "ConfigurationError": 2,
    "MissingKeyError": 5,
    "InvalidEventError": 2,
    "BufferFullError": 4,
    "LogClosedError": 5,
    "AuditWriteError": 5,
    "LogDamagedError": 1,
    "LogLockedError": 5,
    "WitnessError": 5,
    "WorkerRefusedError": 5,
    "WorkerUnreachableError": 5,
}
#: What a worker answers over its API, as exit codes (cli.md); other codes are 5.
ANSWERS = {
    "INVALID_PARAMS": 2,
    "AUTH_FAILED": 5,
    "VRAM_OOM": 4,
    "DEVICE_ERROR": 5,
    "MODEL_REJECTED": 2,
    "DIGEST_MISMATCH": 1,
    "SEAL_VERIFICATION_FAILED": 1,
    "POLICY_VIOLATION": 3,
    "WORKER_STOPPED": 5,
    "BUSY": 4,
    "DEADLINE_EXCEEDED": 5,
    "INTERNAL": 5,
}
INVISIBLE = {"Cc", "Cf", "Co", "Cs", "Zl", "Zp"}
LEAVES = {name: value for name, value in vars(errors).items() if getattr(value, "fields", ())}


@pytest.fixture
def run_failing(monkeypatch: pytest.MonkeyPatch) -> Callable[..., int]:
    """Run ``vram fail`` with a command that raises what is given."""

    def run(error: BaseException, *arguments: str) -> int:
        @click.command()
        @click.option("--json", is_flag=True, expose_value=False)
        @click.option("--debug", is_flag=True, expose_value=False)
        def fail() -> None:
            raise error

        monkeypatch.setitem(cli.commands, "fail", fail)
        return main(["fail", *arguments])

    return run


@pytest.mark.parametrize("name", LEAVES)
def test_each_error_has_the_exit_code_of_the_specification(name: str) -> None:
    """The table of cli.md, spelled out: a new error must be put into it."""
    error = LEAVES[name](*("x" for _ in LEAVES[name].fields))
    assert describe(error).exit_code == CODES[name]


@pytest.mark.parametrize("code", ANSWERS)
def test_what_a_worker_answers_has_the_exit_code_of_the_same_failure_here(code: str) -> None:
    """The same thing went wrong, wherever it did; the code of the API is the code in JSON."""
    report = describe(errors.WorkerRefusedError(code, "it did not work"))
    assert (report.exit_code, report.code) == (ANSWERS[code], code.lower())


def test_an_error_is_one_line_and_a_hint_on_stderr(
    run_failing: Callable[..., int], capsys: pytest.CaptureFixture[str]
) -> None:
    """Nothing is printed on stdout."""
    assert run_failing(errors.MalformedModelError("m.gguf", 7, "the count is absurd")) == ExitCode.USAGE
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err == (
        "vram: error: m.gguf: malformed model at byte 7: the count is absurd\n"
        "hint: Fetch the file again and compare its digest with the publisher's.\n"
    )


def test_with_json_an_error_is_a_document_on_stdout(
    run_failing: Callable[..., int], capsys: pytest.CaptureFixture[str]
) -> None:
    """The same code, message and hint; stderr stays empty."""
    assert run_failing(errors.DigestMismatchError("blake3:a", "blake3:b"), "--json") == ExitCode.NO
    captured = capsys.readouterr()
    assert captured.err == ""
    assert json.loads(captured.out)["error"] == {
        "code": "digest_mismatch",
        "message": "digest mismatch: expected blake3:a, memory holds blake3:b",
        "hint": "The file is not the approved one: fetch it again, or approve the new digest.",
    }


@pytest.mark.parametrize("arguments", [["nonsense"], ["--nonsense"], ["digest", "--nonsense", "x"]])
def test_a_usage_error_keeps_the_form(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    """The errors of click itself look like ours, with and without --json."""
    assert main(arguments) == ExitCode.USAGE
    lines = capsys.readouterr().err.splitlines()
    assert [line.split(":")[0] for line in lines] == ["vram", "hint"]
    assert main([*arguments, "--json"]) == ExitCode.USAGE
    assert json.loads(capsys.readouterr().out)["error"]["code"] == "usage"


def test_json_after_a_double_dash_is_a_file_name(capsys: pytest.CaptureFixture[str]) -> None:
    """`vram digest -- --json` does not ask for JSON."""
    assert main(["nonsense", "--", "--json"]) == ExitCode.USAGE
    assert capsys.readouterr().out == ""


@given(st.text(max_size=300))
def test_no_name_breaks_out_of_its_line(name: str) -> None:
    """Newlines, escapes, bidirectional controls: visible, on one line, encodable."""
    report = describe(errors.MalformedModelError(name, 0, "rule"))
    assert len(report.message.splitlines()) == 1
    assert {unicodedata.category(character) for character in report.message}.isdisjoint(INVISIBLE)


@pytest.mark.parametrize(
    ("error", "exit_code", "code"),
    [
        (FileNotFoundError(errno.ENOENT, "No such file or directory", "a\nb"), 2, "bad_path"),
        (IsADirectoryError(errno.EISDIR, "Is a directory", "d"), 2, "bad_path"),
        (OSError(errno.ENAMETOOLONG, "File name too long", b"x\xff"), 2, "bad_path"),
        (PermissionError(errno.EACCES, "Permission denied", "f"), 5, "io_error"),
        (OSError(errno.EIO, "Input/output error"), 5, "io_error"),
        (MemoryError(), 5, "out_of_memory"),
        (RecursionError("too deep"), 5, "internal"),
        (KeyboardInterrupt(), 130, "interrupted"),
    ],
)
def test_what_is_no_error_of_ours_has_a_code_too(error: BaseException, exit_code: int, code: str) -> None:
    """Bad paths are the caller's, other failures of the system are not."""
    report = describe(error)
    assert (report.exit_code, report.code) == (exit_code, code)
    assert report.hint
    assert len(report.message.splitlines()) == 1


def test_a_surprise_shows_no_traceback_unless_asked(
    run_failing: Callable[..., int], capsys: pytest.CaptureFixture[str]
) -> None:
    """--debug adds it before the two lines."""
    assert run_failing(ZeroDivisionError("by zero")) == ExitCode.CANNOT_SAY
    assert "Traceback" not in capsys.readouterr().err
    assert run_failing(ZeroDivisionError("by zero"), "--debug") == ExitCode.CANNOT_SAY
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == "Traceback (most recent call last):"
    assert lines[-2] == "vram: error: unexpected ZeroDivisionError: by zero"


def test_a_traceback_cannot_carry_an_escape_sequence(
    run_failing: Callable[..., int], capsys: pytest.CaptureFixture[str]
) -> None:
    """Whatever stands in the message is made visible there too."""
    run_failing(ValueError("\x1b]0;owned\x07"), "--debug")
    assert "\x1b" not in capsys.readouterr().err


def test_a_secret_in_a_message_is_redacted() -> None:
    """An error may quote what it was given; the quote must not give it away."""
    assert "hunter2hunter2" not in describe(ValueError("password=hunter2hunter2")).message


def test_an_interrupt_ends_with_130(
    run_failing: Callable[..., int], capsys: pytest.CaptureFixture[str]
) -> None:
    """As shells expect."""
    assert run_failing(KeyboardInterrupt()) == ExitCode.INTERRUPTED
    assert capsys.readouterr().err.startswith("vram: error: interrupted\n")


def test_a_warning_is_one_line_on_stderr(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """No file name and no line of source, as Python would print."""

    @click.command()
    def warn() -> None:
        warnings.simplefilter("always")
        warnings.warn("keep it\nsafe", stacklevel=1)

    monkeypatch.setitem(cli.commands, "warn", warn)
    assert main(["warn"]) == ExitCode.DONE
    assert capsys.readouterr().err == "vram: warning: keep it\\u{000A}safe\n"


def test_a_command_answers_with_the_code_it_returns(monkeypatch: pytest.MonkeyPatch) -> None:
    """A result whose answer is no is printed, not raised."""
    monkeypatch.setitem(cli.commands, "no", click.command("no")(lambda: ExitCode.NO))
    assert main(["no"]) == ExitCode.NO


@pytest.mark.parametrize("name", COMMANDS)
def test_the_table_of_commands_agrees_with_the_commands(name: str) -> None:
    """The line in `vram --help` is the first line of the command's own help, which has an example."""
    command = cli.get_command(click.Context(cli), name)
    assert command is not None
    help_text = command.help or ""
    assert help_text.splitlines()[0] == COMMANDS[name][1]
    assert "Example" in help_text


def vram(*arguments: str, **options: object) -> subprocess.CompletedProcess[bytes]:
    command = [sys.executable, "-m", "vram_residency.cli.main", *arguments]
    return subprocess.run(command, check=False, stderr=subprocess.PIPE, **options)  # type: ignore[call-overload,no-any-return]


def test_a_reader_that_left_is_no_reason_to_shout() -> None:
    """`vram --help | head -1`: nothing on stderr."""
    reader, writer = os.pipe()
    os.close(reader)
    done = vram("--help", stdout=writer)
    os.close(writer)
    assert (done.returncode, done.stderr) == (ExitCode.CANNOT_SAY, b"")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full here")
def test_a_full_disk_under_stdout_is_an_error() -> None:
    """A result that could not be written was not given."""
    with Path("/dev/full").open("wb") as full:
        done = vram("--help", stdout=full)
    assert done.returncode == ExitCode.CANNOT_SAY
    assert done.stderr.decode().splitlines()[0] == "vram: error: No space left on device"


def test_a_narrow_encoding_does_not_stop_the_output() -> None:
    """Characters that the terminal lacks are escaped."""
    environment = {**os.environ, "PYTHONIOENCODING": "latin-1", "PYTHONUTF8": "0"}
    done = vram("--help", stdout=subprocess.PIPE, env=environment)
    assert done.returncode == ExitCode.DONE
    assert rb"blake3:\u2026" in done.stdout


def test_completion_knows_the_commands() -> None:
    """The shell asks by environment variables."""
    environment = {**os.environ, "_VRAM_COMPLETE": "bash_complete", "COMP_WORDS": "vram d", "COMP_CWORD": "1"}
    done = vram(stdout=subprocess.PIPE, env=environment)
    assert set(done.stdout.decode().split()) == {
        "plain,demo",
        "plain,devices",
        "plain,digest",
        "plain,doctor",
    }


def test_an_empty_call_shows_the_help(capsys: pytest.CaptureFixture[str]) -> None:
    """`vram` alone is a question, not a mistake."""
    assert main([]) == ExitCode.DONE
    assert "Commands:" in capsys.readouterr().out


def test_errors_of_the_tree_are_all_in_the_table() -> None:
    """No leaf is forgotten above."""
    assert set(CODES) == set(LEAVES)
    assert all(issubclass(leaf, VramError) for leaf in LEAVES.values())


def test_the_document_of_a_hostile_text_is_pure_ascii(capsys: pytest.CaptureFixture[str]) -> None:
    """No escape sequence reaches a terminal through JSON either."""
    output.document({"name": "\x1b[2J\u202e\udcff"})
    printed = capsys.readouterr().out
    assert printed.isascii()
    assert "\x1b" not in printed


def test_control_c_ends_a_real_process_in_two_lines() -> None:
    """SIGINT, as the terminal sends it."""
    code = (
        "import signal, sys, click\n"
        "from vram_residency.cli.main import cli, main\n"
        "@cli.command()\n"
        "def wait():\n"
        "    print('ready', flush=True)\n"
        "    signal.pause()\n"
        "sys.exit(main(['wait']))\n"
    )
    command = [sys.executable, "-c", code]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        process.send_signal(signal.SIGINT)
        _, stderr = process.communicate(timeout=60)
    assert process.returncode == ExitCode.INTERRUPTED
    assert stderr.decode().splitlines() == ["vram: error: interrupted", "hint: Run it again when ready."]


@pytest.mark.parametrize(("words", "nearest"), [(["dmeo"], "demo"), (["audit", "verfy"], "verify")])
def test_a_mistyped_command_names_the_nearest(
    words: list[str], nearest: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Two lines, like every error."""
    assert main(words) == 2
    error, hint = capsys.readouterr().err.splitlines()
    assert error == f"vram: error: there is no command '{words[-1]}'. Did you mean '{nearest}'?"
    assert hint.startswith("hint: Run `vram")


def test_a_group_alone_shows_its_help(capsys: pytest.CaptureFixture[str]) -> None:
    """As `vram` alone does: it is no error to ask what there is."""
    assert main(["audit"]) == 0
    captured = capsys.readouterr()
    assert "Commands:" in captured.out
    assert captured.err == ""


def _helps(command: click.Command, path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    yield path
    if isinstance(command, click.Group):
        context = click.Context(command)
        for name in command.list_commands(context):
            if (found := command.get_command(context, name)) is not None:
                yield from _helps(found, (*path, name))


@pytest.mark.parametrize("words", list(_helps(cli)), ids=" ".join)
def test_every_help_fits_a_terminal(
    words: tuple[str, ...], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """80 columns are what everybody has."""
    monkeypatch.setenv("COLUMNS", "80")
    assert main([*words, "--help"]) == 0
    assert [line for line in capsys.readouterr().out.splitlines() if len(line) > 80] == []
