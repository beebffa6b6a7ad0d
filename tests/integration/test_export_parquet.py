"""The log as a Parquet file, read back by pyarrow."""

from __future__ import annotations

import importlib
import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from tests.event_table import EVENTS, OWN_EVENTS, sample
from tests.export_readers import entry_line, leaf_hash
from tests.independent_log import make_log

from vram_residency.audit.exporting import parquet_file
from vram_residency.audit.exporting.columns import COLUMNS
from vram_residency.audit.exporting.export import Export
from vram_residency.cli.main import main

pytestmark = pytest.mark.parquet

ORIGIN = "worker-gpu-0/00112233445566778899aabbccddeeff"


def read(path: Path) -> tuple[Any, list[dict[str, Any]]]:
    """Schema and rows."""
    table = importlib.import_module("pyarrow.parquet").read_table(path)
    return table.schema, table.to_pylist()


def test_every_event_comes_back_in_typed_columns(tmp_path: Path) -> None:
    events = [*EVENTS, *OWN_EVENTS, "acme.model_promoted"]
    lines = [
        entry_line(index, name, sample(name) if name in EVENTS or name in OWN_EVENTS else {"note": "\u2028="})
        for index, name in enumerate(events)
    ]
    target = tmp_path / "audit.parquet"
    parquet_file.write(target, Export(ORIGIN, lines).records())
    schema, rows = read(target)
    assert tuple(schema.names) == COLUMNS
    assert str(schema.field("timestamp").type) == "timestamp[us, tz=UTC]"
    assert [str(schema.field(name).type) for name in ("index", "gpu_device", "vram_bytes")] == ["int64"] * 3
    assert [row["event_type"] for row in rows] == events
    for index, (row, line) in enumerate(zip(rows, lines, strict=True)):
        assert (row["origin"], row["index"]) == (ORIGIN, index)
        assert row["leaf_hash"] == leaf_hash(line.decode())
        assert row["timestamp"] == datetime(2025, 10, 2, 10, 0, 0, 123, tzinfo=UTC)
        assert json.loads(row["entry"]) == json.loads(line)
    sealed = rows[events.index("vram_sealed")]
    assert (sealed["gpu_device"], sealed["vram_bytes"], sealed["severity"]) == (7, 7, "INFORMATIONAL")
    assert sealed["correlation_id"] is None


@pytest.mark.parametrize(("limit", "value"), [("GROUP_ROWS", 100), ("GROUP_CHARACTERS", 30_000)])
def test_many_entries_come_in_groups(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, limit: str, value: int
) -> None:
    """A group is what lies in memory: many entries end it, and so do long ones."""
    monkeypatch.setattr(parquet_file, limit, value)
    lines = (entry_line(index, "vram_sealed", sample("vram_sealed")) for index in range(950))
    target = tmp_path / "audit.parquet"
    parquet_file.write(target, Export(ORIGIN, lines).records())
    found = importlib.import_module("pyarrow.parquet").ParquetFile(target)
    assert found.metadata.num_rows == 950
    assert found.metadata.num_row_groups >= 10


def test_the_command_writes_a_file_and_tells_how_many(tmp_path: Path, capsysbinary: Any) -> None:
    maker = make_log(10)
    directory = maker.write(tmp_path / "log")
    target = tmp_path / "audit.parquet"
    words = ["audit", "export", str(directory), "--format", "parquet", "--output", str(target)]
    assert main([*words, "--event", "vram_sealed"]) == 0
    assert capsysbinary.readouterr().err.startswith(b"10 entries exported, unverified")
    _, rows = read(target)
    assert [row["shard_id"] for row in rows] == [f"shard-{number}" for number in range(10)]
    assert [row["entry"].encode() for row in rows] == [line for line in maker.lines if b"vram_sealed" in line]
    assert main([*words, "--limit", "0"]) == 0
    assert read(target)[1] == []
