"""A bounded walk through a header: the only way in which the parsers touch a file."""

from __future__ import annotations

from typing import TYPE_CHECKING

from vram_residency.core.errors import MalformedModelError

if TYPE_CHECKING:
    import re

    from vram_residency.formats.limits import Limits
    from vram_residency.formats.source import ByteSource

_WINDOW_BYTES = 2**20
_SHOWN_CHARACTERS = 80


class Cursor:
    """Reads forward from ``start``, never beyond ``end``, through a window of about 1.5 MiB.

    Whatever a header claims, no more than the window is in memory. ``border`` says in words what lies at
    ``end`` ("the file ends", "the header ends"): it opens the rule of every refusal that hits it.
    """

    def __init__(
        self, source: ByteSource, *, name: str, start: int, end: int, border: str, limits: Limits
    ) -> None:
        self.name = name
        self.border = border
        self.end = end
        self.limits = limits
        # A string of the longest permitted kind, each byte of it escaped (\u00XX), and its surroundings.
        self.lookahead = 8 * limits.string_bytes + 4096
        self._source = source
        self._base = start
        self._window = b""
        self._at = 0
        # Beyond this place the window holds less than the lookahead, though the file has more.
        self._refill_at = -1

    @property
    def offset(self) -> int:
        """Where the next byte lies in the file."""
        return self._base + self._at

    @property
    def remaining(self) -> int:
        """Bytes up to ``end``."""
        return self.end - self.offset

    def refuse(self, rule: str, *, at: int | None = None) -> MalformedModelError:
        """Make the error for a broken rule; ``at`` is the byte at fault, by default the next one."""
        return MalformedModelError(self.name, self.offset if at is None else at, rule)

    def look(self) -> tuple[bytes, int]:
        """The window and the place of the next byte in it; holds the lookahead, or everything to the end."""
        if self._at > self._refill_at:
            self._refill()
        return self._window, self._at

    def advance(self, length: int, what: str) -> None:
        """Step over ``length`` bytes, read or not."""
        self.require(length, what)
        self._at += length
        if self._at > len(self._window):
            self._base += self._at
            self._window = b""
            self._at = 0
            self._refill_at = -1

    def take(self, length: int, what: str) -> bytes:
        """The next ``length`` bytes, at most the lookahead."""
        self.require(length, what)
        window, at = self.look()
        self._at += length
        return window[at : at + length]

    def require(self, length: int, what: str) -> None:
        """Refuse where fewer than ``length`` bytes are left."""
        if length > self.remaining:
            raise self.refuse(f"{self.border} inside {what}")

    def match(self, pattern: re.Pattern[bytes]) -> re.Match[bytes] | None:
        """Match a token here, within the lookahead, and step over it."""
        if self._at > self._refill_at:
            self._refill()
        found = pattern.match(self._window, self._at, self._at + self.lookahead)
        if found is not None:
            self._at = found.end()
        return found

    def place(self, found: re.Match[bytes], group: int = 0) -> int:
        """Where the group of the latest match starts in the file."""
        return self._base + found.start(group)

    def _refill(self) -> None:
        rest = self._window[self._at :]
        self._base += self._at
        self._at = 0
        length = min(_WINDOW_BYTES, self.end - self._base - len(rest))
        self._window = rest + self._source.read(self._base + len(rest), length)
        holds_the_rest = self._base + len(self._window) == self.end
        self._refill_at = len(self._window) - (0 if holds_the_rest else self.lookahead)


def shown(text: str) -> str:
    """Quote a piece of a hostile file for an error message: one short line of printable ASCII."""
    quoted = ascii(text[:_SHOWN_CHARACTERS])
    return quoted if len(quoted) <= _SHOWN_CHARACTERS else f"{quoted[: _SHOWN_CHARACTERS - 4]}...'"
