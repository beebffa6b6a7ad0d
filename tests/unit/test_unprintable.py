"""The frozen table against Unicode's own data, wherever this Python knows the same version."""

from __future__ import annotations

import hashlib
import sys
import unicodedata

import pytest

from vram_residency.core._unprintable import RANGES
from vram_residency.core.text import clean

# DerivedCoreProperties.txt 15.0.0, Default_Ignorable_Code_Point: 4,174 code points.
DEFAULT_IGNORABLE = {
    *(0x00AD, 0x034F, 0x061C, 0x3164, 0xFEFF, 0xFFA0),
    *range(0x115F, 0x1161),
    *range(0x17B4, 0x17B6),
    *range(0x180B, 0x1810),
    *range(0x200B, 0x2010),
    *range(0x202A, 0x202F),
    *range(0x2060, 0x2070),
    *range(0xFE00, 0xFE10),
    *range(0xFFF0, 0xFFF9),
    *range(0x1BCA0, 0x1BCA4),
    *range(0x1D173, 0x1D17B),
    *range(0xE0000, 0xE1000),
}
BRAILLE_BLANK = 0x2800


def table() -> set[int]:
    """The table's code points, read without the code under test."""
    members = set()
    for word in RANGES.split():
        first, _, last = word.partition("-")
        members.update(range(int(first, 16), int(last or first, 16) + 1))
    return members


def is_listed(code_point: int) -> bool:
    """What audit-log.md section 5 says, with this Python's data."""
    category = unicodedata.category(chr(code_point))
    return (
        category.startswith("C")
        or category in {"Zl", "Zp"}
        or code_point in DEFAULT_IGNORABLE
        or code_point == BRAILLE_BLANK
    )


def test_the_table_is_the_one_that_was_frozen() -> None:
    """Its members never change, whatever Unicode adds."""
    members = table()
    assert len(DEFAULT_IGNORABLE) == 4174
    assert len(members) == 965_366
    digest = hashlib.sha256(",".join(map(str, sorted(members))).encode()).hexdigest()
    assert digest == "2e63d3bb07258dc81b3c82e629d60c4a96aa82c33cc03aabd0d4e612c05af7b5"


@pytest.mark.skipif(unicodedata.unidata_version != "15.0.0", reason="another version of Unicode")
def test_the_table_is_unicode_15() -> None:
    """Derived anew from Unicode 15.0.0 the table is the same."""
    assert table() == {code_point for code_point in range(sys.maxunicode + 1) if is_listed(code_point)}


def test_the_table_agrees_on_every_character_that_this_python_knows_alike() -> None:
    """What an older Unicode assigns is listed alike; what a newer one added after 15.0 stays listed."""
    members = table()
    version = tuple(map(int, unicodedata.unidata_version.split(".")))
    differing = {
        code_point
        for code_point in range(sys.maxunicode + 1)
        if is_listed(code_point) != (code_point in members)
    }
    if version < (15, 0, 0):
        assert all(unicodedata.category(chr(code_point)) == "Cn" for code_point in differing)
    else:
        assert differing <= members


def test_exactly_the_table_is_escaped() -> None:
    """Every code point alone: escaped with upper-case hex if it is listed, else left as it is."""
    members = table()
    wrong = [
        code_point
        for code_point in range(sys.maxunicode + 1)
        if clean(chr(code_point))
        != (f"\\u{{{code_point:04X}}}" if code_point in members else chr(code_point))
    ]
    assert wrong == []


def test_an_emoji_younger_than_the_table_is_escaped() -> None:
    """U+1FAE9 came with Unicode 16: frozen means that it is escaped on every Python."""
    assert clean("\U0001fae9") == "\\u{1FAE9}"
    assert clean("\U0001faba") == "\U0001faba"
