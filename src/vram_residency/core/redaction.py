r"""Secrets out of free text, before anything is kept or shown (narration.md; audit-log.md section 5).

Every pattern is linear: what repeats is possessive or disjoint from what follows it, and what is not is
bounded, so hostile text costs time proportional to its length. Too much is redacted rather than too little:
an unterminated quote or key block goes to the end of the text.
"""

from __future__ import annotations

import re
import threading
from functools import cache

from vram_residency.core.errors import InvalidInputError
from vram_residency.core.text import clean, cut

REDACTED = "[REDACTED]"
#: Shorter values are ordinary words: registering one would blot out innocent text.
SECRET_CHARACTERS_MIN = 4

_lock = threading.Lock()
#: Written under _lock, replaced whole: readers need no lock. Longest first.
_registered: tuple[str, ...] = ()

# Blank for a reader: white space, controls, and the zero-width characters that would hide the separator.
_GAP = r"[\s\x00-\x1f\u00ad\u200b-\u200f\u2060-\u2064\ufeff]"
_KEY = (
    r"(?:(?<![A-Za-z0-9])|(?-i:(?<=[a-z])(?=[A-Z])))"
    r"(?:api[_-]?key|(?:secret[_-]?)?access[_-]?key|secret[_-]?key|private[_-]?key|signing[_-]?key"
    r"|token|secret|password|passwd|passphrase|pwd|bearer)"
)
_SEPARATOR = rf"""[\\"'\])]{{0,6}}+{_GAP}*+(?:[:=]{{1,2}}>?|->|%3[ad]){_GAP}*+(?:[|>][+-]?\n{_GAP}*+)?"""
# Words after "token:" that make it a sentence about a token.
_PROSE = r"(?:has|is|was|must|may|cannot|not|no|needs|missing|required|invalid|expired|too)(?![^\s,;.])"
# What follows "bearer" in talk of bearer tokens.
_BEARER_PROSE = (
    r"(?:bearer|tokens?|auth|authentication|authorization|scheme|header|of|is|was|not|and|or|in|for|with)"
    r"(?![A-Za-z0-9._~+/=-])"
)
_PEM_LABEL = r"[A-Z0-9 ]{0,40}?PRIVATE KEY[A-Z ]{0,10}-----"
_JWT_PART = r"[A-Za-z0-9_-]*+"
_Sources = tuple[tuple[str, str], ...]
#: Patterns, compiled at first need, and what stands in their place.
_WHOLE_SECRETS: _Sources = (
    (rf"(?s)-----BEGIN {_PEM_LABEL}.*?(?:-----END {_PEM_LABEL}|\Z)", REDACTED),
    (r"PRIVATE\+KEY\+[^\s\"']*+", REDACTED),
    # A JSON Web Token has three parts, an encrypted one five; both begin with the base64 of '{"'.
    (
        rf"(?<![A-Za-z0-9_-])((?>[A-Za-z0-9_-]*?(?=eyJ))){_JWT_PART}(?:\.{_JWT_PART}){{2,4}}+",
        rf"\1{REDACTED}",
    ),
)
#: HTTP's credentials (RFC 6750, RFC 7617), after the keys and values that may stand around them.
_CREDENTIALS: _Sources = (
    (
        rf"(?i)((?<![A-Za-z0-9])bearer(?:{_GAP}++|%20|\+))(?!{_BEARER_PROSE}|->)[\"']?[A-Za-z0-9._~+/-][A-Za-z0-9._~+/=%-]*+",
        rf"\1{REDACTED}",
    ),
    (
        (
            rf"(?i)(authorization{_SEPARATOR}[\"']?(?:basic|digest|token|negotiate)(?:{_GAP}++|%20|\+))"
            r"(?!\[REDACTED\])[^\s\"',;]++"
        ),
        rf"\1{REDACTED}",
    ),
)
_TOKEN_USER_CHARACTERS_MIN = 16
#: One of these, in any case, stands in whatever a pattern finds.
_SIGNS = ("token", "pass", "key", "secret", "bearer", "eyj", "://", "pwd", "authorization")
#: A long text is searched without the bytes that most texts are full of, hex digits above all, and so are the
#: signs: what the text contains, its skeleton contains.
_LONG_CHARACTERS = 1024
_LOWER = bytes(range(256)).lower()
_IGNORED = bytes(byte for byte in range(256) if _LOWER[byte] not in b"toknpsyrj:/wuhizb,_")
_SKELETONS = tuple(sign.encode().translate(None, _IGNORED) for sign in _SIGNS)
_LOOSE_PASSWORD = re.compile(r"""[^\s"'<>@]{1,256}@""")


