"""CSV (RFC 4180) that a spreadsheet can open without computing anything.

An apostrophe goes before every character that could begin a formula: at the start of a cell, and after
every character that some reader takes for the start of another one. ``restored`` takes them away again.
"""

from __future__ import annotations

import re
from typing import Final

from vram_residency.audit.exporting.columns import COLUMNS, cells
from vram_residency.audit.exporting.record import Record
from vram_residency.core.text import visible

#: What a formula begins with, in ASCII, in full width and as signs that are folded into those; and the mark.
_DANGEROUS: Final = "=+\\-@|%'\uff1d\uff0b\uff0d\uff20\u207a\u207b\u2212\ufe62\ufe63\ufe66\ufe6b\uff05\uff5c"
#: What may stand before it in a cell without hiding it: spaces and quotes.
_PASSED: Final = '[ \u00a0\u1680\u2000-\u200a\u202f\u205f\u3000"\u201c\u201d]*'
#: Where a cell begins, here or for a reader with another separator.
_START: Final = "(?:^|[,;|\t\r\n\uff0c\uff1b])"
_PLACE = re.compile(f"{_START}{_PASSED}(?=[{_DANGEROUS}])")
_MARKED = re.compile(f"(?P<before>{_START}{_PASSED})'")


def neutralised(text: str) -> str:
    """``text`` as a cell that no reader takes for a formula. Injective."""
    return _PLACE.sub(_mark, visible(text))


def restored(cell: str) -> str:
    """The inverse of ``neutralised`` for texts in which nothing had to be made visible."""
    return _MARKED.sub(r"\g<before>", cell)


def _mark(match: re.Match[str]) -> str:
    return f"{match[0]}'"


def _row(values: tuple[str, ...]) -> bytes:
    quoted = (f'"{value.replace(chr(34), chr(34) * 2)}"' for value in values)
    return f"{','.join(quoted)}\r\n".encode()


#: The first row.
HEADER: Final = _row(COLUMNS)


def encode(record: Record) -> bytes:
    """One row, its line end included; an absent value is an empty cell."""
    return _row(tuple("" if cell is None else neutralised(str(cell)) for cell in cells(record)))
