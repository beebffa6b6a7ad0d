"""A log of one segment a day, as retention finds it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tests.audit_logs import ManualClock, copy_tree, open_log, sealed
from tests.independent_log import check

from vram_residency.audit import verify
from vram_residency.audit.pruning import Removed, Retention, prune
from vram_residency.audit.writing.options import LogOptions

DAY_S = 86_400
#: An hour into the sixth day the segments of the first two are over three days old.
RETENTION = Retention(older_than="3d", text="house rule 7")
POLICY = "older than 3d: house rule 7"


class Lab:
    """A log of one segment a day over five days; ``checkpoint`` was kept elsewhere at their end."""

    def __init__(self, folder: Path, clock: ManualClock | None = None) -> None:
        """``clock`` is that of a log that is there already."""
        self.folder = folder
        self.directory = folder / "log"
        self.clock = clock or ManualClock()
        for day in range(5):
            self.write_day(day)
        self.clock.advance(3600)
        self.checkpoint = (self.directory / "checkpoint").read_bytes()
        config = json.loads((self.directory / "log.json").read_bytes())
        self.vkey = config["vkeys"][0]
        self.k0 = bytes.fromhex((folder / "keys" / "genesis.key").read_text())
        self.all_lines = self.lines()
        self.starts = self.first_indexes()

    @classmethod
    def copy(cls, other: Lab, folder: Path) -> Lab:
        lab = cls.__new__(cls)
        lab.__dict__.update(other.__dict__)
        lab.folder = copy_tree(other.folder, folder)
        lab.directory = folder / "log"
        lab.clock = ManualClock()
        lab.clock.wall_ns = other.clock.wall_ns
        return lab

    def write_day(self, day: int) -> None:
        with open_log(self.folder, clock=self.clock) as logger:
            for number in range(3):
                logger.emit(sealed(10 * day + number))
            logger.flush()
        self.clock.advance(DAY_S)

    def prune(self, **more: Any) -> Removed:
        given: dict[str, Any] = {"checkpoint": self.checkpoint, "keys": self.folder / "keys"} | more
        log = given.pop("log", self.directory)
        retention = given.pop("retention", RETENTION)
        given.setdefault("options", LogOptions(clock=self.clock))
        return prune(log, retention, **given)

    def first_indexes(self) -> list[int]:
        return [int(path.name[:20]) for path in sorted((self.directory / "entries").iterdir())]

    def lines(self) -> list[bytes]:
        paths = sorted((self.directory / "entries").iterdir())
        return [line for path in paths for line in path.read_bytes().splitlines()]

    def verdict(self, **keys: Any) -> str:
        found = verify(self.directory, **(keys or {"keys": self.folder / "keys"}))
        return found.verdict if found.first_bad is None else f"{found.verdict}: {found.first_bad}"

    def require(self, word: str) -> None:
        """All who hold a key agree."""
        assert self.verdict() == word
        assert self.verdict(vkey=self.vkey) == word
        assert self.verdict(mac_key=self.k0) == word
        assert self.verdict(vkey=self.vkey, mac_key=self.k0, checkpoint=self.checkpoint) == word
        check(self.directory, k0=self.k0, vkey=self.vkey)
