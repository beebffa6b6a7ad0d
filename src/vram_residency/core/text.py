r"""Text from outside, made safe to print without losing what it said (audit-log.md section 5).

The order is always: redact (core.redaction), then `clean`, then `cut`; each once. A cleaned text is not
cleaned again: that would escape its escapes. ``core.redaction.safe_text`` does all three.
"""

from __future__ import annotations

import hashlib
import re
from bisect import bisect_right
from functools import cache

#: UTF-8 bytes of a cleaned string that is kept whole.
TEXT_BYTES_MAX = 1024
_HEAD_BYTES, _TAIL_BYTES = 640, 192
_LONGEST_CHARACTER_BYTES = 4
_LAST_CODE_POINT = 0x10FFFF
_LAST_BASIC = 0xFFFF
_MARK = re.compile(r"…\[[0-9]{1,20} bytes, sha256:[0-9a-f]{64}\]…")


def clean(text: str) -> str:
    r"""Escape what cannot be seen, so that two different texts never look the same.

    A backslash before ``u{`` becomes ``\u{005C}``; every character of the frozen table (core._unprintable)
    becomes ``\u{HEX}``; lone surrogates are in the table, so the result always encodes as UTF-8. A literal
    copy of `cut`'s mark has its first character escaped, so that nobody can write a text which looks cut.
    Injective: `unescape` gives the text back. Linear time; plain ASCII returns the same object.
    """
    if text.isascii() and text.isprintable() and "\\u{" not in text:
        return text
    return _suspects().sub(_escape, text)


def visible(text: str) -> str:
    r"""What may be cleaned already, made safe to show: its ``\u{…}`` stay as they are.

    Each character goes through `clean` alone. Not injective: for people, never for a record.
    """
    return text if text.isascii() and text.isprintable() else "".join(map(clean, text))


def unescape(cleaned: str) -> str:
    """The text that `clean` was given. The inverse of `clean`, not of `cut`."""
    return re.sub(r"\\u\{([0-9A-F]{4,6})\}", lambda match: chr(int(match[1], 16)), cleaned)


def cut(cleaned: str, original: str | None = None, *, limit_bytes: int = TEXT_BYTES_MAX) -> str:
    """Shorten a cleaned text of over ``limit_bytes`` bytes of UTF-8 to head, mark and tail.

    The mark ``…[N bytes, sha256:<64 hex>]…`` has size and hash of ``original``, the text before it was
    cleaned (by default the cleaned text itself), in UTF-8; lone surrogates count as their three bytes.
    Of 1024 bytes the head keeps 640 and the tail 192, less where a character would be split; of a lower
    limit they keep the same shares, and the text stays whole where a cut would not make it shorter.
    """
    if len(cleaned) * _LONGEST_CHARACTER_BYTES <= limit_bytes or (
        cleaned.isascii() and len(cleaned) <= limit_bytes
    ):
        return cleaned
    data = cleaned.encode()
    if len(data) <= limit_bytes:
        return cleaned
    head_bytes = limit_bytes * _HEAD_BYTES // TEXT_BYTES_MAX
    tail_bytes = limit_bytes * _TAIL_BYTES // TEXT_BYTES_MAX
    # Cut ends are the only invalid places of this UTF-8, so "ignore" drops split characters and no others.
    head = data[:head_bytes].decode("utf-8", "ignore")
    tail = data[len(data) - tail_bytes :].decode("utf-8", "ignore")
    shortened = f"{head}{_mark(cleaned if original is None else original)}{tail}"
    return shortened if len(shortened.encode()) < len(data) else cleaned


def _mark(original: str) -> str:
    data = original.encode("utf-8", "surrogatepass")
    return f"…[{len(data)} bytes, sha256:{hashlib.sha256(data).hexdigest()}]…"


def _escape(match: re.Match[str]) -> str:
    character = match[0]
    is_harmless = (
        (character == "\\" and not match.string.startswith("u{", match.end()))
        or (character == "…" and _MARK.match(match.string, match.start()) is None)
        or (character > "\uffff" and not _is_unprintable(ord(character)))
    )
    return character if is_harmless else f"\\u{{{ord(character):04X}}}"


def _is_unprintable(code_point: int) -> bool:
    spans = _unprintable()
    position = bisect_right(spans, (code_point, _LAST_CODE_POINT)) - 1
    return position >= 0 and code_point <= spans[position][1]


@cache
def _unprintable() -> tuple[tuple[int, int], ...]:
    from vram_residency.core._unprintable import RANGES

    words = (word.partition("-") for word in RANGES.split())
    return tuple((int(first, 16), int(last or first, 16)) for first, _, last in words)


@cache
def _suspects() -> re.Pattern[str]:
    # One class of the basic plane alone is a bitmap; with the table's 400 other ranges in it every harmless
    # character would be compared with each of them. So all beyond that plane is looked up in _escape.
    basic = "".join(
        f"\\u{first:04x}-\\u{min(last, _LAST_BASIC):04x}"
        for first, last in _unprintable()
        if first <= _LAST_BASIC
    )
    return re.compile(f"[{basic}\\U00010000-\\U0010ffff…\\\\]")
