"""The log's entries as they are, each in an envelope of one line (docs/format/exports.md, jsonl).

What stands between ``,"entry":`` and the last brace is the leaf's data, byte for byte: whoever gets the line
can hash it again.
"""

from __future__ import annotations

from vram_residency.audit.exporting.record import Record


def encode(record: Record) -> bytes:
    """One line of JSON, its newline included."""
    head = f'{{"origin":"{record.origin}","index":{record.index},"leaf_hash":"{record.leaf_hash}"'
    return f'{head},"entry":{record.text}}}\n'.encode()