def redact(text: str, *, uuids: bool = False) -> str:
    """``text`` with ``[REDACTED]`` for each secret: idempotent, linear time.

    Found are registered values, PEM private keys, JSON Web Tokens, the user part of URLs, bearer tokens, and
    what follows key words such as ``password`` in ``key=value``, ``key: value`` and quoted form; with
    ``uuids`` also UUIDs. A text without any returns the same object.
    """
    for secret in _registered:
        if secret in text:
            text = text.replace(secret, REDACTED)
    if uuids:
        text = _uuid().sub(REDACTED, text)
    if _may_hold_secret(text):
        for pattern, replacement in _patterns(_WHOLE_SECRETS):
            text = pattern.sub(replacement, text)
        text = _redact_values(_redact_urls(text))
        for pattern, replacement in _patterns(_CREDENTIALS):
            text = pattern.sub(replacement, text)
    return text


def safe_text(text: str, *, uuids: bool = False) -> str:
    """Redacted, cleaned and cut, in that order: what may be kept and shown of a text from outside.

    Size and hash in the mark of a cut are those of the redacted text, so that no hash ever covers a secret.
    """
    redacted = redact(text, uuids=uuids)
    return cut(clean(redacted), redacted)


def register_secret(value: str) -> None:
    """From now on redact ``value``, also percent-encoded or escaped as JSON, in every text.

    Raises InvalidInputError for under 4 characters.
    """
    if len(value) < SECRET_CHARACTERS_MIN:
        raise InvalidInputError("secret", f"has fewer than {SECRET_CHARACTERS_MIN} characters")
    global _registered  # noqa: PLW0603 - one registry per process: a secret is secret everywhere
    with _lock:
        _registered = tuple(sorted({*_registered, *_spellings(value)}, key=len, reverse=True))


def forget_secret(value: str) -> None:
    """Undo `register_secret`, once the value is worthless."""
    global _registered  # noqa: PLW0603 - as above
    with _lock:
        gone = _spellings(value)
        _registered = tuple(secret for secret in _registered if secret not in gone)


def _spellings(value: str) -> set[str]:
    import json
    from urllib.parse import quote

    as_json = (json.dumps(value, ensure_ascii=is_ascii)[1:-1] for is_ascii in (True, False))
    return {value, quote(value, safe="", errors="replace"), clean(value), *as_json}


def _may_hold_secret(text: str) -> bool:
    """Cheap and never wrongly False."""
    if len(text) >= _LONG_CHARACTERS and text.isascii():
        skeleton = text.encode("ascii").translate(_LOWER, _IGNORED)
        if not any(sign in skeleton for sign in _SKELETONS):
            return False
    lowered = text.lower()
    return any(sign in lowered for sign in _SIGNS)


@cache
def _patterns(sources: _Sources) -> tuple[tuple[re.Pattern[str], str], ...]:
    return tuple((re.compile(pattern), replacement) for pattern, replacement in sources)


