"""The text form of a digest, ``blake3:<64 hex>`` or ``sha256:<64 hex>`` (residency.md section 3). Pure."""

from __future__ import annotations

import re
from typing import Literal, cast

from msgspec import Struct

from vram_residency.core.errors import InvalidInputError

Algorithm = Literal["blake3", "sha256"]

#: Bytes of one group, the last may be shorter (residency.md section 3).
GROUP_BYTES = 131_072
#: Bytes of the value of one group.
VALUE_BYTES = 32

# \Z, not $: a trailing newline is not part of a digest. One form only, so that texts compare as digests do.
_TEXT = re.compile(r"(blake3|sha256):([0-9a-f]{64})\Z")


class Digest(Struct, frozen=True):
    """32 bytes and how they were made. ``str()`` and ``parse()`` are inverse."""

    algorithm: Algorithm
    hex: str

    @classmethod
    def parse(cls, unverified: object) -> Digest:
        """Raises InvalidInputError for anything but the one text form."""
        found = _TEXT.match(unverified) if isinstance(unverified, str) else None
        if found is None:
            raise InvalidInputError(
                "digest",
                "must be blake3: or sha256: and 64 lower-case hex digits",
                hint="`vram digest FILE` prints a digest in this form.",
            )
        return cls(cast("Algorithm", found[1]), found[2])

    def __str__(self) -> str:
        return f"{self.algorithm}:{self.hex}"


class Measurement(Struct, frozen=True):
    """The digest of some bytes and the values of their groups, VALUE_BYTES each."""

    digest: str
    group_values: bytes


def group_count(size_bytes: int) -> int:
    """How many groups so many bytes have."""
    return -(-size_bytes // GROUP_BYTES)
