"""Bearer tokens of the TCP port: kept as SHA-256 alone, compared in constant time, with scopes and an end.

The file is TOML, one table ``[[token]]`` each: name, sha256 (64 hex digits), scopes, and, if it ends, expires
(an RFC 3339 time). Tokens have 32 random bytes, so a plain hash of them cannot be guessed backwards.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
import tomllib
from datetime import datetime
from typing import Annotated, Final

import msgspec

from vram_residency.core.errors import ConfigurationError
from vram_residency.worker.caller import Scope

_SETTING: Final = "tcp.tokens_file"
_PREFIX: Final = "vrt_"


class Token(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What is known of one token."""

    name: Annotated[str, msgspec.Meta(pattern=r"^[A-Za-z0-9._-]{1,64}$")]
    sha256: Annotated[str, msgspec.Meta(pattern="^[0-9a-f]{64}$")]
    scopes: Annotated[frozenset[Scope], msgspec.Meta(min_length=1)]
    expires: Annotated[datetime, msgspec.Meta(tz=True)] | None = None

    @property
    def fingerprint(self) -> str:
        """What names it in logs (audit-log.md section 5)."""
        return self.sha256[:6]


class _File(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    token: tuple[Token, ...] = ()


class Tokens:
    """The tokens that are taken. Pure: the time is an argument."""

    def __init__(self, tokens: tuple[Token, ...]) -> None:
        self.all = tokens

    def find(self, presented: str, now_s: float) -> Token | None:
        """The token that was presented, unless there is none such or it has ended.

        Every known hash is compared, each in constant time: how long it takes tells nothing.
        """
        digest = sha256_of(presented)
        found = None
        for token in self.all:
            if hmac.compare_digest(token.sha256, digest):
                found = token
        if found is None or (found.expires is not None and found.expires.timestamp() <= now_s):
            return None
        return found


def parse_tokens(text: str) -> Tokens:
    """The tokens of a file. Raises ConfigurationError where it breaks a rule; it never repeats the text."""
    try:
        tokens = msgspec.convert(tomllib.loads(text), _File).token
    except (tomllib.TOMLDecodeError, msgspec.ValidationError) as error:
        raise ConfigurationError(_SETTING, f"is no file of tokens: {error}") from None
    if not tokens:
        raise ConfigurationError(
            _SETTING, "holds no token", hint="Add one: vram serve new-token FILE --name NAME --scope read"
        )
    for what in ("name", "sha256"):
        values = [getattr(token, what) for token in tokens]
        if len(set(values)) < len(values):
            raise ConfigurationError(_SETTING, f"holds two tokens of one {what}")
    return Tokens(tokens)


def new_token() -> str:
    """A token nobody else has: 32 random bytes. It is shown once."""
    return _PREFIX + secrets.token_urlsafe(32)


def sha256_of(token: str) -> str:
    """What is kept of a token, as hex."""
    return hashlib.sha256(token.encode("utf-8", "surrogateescape")).hexdigest()


def table_of(name: str, token: str, scopes: frozenset[Scope], expires: str | None) -> str:
    """The lines of the file for a token. The name is checked by whoever reads them."""
    words = ", ".join(f'"{scope}"' for scope in sorted(scopes))
    end = f"expires = {expires}\n" if expires else ""
    return f'[[token]]\nname = "{name}"\nsha256 = "{sha256_of(token)}"\nscopes = [{words}]\n{end}'
