"""How much of a shard one verification reads (residency.md section 5)."""

from __future__ import annotations

from typing import Literal, get_args

from msgspec import Struct

from vram_residency.core.errors import InvalidInputError

SAMPLE_BYTES = 32 << 20
_Kind = Literal["full", "fast", "sample"]


class Scope(Struct, frozen=True):
    """``full``, ``fast``, or ``sample`` with its share of the shard or its number of bytes.

    Raises InvalidInputError for anything else.
    """

    kind: _Kind
    fraction: float | None = None
    bytes: int | None = None

    def __post_init__(self) -> None:
        if self.kind not in get_args(_Kind):
            raise InvalidInputError("scope", f"must be full, fast or sample, not {self.kind!r}")
        has_size = self.fraction is not None or self.bytes is not None
        if has_size != (self.kind == "sample"):
            raise InvalidInputError("scope", "a sample, and nothing else, has a size")
        if self.fraction is not None and self.bytes is not None:
            raise InvalidInputError("scope", "a sample has a fraction or a number of bytes, not both")
        if self.fraction is not None and not 0 < self.fraction <= 1:
            raise InvalidInputError("scope", f"the fraction of a sample lies in (0, 1], not {self.fraction}")
        if self.bytes is not None and self.bytes < 1:
            raise InvalidInputError("scope", f"a sample reads at least 1 byte, not {self.bytes}")


FULL = Scope("full")
FAST = Scope("fast")


def sample(fraction: float | None = None, *, bytes: int | None = None) -> Scope:  # noqa: A002 - the spec's word
    """Build a sampling scope: ``fraction`` in (0, 1] or ``bytes`` >= 1; 32 MiB where neither is given.

    Raises InvalidInputError.
    """
    if fraction is None and bytes is None:
        bytes = SAMPLE_BYTES  # noqa: A001 - see above
    return Scope("sample", fraction, bytes)


def parse_scope(unverified: str | Scope) -> Scope:
    """A Scope as it is, or one of the words full, fast, sample. Raises InvalidInputError."""
    if isinstance(unverified, Scope):
        return unverified
    try:
        return _WORDS[unverified]
    except (KeyError, TypeError):
        raise InvalidInputError("scope", f"must be full, fast or sample, not {unverified!r}") from None


_WORDS = {"full": FULL, "fast": FAST, "sample": sample()}
