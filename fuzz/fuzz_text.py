"""Fuzz core.text and core.redaction: ``python fuzz/fuzz_text.py --runs 100000 --seed 1``.

Each run builds a text from pieces that mean something to the patterns, and checks the promises: cleaning can
be undone, redaction is idempotent, a planted secret does not survive, and the result is one visible line.
"""

from __future__ import annotations

import argparse
import random

from vram_residency.core.redaction import redact, safe_text
from vram_residency.core.text import TEXT_BYTES_MAX, clean, unescape

SECRET = "zQ7hunter2zQ7"
PIECES = (
    *("password", "token", "api_key", "api-key", "secret", "monkey", "accessToken", "bearer", "Bearer "),
    *("=", ":", ": ", " = ", "=>", "->", "==", "%3D", "|\n", '"', "'", "\\", '\\"', "\\\\", "b'"),
    *(" ", "\n", "\t", ",", "&", ";", "(", ")", "[", "]", "{", "}", "<", ">", ".", "-", "_", "@", "/", "://"),
    *(
        "[REDACTED]",
        "eyJ",
        "eyJhbGci.eyJzdWIi.c2ln",
        "u:p",
        "user",
        "https://",
        "has ",
        "is",
        "of",
        "a",
        "x" * 40,
    ),
    *("-----BEGIN PRIVATE KEY-----", "-----END PRIVATE KEY-----", "PRIVATE+KEY+", "authorization", "basic "),
    *("\u200b", "\u202e", "\ud800", "\x00", "\u2028", "\U000e0041", "\U0001fae9", "\u00e9", "u{", "\\u{"),
    *("…", "…[9 bytes, sha256:", "0" * 64, "]…", "123e4567-e89b-12d3-a456-426614174000"),
)
#: Forms in which a secret must never survive, whatever stands before them.
PLANTS = (
    f"password={SECRET}",
    f"token: {SECRET}",
    f'{{"api_key": "{SECRET}"}}',
    f"secret = '{SECRET}'",
    f"Bearer {SECRET}",
    f" https://user:{SECRET}@host/",
    f"-----BEGIN PRIVATE KEY-----\n{SECRET}\n-----END PRIVATE KEY-----",
    f" eyJhbGci.{SECRET}.c2ln",
)


def check(before: str, plant: str, after: str) -> None:
    """All promises for one text; AssertionError with the text otherwise."""
    text = f"{before} {plant}{after}"
    once = redact(text)
    shown = safe_text(text)
    problems = {
        "cleaning cannot be undone": unescape(clean(text)) != text,
        "redaction is not idempotent": redact(once) != once,
        "the secret survives": SECRET in once,
        "more than one line": len(shown.splitlines()) > 1,
        "too long": len(shown.encode()) > TEXT_BYTES_MAX,
        "UUIDs are not idempotent": redact(once, uuids=True) != redact(redact(once, uuids=True), uuids=True),
    }
    found = [problem for problem, is_there in problems.items() if is_there]
    if found:
        raise AssertionError(f"{', '.join(found)}: {text!r} -> {once!r}")


def run(runs: int, seed: int) -> None:
    """``runs`` texts from one seed."""
    source = random.Random(seed)
    for _ in range(runs):
        before, after = ("".join(source.choices(PIECES, k=source.randrange(10))) for _ in range(2))
        check(before, source.choice(PLANTS), after)


def main() -> None:
    """Read the options, run, say how many texts held."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--runs", type=int, default=100_000)
    options.add_argument("--seed", type=int, default=1)
    chosen = options.parse_args()
    run(chosen.runs, chosen.seed)
    print(f"{chosen.runs} texts, all promises held")


if __name__ == "__main__":
    main()