def _redact_urls(text: str) -> str:
    """The user part of a URL goes, its host stays."""
    pieces = []
    position = 0
    while authority := _authority().search(text, position):
        start, end = authority.span(1)
        # RFC 3986: the user part ends at the last @ of the authority, and that ends at the first slash.
        user, at, _host = authority[1].rpartition("@")
        if not at and (port := authority[1].partition(":")[2]) and not port.isdecimal():
            # No port number, so rather a password with a slash in it that should have been escaped.
            reach = _LOOSE_PASSWORD.match(text, end)
            user = text[start : reach.end() - 1] if reach else ""
        pieces.append(text[position:start])
        position = start + len(user)
        # A short user without a password is a login name (git@); a long one is a token.
        is_secret = ":" in user or len(user) >= _TOKEN_USER_CHARACTERS_MIN
        pieces.append(REDACTED if is_secret else user)
    return "".join(pieces) + text[position:] if pieces else text


@cache
def _authority() -> re.Pattern[str]:
    return re.compile(r"""://([^\s/?#"'<>]++)""")


@cache
def _key() -> re.Pattern[str]:
    return re.compile(rf"(?i){_KEY}{_SEPARATOR}")


@cache
def _value() -> re.Pattern[str]:
    """Exactly one alternative matches at any place but the end, white space or a closing quote."""
    return re.compile(
        rf"""(?sx)
          (?P<done>   \[REDACTED\] (?=["'\s,;&)\]}}]|\Z) )
        | (?P<open>   (?P<escape>\\{{1,7}}+) (?P<mark>["']) ) (?:(?!(?P=escape)(?P=mark)).)*+
        | (?P<double> [a-zA-Z]{{0,2}}+" ) (?:[^"\\]|\\.|\\\Z)*+
        | (?P<single> [a-zA-Z]{{0,2}}+' ) (?:[^'\\]|\\.|\\\Z)*+
        | (?P<prose>  (?<=\s){_PROSE} )
        | (?P<bearer> (?i:bearer) (?=\s) )
        | (?: [\[{{] (?=[\s\w.,+-]{{0,64}}+["'\\])
              (?: [^\]}}"'\\] | \\. | \\\Z | "(?:[^"\\]|\\.|\\\Z)*+"?+ | '(?:[^'\\]|\\.|\\\Z)*+'?+ )*+
              [\]}}]?+
            | [^\s"',;&)\]}}]
            | [,;&](?!\s|\Z|[\w.-]{{1,64}}+["']?\s?[=:])
            | [)\]}}](?![)\]}}]{{0,8}}+(?:\s|\Z|[,;.])) )++
        """
    )


def _redact_values(text: str) -> str:
    """``key=value``, ``key: value`` and their quoted forms; the key and the quotes stay."""
    pieces = []
    position = 0
    while key := _key().search(text, position):
        start = key.end()
        pieces.append(text[position:start])
        position = start
        if value := _value().match(text, start):
            nested = _nested_key(text, start, value.end())
            position = value.end() if nested is None else nested
            if position > start:
                pieces.append(_redacted_value(value, is_last=position == len(text)))
    return "".join(pieces) + text[position:] if pieces else text


def _redacted_value(value: re.Match[str], *, is_last: bool) -> str:
    if kept := value["done"] or value["prose"] or value["bearer"]:
        return kept
    quote = value["open"] or value["double"] or value["single"]
    if not quote:
        return REDACTED
    # An unterminated quote is closed: it must not swallow what is put behind this text later.
    end = f"{value['escape'] or ''}{quote[-1]}" if is_last else ""
    return f"{quote}{REDACTED}{end}"


def _nested_key(text: str, start: int, end: int) -> int | None:
    """Where a value turns into a key of its own, whose value follows: "password=x-token= …"."""
    for key in _key().finditer(text, start):
        if key.start() >= end:
            return None
        if key.end() >= end:
            return key.start()
    return None


@cache
def _uuid() -> re.Pattern[str]:
    return re.compile(r"(?<![0-9A-Za-z])[0-9A-Fa-f]{8}-(?:[0-9A-Fa-f]{4}-){3}[0-9A-Fa-f]{12}(?![0-9A-Za-z])")
