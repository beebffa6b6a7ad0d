"""From the lines of a log to records in one format (spec: cli.md, ``vram audit export``).

Flat in memory: nothing but the entries at hand are kept, whatever the length of the log.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Final, NamedTuple

from vram_residency.audit.exporting import cef, cloudevent, csv_rows, jsonl, ocsf, otlp, rfc5424
from vram_residency.audit.exporting.record import Record, record_of
from vram_residency.audit.format import note
from vram_residency.audit.format.checkpoint import Checkpoint
from vram_residency.audit.format.entry import EntryFormatError
from vram_residency.audit.reading import source as reading
from vram_residency.audit.store.directory import Directory


class Format(NamedTuple):
    """A format that is a stream: what comes first, and the bytes of one record."""

    encode: Callable[[Record], bytes]
    header: bytes = b""


#: The formats of streams by their names; Parquet is none, since it is written from its end.
FORMATS: Final[Mapping[str, Format]] = {
    "jsonl": Format(jsonl.encode),
    "ocsf": Format(ocsf.encode),
    "cloudevents": Format(cloudevent.encode),
    "syslog": Format(rfc5424.encode),
    "cef": Format(cef.encode),
    "otlp-json": Format(otlp.encode),
    "csv": Format(csv_rows.encode, csv_rows.HEADER),
}


class Export:
    """The records of lines (without newline), counted.

    ``exported`` and ``left_out`` grow while ``records`` is read. Left out are lines that are no entry: they
    could say different things to different readers. With ``end`` no entry from that index on is taken.
    """

    def __init__(self, origin: str, lines: Iterable[bytes], *, end: int | None = None) -> None:
        self.origin: Final = origin
        self.exported = 0
        self.left_out = 0
        #: Called with the index of each record, for progress.
        self.on_record: Callable[[int], None] | None = None
        self._lines = lines
        self._end = end

    def records(self) -> Iterator[Record]:
        """Each entry's record, in the order of the lines."""
        for line in self._lines:
            try:
                record = record_of(self.origin, line)
            except EntryFormatError:
                self.left_out += 1
                continue
            if self._end is not None and record.index >= self._end:
                return
            self.exported += 1
            if self.on_record is not None:
                self.on_record(record.index)
            yield record

    def encoded(self, name: str) -> Iterator[bytes]:
        """The records in a format of FORMATS, each whole; first its header, if it has one."""
        chosen = FORMATS[name]
        if chosen.header:
            yield chosen.header
        yield from map(chosen.encode, self.records())


@contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """Give a path to write to (mode 0600); what was written stands under ``path`` only if nothing failed."""
    partial = path.with_name(f"{path.name}.partial")
    partial.unlink(missing_ok=True)  # left by a crash
    try:
        os.close(os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600))
    except OSError as error:  # named as the caller did
        raise OSError(error.errno, error.strerror, str(path)) from error
    try:
        yield partial
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def unverified_size(directory: Directory) -> int:
    """How many entries the newest checkpoint claims, for a progress bar; 0 where it does not say."""
    try:
        text, _ = note.split(reading.read_small(directory.checkpoint))
        return Checkpoint.parse(text).size
    except (OSError, ValueError):
        return 0
