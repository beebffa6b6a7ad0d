"""Who scans: this process, or several others that answer over pipes.

The other processes are plain interpreters that run this module, not ``multiprocessing``: that would import
the caller's main module again, and verify() may be called from any program. Jobs and answers are msgpack:
nothing is unpickled. A key reaches a process over its pipe, never in its arguments.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from queue import SimpleQueue
from types import TracebackType
from typing import IO, BinaryIO, Final, Protocol, Self

import msgspec

from vram_residency.audit.reading import source as reading
from vram_residency.audit.reading.scan import Item, ScanJob, scan
from vram_residency.audit.reading.shapes import Shapes

#: Scans in flight for each process: one runs, one waits.
_JOBS_PER_PROCESS: Final = 2
_LENGTH_BYTES: Final = 4
_BLOCK_BYTES: Final = 1 << 20
_BOOT: Final = (
    "import json, sys; sys.path[:] = json.loads(sys.stdin.buffer.readline()); "
    "from vram_residency.audit.reading.scanners import serve; serve()"
)


class Answer(msgspec.Struct, frozen=True):
    """What came of one job: the items of a scan, or the SHA-256 (hex) of a segment; empty if unreadable."""

    items: list[Item] = []
    sha256: str = ""


class HashJob(msgspec.Struct, frozen=True, tag="hash"):
    """The SHA-256 of a whole segment; of an archived one, of what it holds."""

    path: bytes


Job = ScanJob | HashJob
#: Waits for the answer.
Pending = Callable[[], Answer]


class ScannerDiedError(Exception):
    """A process ended before it had answered."""


class Scanners(Protocol):
    """Who takes jobs; ``ahead`` are useful at a time."""

    ahead: int

    def submit(self, job: Job) -> Pending:
        """Give the job away. Waiting for its answer may raise ScannerDiedError."""
        ...


def _sha256(file: BinaryIO) -> str:
    found = hashlib.sha256()
    while block := file.read(_BLOCK_BYTES):
        found.update(block)
    return found.hexdigest()


class LocalScanner:
    """Scans in this process, when the answer is asked for."""

    ahead = 0

    def __init__(self) -> None:
        self._shapes: dict[tuple[str, str], Shapes] = {}

    def submit(self, job: Job) -> Pending:
        """The job is done when its answer is asked for."""
        return lambda: self.answer(job)

    def answer(self, job: Job) -> Answer:
        """Do the job here and now. A file that cannot be read gives an empty answer."""
        try:
            with reading.open_segment(Path(os.fsdecode(job.path))) as file:
                if isinstance(job, HashJob):
                    return Answer(sha256=_sha256(file))
                name = (job.service_id, job.key_id)
                shapes = self._shapes.setdefault(name, Shapes(*name))
                return Answer(items=scan(job, file, shapes))
        except OSError:
            return Answer()


class ScannerProcesses:
    """``count`` processes. To be used in a ``with`` statement, which ends them."""

    def __init__(self, count: int) -> None:
        from concurrent.futures import ThreadPoolExecutor

        self.ahead = count * _JOBS_PER_PROCESS
        self._processes = [_ScannerProcess() for _ in range(count)]
        self._idle: SimpleQueue[_ScannerProcess] = SimpleQueue()
        for process in self._processes:
            self._idle.put(process)
        # One thread waits on each process's pipe.
        self._threads = ThreadPoolExecutor(count, thread_name_prefix="vram-scan")

    def submit(self, job: Job) -> Pending:
        """Give the job to the next process that is free."""
        return self._threads.submit(self._ask, job).result

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for process in self._processes:
            process.kill()
        self._threads.shutdown(cancel_futures=True)
        for process in self._processes:
            process.close()

    def _ask(self, job: Job) -> Answer:
        process = self._idle.get()
        try:
            return process.ask(job)
        finally:
            self._idle.put(process)  # a dead one too: whoever gets it learns that at once


class _ScannerProcess:
    def __init__(self) -> None:
        self._process = subprocess.Popen(  # noqa: S603 - this interpreter, a constant program
            [sys.executable, "-I", "-c", _BOOT],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
        )
        self._is_started = False

    def ask(self, job: Job) -> Answer:
        stdin, stdout = self._process.stdin, self._process.stdout
        if stdin is None or stdout is None:
            raise ScannerDiedError
        try:
            if not self._is_started:
                self._is_started = True
                stdin.write(msgspec.json.encode([path for path in sys.path if path]) + b"\n")
            _write(stdin, msgspec.msgpack.encode(job))
            data = _read(stdout)
        except (OSError, ValueError):  # a broken or a closed pipe
            raise ScannerDiedError from None
        if data is None:
            raise ScannerDiedError
        return msgspec.msgpack.decode(data, type=Answer)

    def kill(self) -> None:
        self._process.kill()

    def close(self) -> None:
        self._process.wait()
        for stream in (self._process.stdin, self._process.stdout):
            if stream is not None:
                with contextlib.suppress(OSError):  # bytes that a dead process never took
                    stream.close()


def serve() -> None:
    """The life of a scanner process: jobs from stdin, answers to stdout, until stdin ends."""
    # Ctrl-C reaches the whole process group; who started this process ends it.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    scanner = LocalScanner()
    jobs: msgspec.msgpack.Decoder[Job] = msgspec.msgpack.Decoder(Job)
    while (data := _read(sys.stdin.buffer)) is not None:
        _write(sys.stdout.buffer, msgspec.msgpack.encode(scanner.answer(jobs.decode(data))))


def _write(stream: IO[bytes], data: bytes) -> None:
    stream.write(len(data).to_bytes(_LENGTH_BYTES, "big") + data)
    stream.flush()


def _read(stream: IO[bytes]) -> bytes | None:
    """One message, or None at the end."""
    head = stream.read(_LENGTH_BYTES)
    if len(head) < _LENGTH_BYTES:
        return None
    size = int.from_bytes(head, "big")
    data = stream.read(size)
    return data if len(data) == size else None
