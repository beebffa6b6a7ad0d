"""Fuzz ``vram audit verify``, ``report`` and ``proof`` as users meet them: malformed logs and keys.

Whatever it is given, it prints a verdict, or one line of error and one of hint; the exit code is the one that
the command line promises; there is never a traceback. The same seed makes the same changes.

    python fuzz/fuzz_audit_cli.py --runs 2000 --seed 7
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import os
import random
import sys
import tempfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from tests.independent_log import SEGMENT, LogMaker, make_log

from vram_residency.audit.reading.verdict import EXIT_CODES
from vram_residency.cli.main import main as vram

_SCRAPS = (
    b"",
    b"\n",
    b"\x00",
    b"\xff\xfe",
    b"{}",
    b"[" * 3000,
    b"9" * 400,
    b"x" * 70_000,
    b'"\\ud800"',
    "\u2014 ".encode(),
    b"PRIVATE+KEY+",
    b"+",
    b"%s%n",
    b"\x1b[2J",
    b"../..",
)


class Case:
    """A sound log with its keys, about to be spoilt; ``options`` go to the command."""

    def __init__(self, chance: random.Random, folder: Path) -> None:
        self.chance = chance
        self.maker: LogMaker = make_log(seals=chance.randrange(4))
        self.directory = self.maker.write(folder / "log")
        self.mac_key_file = folder / "K0"
        self.mac_key_file.write_text(self.maker.k0.hex())
        self.mac_key_file.chmod(0o600)
        self.checkpoint = folder / "kept"
        self.checkpoint.write_bytes(self.maker.checkpoint(1))
        self.vkey = self.maker.vkey

    def options(self) -> list[str]:
        """Any of the ways to name keys."""
        chosen = {
            "--vkey": self.vkey,
            "--mac-key-file": str(self.mac_key_file),
            "--checkpoint": str(self.checkpoint),
            "--keys": str(self.directory.parent / self.chance.choice(("keys", "log", "K0"))),
        }
        names = [name for name in chosen if self.chance.random() < (0.1 if name == "--keys" else 0.6)]
        return [word for name in names for word in (name, chosen[name])]

    def files(self) -> list[Path]:
        """All that can be spoilt."""
        segment = self.directory / "entries" / SEGMENT
        named = [self.directory / "log.json", self.directory / "checkpoint", segment]
        return [*named, segment, self.mac_key_file, self.checkpoint]


def _spoil_bytes(case: Case) -> None:
    path = case.chance.choice(case.files())
    data = bytearray(path.read_bytes())
    start = case.chance.randrange(len(data))
    match case.chance.randrange(4):
        case 0:
            data[start] ^= 1 << case.chance.randrange(8)
        case 1:
            del data[start:]
        case _:
            data[start : start + case.chance.randrange(60)] = case.chance.choice(_SCRAPS)
    path.write_bytes(data)


def _spoil_json(case: Case) -> None:
    path = case.directory / "log.json"
    config = json.loads(path.read_bytes())
    name = case.chance.choice(sorted(config))
    config[name] = case.chance.choice([None, -1, 2**70, 1e300, "", "x" * 300, [], [1], {}, "\ud83d"])
    path.write_text(json.dumps(config))


def _spoil_kind(case: Case) -> None:
    """A file becomes something else."""
    path = case.chance.choice([*case.files(), case.directory / "entries"])
    if path.is_dir():
        for inner in path.iterdir():
            inner.unlink()
        path.rmdir()
    else:
        path.unlink()
    match case.chance.randrange(5):
        case 0:
            path.mkdir()
        case 1:
            os.mkfifo(path)
        case 2:
            path.symlink_to(case.chance.choice(("/dev/null", "nowhere", path.name)))
        case _:
            pass


def _spoil_vkey(case: Case) -> None:
    parts = case.vkey.split("+")
    position = case.chance.randrange(len(parts))
    parts[position] = case.chance.choice(
        ("", "x", "00000000", "Zg==", "é\u202e", parts[position][:-1], "+" * 9)
    )
    case.vkey = "+".join(parts)


def _spoil_names(case: Case) -> None:
    """Segments that are not ours, or stand at another index."""
    name = case.chance.choice(
        (f"{5:020}.jsonl", f"{2**63:020}.jsonl", "x.jsonl", f"{1:020}.jsonl", ".hidden")
    )
    (case.directory / "entries" / name).write_bytes(case.chance.choice(_SCRAPS))


def _spoil_entry(case: Case) -> None:
    """A strange line with a right mac: what a broken or hostile writer could make."""
    body = bytearray(case.chance.choice(case.maker.lines)[:-74])
    start = case.chance.randrange(len(body))
    body[start : start + case.chance.randrange(20)] = case.chance.choice(_SCRAPS).replace(b"\n", b" ")
    case.maker.append_body(bytes(body))
    lines = b"".join(line + b"\n" for line in case.maker.lines)
    (case.directory / "entries" / SEGMENT).write_bytes(lines)


_SPOILERS: tuple[Callable[[Case], None], ...] = (
    _spoil_bytes,
    _spoil_bytes,
    _spoil_bytes,
    _spoil_json,
    _spoil_kind,
    _spoil_vkey,
    _spoil_names,
    _spoil_entry,
)


def run_one(chance: random.Random, folder: Path) -> str:
    """One spoilt log; the verdict, or the code of the error. AssertionError where a promise is broken."""
    case = Case(chance, folder)
    chance.choice(_SPOILERS)(case)
    with_json = bool(chance.getrandbits(1))
    options = case.options()
    words = ["audit", "verify", str(case.directory), *options, *(["--json"] if with_json else [])]
    exit_code, found, told = _run(words)
    answer = _answer_of_json(found, exit_code) if with_json else _answer_of_text(found, told, exit_code)
    _report(case, options, exit_code, has_verdict=answer in EXIT_CODES)
    _bundle(case)
    return answer


def _run(words: list[str]) -> tuple[int, str, str]:
    """Exit code, stdout and stderr, without a traceback and without escape sequences."""
    stdout, stderr = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(stdout), contextlib.redirect_stderr(stderr):
        exit_code = vram(words)
    found, told = stdout.getvalue(), stderr.getvalue()
    if "Traceback" in found + told or "error: unexpected" in told or "\x1b" in found + told:
        raise AssertionError(f"{words} {exit_code} {found!r} {told!r}")
    return exit_code, found, told


def _report(case: Case, options: list[str], exit_code: int, *, has_verdict: bool) -> None:
    """A report ends as the verification does; a log that does not verify gives no evidence."""
    target = case.directory.parent / "report"
    standard = case.chance.choice(("soc2", "iso27001", "gdpr", "ai-act"))
    words = ["audit", "report", str(case.directory), "--standard", standard, *options]
    code, _, told = _run([*words, "--format", "json", "--output", str(target)])
    if code != exit_code or target.exists() != has_verdict:
        raise AssertionError((code, exit_code, told))
    if has_verdict and code and json.loads(target.read_bytes())["summary"]["evidence available"]:
        raise AssertionError("evidence from a log that does not verify")


def _bundle(case: Case) -> None:
    """A bundle is made whole and consistent, or not at all."""
    target = case.directory.parent / "bundle"
    subject = case.chance.choice(("1", "shard-0"))
    code, _, told = _run(["proof", "export", subject, str(target), "--audit", str(case.directory)])
    if code not in {0, 1, 2, 5} or target.exists() != (code == 0):
        raise AssertionError((code, told))
    if code == 0 and _run(["proof", "verify", str(target)])[0] != EXIT_CODES["unverifiable"]:
        raise AssertionError("a bundle that contradicts itself")


def _answer_of_json(found: str, exit_code: int) -> str:
    document = json.loads(found)
    if "error" in document:
        if exit_code not in {2, 5} or not document["error"]["hint"]:
            raise AssertionError((exit_code, document))
        return str(document["error"]["code"])
    if EXIT_CODES[document["verdict"]] != exit_code:
        raise AssertionError((exit_code, document))
    return str(document["verdict"])


def _answer_of_text(found: str, told: str, exit_code: int) -> str:
    if found:
        word = found.split(maxsplit=1)[0].lower()
        if EXIT_CODES[word] != exit_code:  # type: ignore[index]
            raise AssertionError((exit_code, found))
        return word
    lines = [line for line in told.splitlines() if not line.startswith("vram: warning:")]
    begins = [line.partition(": ")[0] for line in lines]
    if begins != ["vram", "hint"] or not lines[0].startswith("vram: error: ") or exit_code not in {2, 5}:
        raise AssertionError((exit_code, told))
    return f"exit code {exit_code}"


def main() -> None:
    """Run until ``--runs`` are done; any exception is a find, and the seed names it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    answers: Counter[str] = Counter()
    for number in range(arguments.runs):
        with tempfile.TemporaryDirectory() as folder:
            try:
                answers[run_one(random.Random(arguments.seed + number), Path(folder))] += 1
            except BaseException:
                print(f"seed {arguments.seed + number}")
                raise
    print(", ".join(f"{word} {count}" for word, count in sorted(answers.items())))


if __name__ == "__main__":
    main()
