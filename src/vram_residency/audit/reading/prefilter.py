"""Finding the lines that may match a query without parsing the others.

A value that stands in a line without any backslash stands there byte for byte, between its quotes. So in a
block of lines without a backslash only those can match that hold the bytes asked for. Blocks with one are
parsed in full.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable
from typing import Final

_MUST_BE_ESCAPED = re.compile(r'["\\\x00-\x1f]')
_TIMESTAMP = re.compile(
    rb'\{"index":[0-9]+,"timestamp":"([0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}\.[0-9]{6}Z)",'
)
_TIMESTAMP_BYTES: Final = 27


class Prefilter:
    """Chooses lines by bytes; what it leaves out can match no filter."""

    def __init__(self, words: Iterable[Collection[str]], *, since: str | None, until: str | None) -> None:
        """Of each group in ``words`` one must be a value in the line; times have the form of an entry's."""
        self._groups = [
            [
                f'"{word}"'.encode("utf-8", "surrogatepass")
                for word in group
                if not _MUST_BE_ESCAPED.search(word)
            ]
            for group in words
        ]
        self._since = _comparable(since)
        self._until = _comparable(until)

    def candidates(self, block: bytes) -> Iterable[bytes]:
        """Lines (without newline) of a block of whole lines, in order: all that match, and perhaps others."""
        if b"\\" in block:
            return block.split(b"\n")[:-1]
        if not self._groups:
            return filter(self._may_be_in_time, block.split(b"\n")[:-1])
        first, *others = self._groups
        return (
            line
            for line in _lines_with(block, first)
            if all(any(word in line for word in group) for group in others) and self._may_be_in_time(line)
        )

    def _may_be_in_time(self, line: bytes) -> bool:
        if self._since is None and self._until is None:
            return True
        found = _TIMESTAMP.match(line)
        # A name that comes twice is no entry's; the last would count.
        if found is None or line.count(b'"timestamp"') != 1:
            return True
        return (self._since is None or found[1] >= self._since) and (
            self._until is None or found[1] < self._until
        )


def _comparable(timestamp: str | None) -> bytes | None:
    """The text of a time, where texts are in the order of times."""
    encoded = None if timestamp is None else timestamp.encode("ascii")
    return encoded if encoded is None or len(encoded) == _TIMESTAMP_BYTES else None


def _lines_with(block: bytes, words: Iterable[bytes]) -> Iterable[bytes]:
    spans: dict[int, int] = {}
    for word in words:
        at = block.find(word)
        while at >= 0:
            end = block.index(b"\n", at)
            spans[block.rfind(b"\n", 0, at) + 1] = end
            at = block.find(word, end + 1)
    return (block[start : spans[start]] for start in sorted(spans))
