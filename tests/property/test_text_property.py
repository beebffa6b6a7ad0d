"""Laws of cleaning and cutting, for any text at all."""

from __future__ import annotations

import re
import unicodedata

from hypothesis import given
from hypothesis import strategies as st

from vram_residency.core.text import TEXT_BYTES_MAX, clean, cut, unescape

ANY_TEXT = st.text(st.characters(codec=None), max_size=60)
#: Texts made of the pieces from which ambiguity could be built.
TRICKY = st.lists(
    st.sampled_from(
        [
            *("\\", "u", "{", "}", "u{", "\\u{", "005C", "000A", "\n", "\u200b", "\ud800", "…", "]…"),
            *("…[", "1 bytes, sha256:", "0" * 64, "a", "\U0001fae9"),
        ]
    ),
    max_size=14,
).map("".join)
TEXTS = ANY_TEXT | TRICKY


@given(TEXTS)
def test_cleaning_can_be_undone(text: str) -> None:
    """So it is injective: no two texts give one."""
    assert unescape(clean(text)) == text


@given(TEXTS, TEXTS)
def test_cleaning_joins_like_texts_only_where_an_escape_begins(left: str, right: str) -> None:
    """Cleaning the whole or its parts differs only by an escaped backslash or ellipsis at the seam."""
    parts, whole = clean(left) + clean(right), clean(left + right)
    assert whole == parts or "\\u{005C}" in whole or "\\u{2026}" in whole


@given(TEXTS)
def test_a_cleaned_text_shows_everything_and_encodes(text: str) -> None:
    """Nothing invisible remains by this Python's own data, and UTF-8 takes it."""
    cleaned = clean(text)
    cleaned.encode()
    assert not [
        character for character in cleaned if unicodedata.category(character) in {"Cc", "Cf", "Cs", "Co"}
    ]
    assert len(cleaned.splitlines()) <= 1


@given(TEXTS)
def test_a_cleaned_text_without_escapes_is_not_changed_again(text: str) -> None:
    """Idempotent wherever nothing had to be escaped."""
    cleaned = clean(text)
    if "\\u{" not in cleaned:
        assert clean(cleaned) == cleaned == text


@given(TEXTS, st.integers(1, 300), st.sampled_from([256, 512, 1024]))
def test_a_cut_text_is_within_the_limit_and_keeps_both_ends(text: str, times: int, limit_bytes: int) -> None:
    """For any characters at any place."""
    cleaned = clean(text * times)
    shortened = cut(cleaned, text * times, limit_bytes=limit_bytes)
    size = len(shortened.encode())
    if shortened == cleaned:
        assert size <= limit_bytes or size < limit_bytes * 832 // TEXT_BYTES_MAX + 120
    else:
        head, tail = re.split(r"…\[\d+ bytes, sha256:[0-9a-f]{64}\]…", shortened)
        assert cleaned.startswith(head)
        assert cleaned.endswith(tail)
        assert size <= max(limit_bytes, 330)


@given(TRICKY, TRICKY, st.integers(40, 400))
def test_two_texts_never_give_one_even_when_cut(first: str, second: str, times: int) -> None:
    """Cut or not: the hash in the mark, and the escaped copies of it, keep them apart."""
    texts = [first, second, first * times, second * times]
    texts += [cut(clean(text), text) for text in texts]
    results = {text: cut(clean(text), text) for text in texts}
    assert len(set(results.values())) == len(results)
