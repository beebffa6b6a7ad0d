"""What must hold after a fault, whatever it was: audit-log.md section 4, checked from outside."""

from __future__ import annotations

import json
import os
from contextlib import suppress
from pathlib import Path
from typing import Any

import zstandard
from tests import independent_log
from tests.audit_logs import SERVICE, reference_check, sealed
from tests.faults.scenarios import SCENARIOS, Scenario
from tests.faults.stage import Told, Word

from vram_residency.audit.log import AuditLogger
from vram_residency.audit.reading.verification import verify
from vram_residency.audit.writing.options import LogOptions

_AFTERWARDS = "afterwards"


def check(
    folder: Path, told: Told, scenario: Scenario = SCENARIOS["ordinary"], *, is_power_lost: bool = False
) -> None:
    """Open the log again, write, close; then every promise. AssertionError where one is broken."""
    reopen(folder)
    entries = read_intact(folder, may_be_pruned=scenario.may_be_pruned)
    names = [entry["shard_id"] for entry in entries if "shard_id" in entry]
    assert names[-1] == _AFTERWARDS, "the log does not go on"
    inherited = [name for name in names if name in scenario.inherited]
    assert inherited == list(scenario.inherited), f"lost or doubled: {inherited}"
    numbers = [int(name.removeprefix("event-")) for name in names if name.startswith("event-")]
    assert len(numbers) == len(set(numbers)), f"an event stands twice: {numbers}"
    assert numbers == sorted(numbers), f"events out of order: {numbers}"
    kept = (Word.DURABLE,) if is_power_lost else (Word.ACCEPTED, Word.DURABLE)
    lost = set(told.numbers(*kept)) - set(numbers)
    assert not lost, f"lost although acknowledged: {sorted(lost)}"
    refused = told.numbers(Word.REFUSED)
    assert not set(refused) & set(numbers), "an event was refused and stands in the log"
    if not is_power_lost:
        dropped = sum(entry["count"] for entry in entries if entry["event_type"] == "events_dropped")
        assert dropped == len(refused), f"{len(refused)} events were refused, the log tells of {dropped}"
    _check_receipts(folder, told)


def reopen(folder: Path) -> None:
    """As the next process would: open, write, close, and leave no descriptor open."""
    before = open_descriptors(folder)
    logger = AuditLogger.open(
        folder / "log",
        service_id=SERVICE,
        keys=folder / "keys",
        options=LogOptions(background=False, free_bytes_min=0, capacity=4, reserved=2),
    )
    logger.emit(sealed(shard_id=_AFTERWARDS), durable=True)
    logger.close()
    assert open_descriptors(folder) == before, "descriptors were left open"


def read_intact(folder: Path, *, may_be_pruned: bool = False) -> list[dict[str, Any]]:
    """The entries, after `verify` and a second implementation of the format have called the log intact."""
    verdict = verify(folder / "log", keys=folder / "keys", workers=1)
    good = {"intact", "pruned"} if may_be_pruned else {"intact"}
    assert verdict.verdict in good, f"verify says {verdict.verdict}: {verdict.first_bad}"
    _unpack(folder / "log" / "entries")
    config = json.loads((folder / "log" / "log.json").read_bytes())
    if len(config["vkeys"]) > 1:
        return reference_check(folder)
    k0 = bytes.fromhex((folder / "keys" / "genesis.key").read_text())
    return independent_log.check(folder / "log", k0=k0, vkey=config["vkeys"][0])


def _unpack(entries: Path) -> None:
    """Archives as the segments that they were: the second implementation knows no compression."""
    for path in entries.glob("*.jsonl.zst"):
        plain = zstandard.ZstdDecompressor().decompressobj().decompress(path.read_bytes())
        twin = path.with_suffix("")
        assert not twin.exists() or twin.read_bytes() == plain, "an archive differs from its segment"
        twin.write_bytes(plain)
        path.unlink()


def open_descriptors(folder: Path) -> int:
    """How many descriptors of this process lead into the folder."""
    count = 0
    for link in Path("/proc/self/fd").iterdir():
        with suppress(FileNotFoundError):  # the descriptor of this very listing
            count += os.readlink(link).startswith(str(folder))
    return count


def _check_receipts(folder: Path, told: Told) -> None:
    lines = {
        json.loads(line)["index"]: line
        for path in sorted((folder / "log" / "entries").glob("*.jsonl"))
        for line in path.read_bytes().splitlines()
    }
    for number, (index, leaf_hash) in told.receipts.items():
        assert f'"event-{number}"'.encode() in lines[index], f"the receipt of event {number} names another"
        assert independent_log.leaf_of(lines[index]).hex() == leaf_hash, "a receipt's leaf hash is wrong"
