"""From an exception to an exit code, one line of error and one line of hint (spec: cli.md)."""

from __future__ import annotations

import errno
import re
from collections.abc import Iterator
from enum import IntEnum
from typing import NamedTuple

import click

from vram_residency.core import errors as core


class ExitCode(IntEnum):
    """What the program answers with (cli.md)."""

    DONE = 0
    NO = 1
    USAGE = 2
    POLICY = 3
    NO_ROOM = 4
    CANNOT_SAY = 5
    INTERRUPTED = 130


#: The nearest ancestor named here decides, so a new error inherits its family's code.
CODES: dict[type[core.VramError], ExitCode] = {
    core.VramError: ExitCode.CANNOT_SAY,
    core.RetriableError: ExitCode.NO_ROOM,
    core.SealVerificationError: ExitCode.NO,
    core.PolicyViolationError: ExitCode.POLICY,
    core.RefusedError: ExitCode.USAGE,
    core.MissingKeyError: ExitCode.CANNOT_SAY,
    core.DigestMismatchError: ExitCode.NO,
    core.NotSealedError: ExitCode.NO,
    core.InvalidEventError: ExitCode.USAGE,
    core.BufferFullError: ExitCode.NO_ROOM,
    core.LogDamagedError: ExitCode.NO,
}

#: What a worker answers over its API: as the same failure in this process; the rest cannot be said.
WORKER_CODES: dict[str, ExitCode] = {
    "INVALID_PARAMS": ExitCode.USAGE,
    "MODEL_REJECTED": ExitCode.USAGE,
    "DIGEST_MISMATCH": ExitCode.NO,
    "SEAL_VERIFICATION_FAILED": ExitCode.NO,
    "POLICY_VIOLATION": ExitCode.POLICY,
    "VRAM_OOM": ExitCode.NO_ROOM,
    "BUSY": ExitCode.NO_ROOM,
}

_BAD_PATH = frozenset(
    {errno.ENOENT, errno.EISDIR, errno.ENOTDIR, errno.ENAMETOOLONG, errno.ELOOP, errno.EINVAL, errno.ENXIO}
)
_DEBUG_HINT = "Run it again with --debug to see the traceback, and please report it."


class Report(NamedTuple):
    """What the user is told: ``code`` names the kind of error in JSON."""

    exit_code: ExitCode
    code: str
    message: str
    hint: str

    def document(self) -> dict[str, dict[str, str]]:
        """The form on stdout with ``--json``."""
        return {"error": {"code": self.code, "message": self.message, "hint": self.hint}}


def describe(error: BaseException) -> Report:
    """The report of any exception. Texts are cleaned: a hostile file name stays on its line."""
    exit_code, code, message, hint = _classify(error)
    return Report(exit_code, code, _one_line(message), _one_line(hint))


def wants(flag: str, arguments: list[str]) -> bool:
    """Whether ``flag`` stands before any ``--``: known even where the arguments do not parse."""
    end = arguments.index("--") if "--" in arguments else len(arguments)
    return flag in arguments[:end]


def traceback_lines(error: BaseException) -> Iterator[str]:
    """The traceback for ``--debug``, line by line and safe for a terminal."""
    import traceback

    for block in traceback.format_exception(error):
        yield from (_one_line(line) for line in block.splitlines())


def _classify(error: BaseException) -> tuple[ExitCode, str, str, str]:
    match error:
        case core.VramError():
            return _exit_code(error), _code(error), str(error), error.hint
        case KeyboardInterrupt() | click.Abort():
            return ExitCode.INTERRUPTED, "interrupted", "interrupted", "Run it again when ready."
        case click.ClickException():
            message = " ".join(error.format_message().split())
            return ExitCode.USAGE, "usage", message, f"Run `{_command_path(error)} --help`."
        case OSError():
            return _classify_os_error(error)
        case MemoryError():
            hint = "Free memory on this machine, or use a smaller model."
            return ExitCode.CANNOT_SAY, "out_of_memory", "the program ran out of memory", hint
    message = f"unexpected {type(error).__name__}: {error}"
    return ExitCode.CANNOT_SAY, "internal", message, _DEBUG_HINT


def _exit_code(error: core.VramError) -> ExitCode:
    if isinstance(error, core.WorkerRefusedError):
        return WORKER_CODES.get(error.code, ExitCode.CANNOT_SAY)
    return next(CODES[family] for family in type(error).__mro__ if family in CODES)


def _code(error: core.VramError) -> str:
    if isinstance(error, core.WorkerRefusedError):
        return error.code.lower()
    return _snake_case(type(error).__name__)


def _classify_os_error(error: OSError) -> tuple[ExitCode, str, str, str]:
    where = "" if error.filename is None else f"{_text(error.filename)}: "
    message = where + (error.strerror or str(error) or type(error).__name__)
    if error.filename is not None and error.errno in _BAD_PATH:
        return ExitCode.USAGE, "bad_path", message, "Check the path."
    return ExitCode.CANNOT_SAY, "io_error", message, "Check permissions, free space and the disk."


def _text(filename: object) -> str:
    return filename.decode("utf-8", "backslashreplace") if isinstance(filename, bytes) else str(filename)


def _command_path(error: click.ClickException) -> str:
    context = getattr(error, "ctx", None)
    return context.command_path if context is not None else "vram"


def _snake_case(class_name: str) -> str:
    return re.sub(r"(?<!^)(?=[A-Z])", "_", class_name.removesuffix("Error")).lower()


def _one_line(text: str) -> str:
    from vram_residency.core.redaction import safe_text

    return safe_text(text)
