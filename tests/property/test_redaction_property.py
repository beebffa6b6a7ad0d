"""Laws of redaction, for texts built to break it."""

from __future__ import annotations

from hypothesis import assume, given
from hypothesis import strategies as st

from vram_residency.core import redaction
from vram_residency.core.redaction import redact, safe_text

PIECES = st.sampled_from(
    [
        *("password", "token", "api_key", "secret", "monkey", "bearer", "Bearer ", "=", ": ", ":", '"', "'"),
        *(
            "\\",
            '\\"',
            " ",
            "\n",
            ",",
            "&",
            ";",
            "(",
            ")",
            "[",
            "]",
            "{",
            "}",
            "[REDACTED]",
            "eyJ",
            ".",
            "abc",
        ),
        *(
            "://",
            "@",
            "/",
            "u:p",
            "-----BEGIN PRIVATE KEY-----",
            "-----END PRIVATE KEY-----",
            "\u200b",
            "%3D",
        ),
        *("PRIVATE+KEY+", "authorization", "basic ", "has ", "->", "|\n", "é", "x" * 20),
    ]
)
TEXTS = st.lists(PIECES, max_size=16).map("".join) | st.text(max_size=80)
KEYS = st.sampled_from(
    ["password", "token", "api_key", "api-key", "secret", "seal_token", "TOKEN", "x-secret"]
)
SEPARATORS = st.sampled_from(["=", ": ", ":", " = ", "\t:\t", "==", "=>"])
#: A value that no other text contains by accident.
BARE = st.text(
    st.characters(min_codepoint=0x21, max_codepoint=0x7E, exclude_characters="\"',;&)]}\\"), min_size=6
)


@given(TEXTS)
def test_redacting_twice_is_redacting_once(text: str) -> None:
    """Idempotent, so a text may pass several sinks."""
    once = redact(text)
    assert redact(once) == once


@given(TEXTS, KEYS, SEPARATORS, BARE)
def test_a_bare_value_never_survives(before: str, key: str, separator: str, value: str) -> None:
    """Whatever stands before it."""
    assume(value not in f"{before} {key}{separator}[REDACTED]" and "REDACTED" not in value)
    assert value not in redact(f"{before} {key}{separator}{value}")


@given(TEXTS, st.tuples(KEYS, SEPARATORS).map("".join), st.text(min_size=6), st.sampled_from("\"'"))
def test_a_quoted_value_never_survives(before: str, key: str, value: str, mark: str) -> None:
    """With any characters in it, escaped as JSON does it."""
    escaped = value.replace("\\", "\\\\").replace(mark, f"\\{mark}")
    assume(escaped not in f"{before} {key}{mark}[REDACTED]{mark}" and "REDACTED" not in value)
    assert escaped not in redact(f"{before} {key}{mark}{escaped}{mark}")


@given(TEXTS)
def test_a_safe_text_is_one_visible_line(text: str) -> None:
    """However it was made."""
    assert len(safe_text(text).splitlines()) <= 1


@given(
    st.lists(
        PIECES
        | st.sampled_from(redaction._SIGNS)
        | st.sampled_from(redaction._SIGNS).map(lambda sign: sign[:-1])
        | st.text('abcdefgr0_,-"', max_size=3)
    ).map("".join),
    st.booleans(),
)
def test_a_long_text_is_searched_for_signs_of_secrets_as_a_short_one(text: str, is_upper: bool) -> None:
    long = "0" * redaction._LONG_CHARACTERS + (text.upper() if is_upper else text)
    assert redaction._may_hold_secret(long) == any(sign in long.lower() for sign in redaction._SIGNS)
