"""Cleaning and cutting of texts (audit-log.md section 5)."""

from __future__ import annotations

import hashlib

import pytest

from vram_residency.core.text import clean, cut, unescape


@pytest.mark.parametrize(
    ("text", "cleaned"),
    [
        ("", ""),
        ("shard-abc123", "shard-abc123"),
        ("GPU → über 3 µs … 中文", "GPU → über 3 µs … 中文"),
        ("a\nb\r\n\tc", "a\\u{000A}b\\u{000D}\\u{000A}\\u{0009}c"),
        ("\x00\x1b[31m\x7f\x9b", "\\u{0000}\\u{001B}[31m\\u{007F}\\u{009B}"),
        ("\u202etxt.exe\u2066", "\\u{202E}txt.exe\\u{2066}"),
        ("zero\u200bwidth\ufeff\u00ad", "zero\\u{200B}width\\u{FEFF}\\u{00AD}"),
        ("line\u2028para\u2029", "line\\u{2028}para\\u{2029}"),
        ("\u2800\u3164\u115f", "\\u{2800}\\u{3164}\\u{115F}"),
        ("tag\U000e0041", "tag\\u{E0041}"),
        ("plane 16 \U0010ffff", "plane 16 \\u{10FFFF}"),
        ("lone \ud800 surrogate", "lone \\u{D800} surrogate"),
        ("private \ue000", "private \\u{E000}"),
        ("a\\b", "a\\b"),
        ("\\u000A", "\\u000A"),
        ("\\u{000A}", "\\u{005C}u{000A}"),
        ("\\u{", "\\u{005C}u{"),
        ("\\\\u{", "\\\\u{005C}u{"),
        ("\\\u200bu{41}", "\\\\u{200B}u{41}"),
        ("a b\u00a0c\u3000d", "a b\u00a0c\u3000d"),
    ],
)
def test_what_cannot_be_seen_is_escaped_visibly(text: str, cleaned: str) -> None:
    """Controls, bidi marks, zero-width and blank characters, surrogates, and the escape itself."""
    assert clean(text) == cleaned
    assert unescape(cleaned) == text


def test_plain_ascii_is_the_same_object() -> None:
    """The common case copies nothing."""
    text = "worker-gpu-0 " * 20
    assert clean(text) is text


@pytest.mark.parametrize("size", [0, 1, 256, 257, 1023, 1024])
def test_up_to_1024_bytes_stay_whole(size: int) -> None:
    """The limit itself is allowed."""
    assert cut("x" * size) == "x" * size


def test_1025_bytes_keep_640_and_192_around_size_and_hash() -> None:
    """The rule as written, on ASCII."""
    text = "a" * 640 + "b" * 193 + "c" * 192
    digest = hashlib.sha256(text.encode()).hexdigest()
    assert cut(text) == "a" * 640 + f"…[1025 bytes, sha256:{digest}]…" + "c" * 192


def test_bytes_are_counted_and_characters_are_not_split() -> None:
    """640 and 192 bytes are not multiples of 3 bytes, so a character goes at the head's end."""
    text = "語" * 400
    shortened = cut(text)
    head, _, rest = shortened.partition("…[")
    assert head == "語" * 213
    assert rest.startswith("1200 bytes, sha256:")
    assert rest.endswith("]…" + "語" * 64)


def test_a_short_text_that_cleaning_makes_long_is_cut_and_names_the_original() -> None:
    """1024 characters of 8 bytes each: size and hash are those of what came in."""
    original = "\x00" * 1024
    shortened = cut(clean(original), original)
    digest = hashlib.sha256(original.encode()).hexdigest()
    assert f"…[1024 bytes, sha256:{digest}]…" in shortened
    assert shortened.startswith("\\u{0000}" * 80 + "…[")
    assert shortened.endswith("]…" + "\\u{0000}" * 24)


def test_lone_surrogates_count_as_three_bytes() -> None:
    """The original is measured and hashed although it is no valid UTF-8."""
    original = "\udcff" * 400
    digest = hashlib.sha256(b"\xed\xb3\xbf" * 400).hexdigest()
    assert f"…[1200 bytes, sha256:{digest}]…" in cut(clean(original), original)


def test_a_lower_limit_keeps_the_same_shares() -> None:
    """For entries that would pass their own limit."""
    shortened = cut("x" * 2000, limit_bytes=512)
    head, _, rest = shortened.partition("…[")
    assert len(head) == 320
    assert rest.endswith("]…" + "x" * 96)


def test_nothing_is_cut_where_that_would_make_it_longer() -> None:
    """The mark has its own size."""
    assert cut("x" * 80, limit_bytes=64) == "x" * 80


def test_nobody_can_write_a_text_that_looks_cut() -> None:
    """A literal copy of the mark is escaped, so a short text and a cut one are never the same."""
    long = "a" * 640 + "b" * 500 + "c" * 192
    forged = cut(long)
    assert cut(clean(forged), forged) != cut(clean(long), long)
    assert clean(forged) == forged.replace("…[", "\\u{2026}[", 1)
    assert unescape(clean(forged)) == forged


def test_an_ordinary_ellipsis_stays() -> None:
    """Only the whole mark is escaped."""
    assert clean("wait…[1 bytes, sha256:ab]…") == "wait…[1 bytes, sha256:ab]…"
