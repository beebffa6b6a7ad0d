"""The entry point of ``vram``: finds the command, and turns every way to fail into two lines and a code."""

from __future__ import annotations

import os
import sys
import warnings
from collections.abc import Sequence

import click

from vram_residency.cli import output
from vram_residency.cli.errors import ExitCode, describe, traceback_lines, wants
from vram_residency.cli.lazy import LazyGroup
from vram_residency.core.version import __version__

#: Command → (module, the first line of its docstring): the list in `vram --help` imports none of them.
COMMANDS = {
    "demo": ("vram_residency.cli.demo", "The whole story on a real model, in under a minute."),
    "devices": ("vram_residency.cli.devices", "Show the devices, their capacity and the policy's verdict."),
    "digest": ("vram_residency.cli.digest", "Print the digest of files, as b3sum does."),
    "check": ("vram_residency.cli.check", "Load a model, seal it, verify it, report, free it."),
    "seal": ("vram_residency.cli.seal", "Have the running worker load a model and seal it."),
    "ls": ("vram_residency.cli.shards", "List the shards of the running worker."),
    "show": ("vram_residency.cli.shards", "Show all that the worker says of one shard."),
    "verify": ("vram_residency.cli.verify", "Have the worker verify a shard, or all of them, now."),
    "free": ("vram_residency.cli.shards", "Have the worker wipe and free one shard."),
    "status": ("vram_residency.cli.status", "Show the state of the running worker."),
    "attest": ("vram_residency.cli.attest", "Have the worker verify a shard now and sign that."),
    "serve": ("vram_residency.cli.serve", "Run the worker daemon; SIGTERM drains it."),
    "doctor": (
        "vram_residency.cli.doctor",
        "Say what on this host is weaker than it could be, and how to mend it.",
    ),
    "top": (
        "vram_residency.cli.top",
        "Watch the running worker: room, shards, last verification, events.",
    ),
    "audit": ("vram_residency.cli.audit", "Make, fill, verify and read audit logs."),
    "proof": (
        "vram_residency.cli.proof",
        "Make and check proof bundles: entries, proofs, a page for the auditor.",
    ),
}
_COMPLETION_VARIABLE = "_VRAM_COMPLETE"


@click.group(
    cls=LazyGroup,
    table=COMMANDS,
    invoke_without_command=True,
    context_settings={"help_option_names": ["-h", "--help"]},
)
@click.version_option(__version__, "-V", "--version", prog_name="vram", message="%(prog)s %(version)s")
@click.option("--debug", is_flag=True, expose_value=False, help="Show the traceback where a command fails.")
@click.pass_context
def cli(context: click.Context) -> None:
    """Are the weights in this device's memory exactly the ones you approved, and can you prove it?

    \b
    Examples:
      vram demo
      vram check model.safetensors --expect blake3:…
      vram audit verify ./audit

    \b
    Exit codes: 0 done, the answer is yes · 1 the answer is no
                2 usage or invalid input · 3 refused by policy
                4 no room, try later · 5 cannot say · 130 interrupted
    """
    if context.invoked_subcommand is None:
        output.line(context.get_help())


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the program and return its exit code; nothing is raised, no traceback is shown unasked."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    output.prepare_streams()
    with warnings.catch_warnings():
        warnings.showwarning = _show_warning
        try:
            code = _run(words)
            sys.stdout.flush()
        except BaseException as error:  # noqa: BLE001 - the last fence: whatever comes, a code goes out
            code = _fail(error, words)
    return code


def _run(words: list[str]) -> int:
    if instruction := os.environ.get(_COMPLETION_VARIABLE):
        from click.shell_completion import shell_complete

        return shell_complete(cli, {}, "vram", _COMPLETION_VARIABLE, instruction)
    try:
        with cli.make_context("vram", words) as context:
            return int(cli.invoke(context) or ExitCode.DONE)
    except click.exceptions.Exit as leaving:
        return leaving.exit_code


def _fail(error: BaseException, words: list[str]) -> int:
    if isinstance(error, BrokenPipeError):
        output.abandon_stdout()  # the reader left, as `head` does: there is nobody to tell
        return ExitCode.CANNOT_SAY
    report = describe(error)
    try:
        if wants("--debug", words):
            for line in traceback_lines(error):
                output.note(line)
        if wants("--json", words):
            output.document(report.document())
        else:
            output.note(f"vram: error: {report.message}\nhint: {report.hint}")
        sys.stdout.flush()
    except OSError:
        output.abandon_stdout()
    return report.exit_code


def _show_warning(message: Warning | str, *_place: object, **_more: object) -> None:
    output.note(f"vram: warning: {output.safe(str(message))}")


if __name__ == "__main__":
    sys.exit(main())
