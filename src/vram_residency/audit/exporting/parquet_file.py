"""Parquet: the columns of the CSV with types, and each entry as it stands in the log. Needs ``pyarrow``."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from vram_residency.audit.exporting.columns import COLUMNS, NUMBERS, Cell, cells
from vram_residency.audit.exporting.record import LOG_VERSION, Record
from vram_residency.core.errors import ConfigurationError

if TYPE_CHECKING:
    from types import ModuleType

#: A group of rows, which is held in memory at once, ends at so many of them or so many characters.
GROUP_ROWS: Final = 8192
GROUP_CHARACTERS: Final = 1 << 24
_NANOSECONDS_PER_US: Final = 1000
#: Few values, each many times.
_REPEATED: Final = frozenset({"origin", "event_type", "severity", "service_id", "worker_id"})


def write(path: Path, records: Iterable[Record]) -> None:
    """Write all records to ``path``. Raises ConfigurationError where pyarrow is not installed, OSError."""
    arrow, parquet = _libraries()
    schema = _schema(arrow)
    with parquet.ParquetWriter(path, schema, compression="zstd") as writer:
        for group in _groups(records):
            columns = zip(*group, strict=True)
            arrays = [arrow.array(column, field.type) for column, field in zip(columns, schema, strict=True)]
            writer.write_table(arrow.Table.from_arrays(arrays, schema=schema))


def _groups(records: Iterable[Record]) -> Iterator[list[tuple[Cell, ...]]]:
    group: list[tuple[Cell, ...]] = []
    characters = 0
    for record in records:
        group.append(_values(record))
        characters += len(record.text)
        if len(group) >= GROUP_ROWS or characters >= GROUP_CHARACTERS:
            yield group
            group, characters = [], 0
    if group:
        yield group


def _values(record: Record) -> tuple[Cell, ...]:
    place = COLUMNS.index("timestamp")
    row = cells(record)
    return (*row[:place], record.time_ns // _NANOSECONDS_PER_US, *row[place + 1 :])


def _schema(arrow: ModuleType) -> Any:
    kinds = {name: arrow.string() for name in COLUMNS}
    kinds |= {name: arrow.dictionary(arrow.int32(), arrow.string()) for name in _REPEATED}
    kinds |= dict.fromkeys(("index", *sorted(NUMBERS)), arrow.int64())
    kinds["timestamp"] = arrow.timestamp("us", tz="UTC")
    required = {"origin", "index", "leaf_hash", "timestamp", "event_type", "entry"}
    fields = [arrow.field(name, kind, nullable=name not in required) for name, kind in kinds.items()]
    return arrow.schema(fields, metadata={"log_format": LOG_VERSION})


def _libraries() -> tuple[ModuleType, ModuleType]:
    try:
        return import_module("pyarrow"), import_module("pyarrow.parquet")
    except ImportError as error:
        raise ConfigurationError(
            "--format parquet",
            "needs the package pyarrow",
            hint="Install it with `pip install 'vram-residency[parquet]'`, or choose another format.",
        ) from error
