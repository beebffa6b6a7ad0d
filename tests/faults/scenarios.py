"""What a log lives through while faults strike: a scenario is a function that drives a Stage.

``begin`` makes the folder that the scenario starts from, once, without faults. Each scenario opens its log,
ends with it closed, and takes few calls: every one of them is a place to strike.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from tests.audit_logs import SERVICE, ManualClock, make_log, sealed
from tests.faults.stage import Record, Stage

from vram_residency.audit.pruning import Retention, prune
from vram_residency.audit.writing.archiving import archive_log
from vram_residency.audit.writing.creation import create_log
from vram_residency.core.errors import AuditWriteError, ConfigurationError, VramError

#: What a killed writer left: the first in a segment, the second in the journal.
INHERITED = ("inherited-0", "inherited-1")
_DAY_S = 86_400
#: Small: the whole journal is looked at again and again.
SMALL = {"capacity": 4, "reserved": 2, "max_events": 3}


def _new_log(folder: Path) -> None:
    make_log(folder, clock=ManualClock())


def _no_log(folder: Path) -> None:
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)


def _killed_log(folder: Path) -> None:
    """A writer died: its journal holds an event, and its last line is torn."""
    _new_log(folder)
    stage = Stage(folder, Record(bytearray(Record.BYTES)), **SMALL)
    stage.open()
    for name in INHERITED:
        stage.logger.flush()
        stage.logger.emit(sealed(shard_id=name))
    stage.die()
    segment = max((folder / "log" / "entries").glob("*.jsonl"))
    with segment.open("ab") as file:
        file.write(b'{"index":2,"timestamp":"2025-')


def _old_log(folder: Path) -> None:
    """Three days, a segment each, closed every evening; of the last one something is to be kept."""
    _new_log(folder)
    stage = Stage(folder, Record(bytearray(Record.BYTES)), **SMALL)
    for name in ("old-0", "old-1", INHERITED[0]):
        stage.open()
        stage.logger.emit(sealed(shard_id=name))
        stage.close()
        stage.clock.step(_DAY_S)


def ordinary(stage: Stage) -> None:
    """Events, flushes, durable events, a close, and all of it again."""
    for _ in range(2):
        stage.open()
        stage.emit()
        stage.flush()
        stage.emit()
        stage.emit_durable()
        stage.wait(2)
        stage.emit()
        stage.close()


def epochs(stage: Stage) -> None:
    """Epochs end with and without events waiting, and the keys turn."""
    stage.open()
    stage.emit()
    stage.wait(901)
    stage.emit()
    stage.flush()
    stage.wait(901)
    stage.emit()
    stage.close()


def overflow(stage: Stage) -> None:
    """More events than the buffer holds: the losses are told of."""
    stage.open()
    for _ in range(SMALL["capacity"] + SMALL["reserved"] + 2):
        stage.emit()
    stage.flush()
    stage.emit()
    stage.wait(2)
    stage.close()


def rotation(stage: Stage) -> None:
    """Segments end by size, between events and with events waiting, and the log is opened again."""
    stage.open(rotate_bytes=1500)
    for _ in range(3):
        stage.emit()
        stage.emit()
        stage.flush()
    stage.emit_durable()
    stage.close()
    stage.open()
    stage.emit()
    stage.emit()
    stage.flush()
    stage.emit()
    stage.close()


def midnight(stage: Stage) -> None:
    """A segment ends at midnight UTC, without an event and with one."""
    stage.clock.step(15 * 3600 + 6 * 60)
    stage.open()
    stage.emit_durable()
    stage.wait(60)
    stage.emit()
    stage.wait(2)
    stage.emit_durable()
    stage.close()


def archive(stage: Stage) -> None:
    """Closed segments are compressed, and the log goes on."""
    stage.open(rotate_bytes=700)
    for _ in range(3):
        stage.emit()
        stage.emit()
        stage.flush()
    stage.close()
    stage.attempt(
        lambda: archive_log(stage.folder / "log", archive_after_s=0, options=stage.options),
        VramError,
    )
    stage.open()
    stage.emit()
    stage.close()


def pruning(stage: Stage) -> None:
    """Old segments are removed under a retention policy, and the log goes on."""
    stage.clock.step(3 * _DAY_S)
    checkpoint = (stage.folder / "log" / "checkpoint").read_bytes()
    stage.attempt(
        lambda: prune(
            stage.folder / "log",
            Retention(older_than="36h", text="36 hours, for this test"),
            checkpoint=checkpoint,
            keys=stage.folder / "keys",
            options=stage.options,
        ),
        VramError,
    )
    stage.open()
    stage.emit_durable()
    stage.close()


def key_rotation(stage: Stage) -> None:
    """A new log key follows the old one, with events waiting, and then another."""
    stage.open()
    stage.emit()
    stage.rotate_key()
    stage.emit_durable()
    stage.close()
    stage.open()
    stage.rotate_key()
    stage.emit()
    stage.close()


def recovery(stage: Stage) -> None:
    """What a killed writer left is taken up: torn bytes, and events in the journal."""
    stage.open()
    stage.emit()
    stage.flush()
    stage.die()
    stage.open()
    stage.emit_durable()
    stage.emit()
    stage.die()
    stage.open()
    stage.close()


def resized(stage: Stage) -> None:
    """A journal of another size takes the place of one that holds events."""
    stage.open()
    stage.emit()
    stage.die()
    stage.open(capacity=6)
    stage.emit()
    stage.close()


def creation(stage: Stage) -> None:
    """Log and keys are made, in folders that are not there yet, and opened."""
    folder = stage.folder

    def create() -> None:
        try:
            create_log(
                folder / "log",
                service_id=SERVICE,
                keys=folder / "keys",
                keep_genesis=True,
                options=stage.options,
            )
        except ConfigurationError:
            # Keys of a log that was never finished: as the hint says, they can be removed.
            if not (folder / "log" / "log.json").exists():
                _put_aside(folder / "keys")
            raise AuditWriteError(str(folder), "create", "asked again") from None

    stage.attempt(create)
    stage.open()
    stage.emit_durable()
    stage.close()


def _put_aside(keys: Path) -> None:
    keys.rename(keys.with_name(f"unused-{len(os.listdir(keys.parent))}"))


class Scenario(NamedTuple):
    """``options`` are those of the log in all its openings.

    ``may_lack_log``: a fault may strike before there is one. ``inherited``: events of before that must be
    kept, too. ``may_be_pruned``: others of before may be gone.
    """

    drive: Callable[[Stage], None]
    begin: Callable[[Path], None] = _new_log
    options: dict[str, int] = SMALL
    may_lack_log: bool = False
    inherited: tuple[str, ...] = ()
    may_be_pruned: bool = False

    @property
    def name(self) -> str:
        return self.drive.__name__

    @property
    def says(self) -> str:
        """In one sentence."""
        return (self.drive.__doc__ or "").strip().removesuffix(".")


SCENARIOS: dict[str, Scenario] = {
    scenario.name: scenario
    for scenario in (
        Scenario(ordinary),
        Scenario(epochs),
        Scenario(overflow),
        Scenario(rotation),
        Scenario(midnight),
        Scenario(archive),
        Scenario(pruning, begin=_old_log, inherited=INHERITED[:1], may_be_pruned=True),
        Scenario(key_rotation),
        Scenario(recovery, begin=_killed_log, inherited=INHERITED),
        Scenario(resized),
        Scenario(creation, begin=_no_log, may_lack_log=True),
    )
}
