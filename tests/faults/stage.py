"""What a scenario drives: a log, a clock, and a record of what the caller was told.

The record lies in memory that the test shares with the process that dies, and is written without a system
call: what emit() returned for is known even when the next instruction never ran.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from enum import IntEnum
from pathlib import Path
from typing import Any, Final, NamedTuple, TypeVar

from tests.audit_logs import SERVICE, ManualClock, abandon, sealed

from vram_residency.audit.format.receipt import Receipt
from vram_residency.audit.log import AuditLogger
from vram_residency.audit.store.files import SYSTEM_FILES, Files
from vram_residency.audit.writing.options import LogOptions
from vram_residency.core.errors import AuditWriteError, BufferFullError, VramError

EVENTS_MAX: Final = 64
#: How often a story asks a failing disk again before it gives up, as a service would.
TRIES: Final = 3
_SLOT: Final = struct.Struct("<BQ32s")

T = TypeVar("T")


class Word(IntEnum):
    """What the caller knows of an event."""

    NOTHING = 0
    ON_ITS_WAY = 1
    ACCEPTED = 2
    DURABLE = 3
    REFUSED = 4


class GaveUpError(Exception):
    """The disk failed again and again: the story ends here, as that of a service would."""


class Told(NamedTuple):
    """What was said of each event, in its order; ``receipts`` by number."""

    words: tuple[Word, ...]
    receipts: dict[int, tuple[int, str]]

    def numbers(self, *words: Word) -> list[int]:
        """The events of which one of these was said."""
        return [number for number, word in enumerate(self.words) if word in words]


class Record:
    """Told, in BYTES of memory that may be shared."""

    BYTES: Final = EVENTS_MAX * _SLOT.size

    def __init__(self, memory: Any) -> None:
        self._memory = memory

    def say(self, number: int, word: Word, receipt: Receipt | None = None) -> None:
        """The word last, and alone: a slot is never half said."""
        start = number * _SLOT.size
        if receipt is not None:
            self._memory[start + 1 : start + _SLOT.size] = struct.pack(
                "<Q32s", receipt.index, bytes.fromhex(receipt.leaf_hash)
            )
        self._memory[start] = int(word)

    def read(self) -> Told:
        slots = list(_SLOT.iter_unpack(bytes(self._memory[: self.BYTES])))
        receipts = {number: (index, leaf.hex()) for number, (_, index, leaf) in enumerate(slots) if any(leaf)}
        return Told(tuple(Word(word) for word, _, _ in slots), receipts)


class Stage:
    """The handles of a scenario. Every fault comes out as an AuditWriteError and is asked again."""

    def __init__(self, folder: Path, record: Record, *, files: Files = SYSTEM_FILES, **options: Any) -> None:
        self.folder = folder
        self.record = record
        self.clock = ManualClock()
        self.logger: AuditLogger | None = None
        self.failures = 0
        self._files = files
        self._options = {"background": False, "free_bytes_min": 0} | options
        self._count = 0
        self._unsynced: list[int] = []

    @property
    def options(self) -> LogOptions:
        return LogOptions(files=self._files, clock=self.clock, **self._options)

    def open(self, **options: Any) -> None:
        """Open the log; ``options`` hold from now on."""
        self._options |= options
        self.logger = self.attempt(
            lambda: AuditLogger.open(
                self.folder / "log", service_id=SERVICE, keys=self.folder / "keys", options=self.options
            ),
            VramError,
        )

    def emit(self, **fields: Any) -> int:
        """An event that survives the death of the process from now on; or is refused, and counted."""
        number = self._next()
        try:
            self._logger.emit(sealed(shard_id=f"event-{number}", **fields))
        except BufferFullError:
            self.record.say(number, Word.REFUSED)
        else:
            self._unsynced.append(number)
            self.record.say(number, Word.ACCEPTED)
        return number

    def emit_durable(self) -> None:
        """An event that survives a loss of power once this returns."""
        number = self._next()
        try:
            receipt = self._logger.emit(sealed(shard_id=f"event-{number}"), durable=True)
        except AuditWriteError:
            self.failures += 1
            self._unsynced.append(number)
            self.record.say(number, Word.ACCEPTED)
            self.flush()
        except BufferFullError:
            self.record.say(number, Word.REFUSED)
        else:
            self.record.say(number, Word.DURABLE, receipt)
            self._say_durable()

    def flush(self) -> None:
        self.attempt(self._logger.flush)
        self._say_durable()

    def wait(self, seconds: float) -> None:
        """Time goes by; what is due is done, if the disk lets it."""
        self.clock.advance(seconds)
        self._logger.tick()

    def rotate_key(self) -> None:
        """A new key follows; what was accepted before is durable then."""
        self.attempt(self._logger.rotate_key)
        self._say_durable()

    def close(self) -> None:
        self.attempt(self._logger.close)
        self._say_durable()
        self.logger = None

    def die(self) -> None:
        """What the death of the process does to the log."""
        logger, self.logger = self.logger, None
        if logger is not None:
            abandon(logger)

    def attempt(self, action: Callable[[], T], error: type[VramError] = AuditWriteError) -> T:
        """Do it; after an error again, a few times."""
        for _ in range(TRIES):
            try:
                return action()
            except error:
                self.failures += 1
                self.clock.advance(2)
        raise GaveUpError

    @property
    def _logger(self) -> AuditLogger:
        assert self.logger is not None
        return self.logger

    def _next(self) -> int:
        number, self._count = self._count, self._count + 1
        self.record.say(number, Word.ON_ITS_WAY)
        return number

    def _say_durable(self) -> None:
        for number in self._unsynced:
            self.record.say(number, Word.DURABLE)
        self._unsynced = []
