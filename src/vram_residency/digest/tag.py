"""The keyed tag over memory: keys and the last step (spec: gpu.md, "The fast tag"). Pure.

The claim: a change since the last full pass, chosen without the key, is missed with probability at most
2^-128 plus BLAKE3's PRF advantage. Nothing covers code in the same context that can read the key, or writes
after the read.
"""

from __future__ import annotations

import ctypes
import struct

from vram_residency.core.errors import InvalidInputError
from vram_residency.digest.launches import FAN_IN
from vram_residency.digest.value import GROUP_BYTES, VALUE_BYTES, group_count

#: Random bytes from which the keys of one full pass are derived.
SEED_BYTES = 32
#: Words of the universal hash's key: those of a group, and six more for the last three lanes.
KEY_WORDS = GROUP_BYTES // 4 + 6
#: Bytes of the key as the kernel of the fast pass reads it: KEY_WORDS, rounded up to a piece.
KEY_BYTES = -(-KEY_WORDS * 4 // 16) * 16

_UNIVERSAL_CONTEXT = "vram-residency 2026-11-22 fast tag v1: key of the universal hash"
_PRF_CONTEXT = "vram-residency 2026-11-22 fast tag v1: key of the pseudo-random function"
_LABEL = b"vram-residency/fast-tag/v1"
_NUMBERS = struct.Struct("<QQ")
# A chunk's pieces of 16 bytes, and the two behind them that its last words need as well.
_CHUNK_PIECES = 64
_PIECES = _CHUNK_PIECES + 2
#: Bytes of the key as the fused kernel reads it.
SPREAD_KEY_BYTES = _PIECES * FAN_IN * 16


class TagKey:
    """The keys K and P of one pass. They are wiped together, and leave this object only for the device."""

    def __init__(self, universal: bytearray, prf: bytearray) -> None:
        self._universal = universal
        self._prf = prf

    @classmethod
    def derive(cls, seed: bytearray) -> TagKey:
        """Keys from SEED_BYTES of fresh randomness, which are wiped. Raises InvalidInputError on others."""
        if len(seed) != SEED_BYTES:
            raise InvalidInputError("seed", f"must have {SEED_BYTES} bytes")
        try:
            universal = _derived(seed, _UNIVERSAL_CONTEXT, KEY_WORDS * 4)
            return cls(universal, _derived(seed, _PRF_CONTEXT, VALUE_BYTES))
        finally:
            wipe(seed)

    def __repr__(self) -> str:
        return f"TagKey(is_wiped={self.is_wiped})"

    def __reduce__(self) -> str:
        raise TypeError("a key stays in its process")

    @property
    def is_wiped(self) -> bool:
        """Whether there is nothing left of it."""
        return not self._prf

    def universal(self) -> bytearray:
        """K for the kernel ``tag_groups``: KEY_BYTES, which the caller wipes.

        Raises InvalidInputError once it is wiped, as ``spread`` and ``tag`` do.
        """
        self._require_alive()
        return self._universal + bytes(KEY_BYTES - len(self._universal))

    def spread(self) -> bytearray:
        """K for the kernel ``blake3_groups_tagged``: SPREAD_KEY_BYTES, which the caller wipes.

        Piece after piece of all chunks, not chunk after chunk: threads side by side read side by side.
        """
        spread = bytearray(SPREAD_KEY_BYTES)
        plain = self.universal()
        # Halves of a piece: the longest words that a memoryview knows.
        source, target = memoryview(plain).cast("Q"), memoryview(spread).cast("Q")
        stride = 2 * _CHUNK_PIECES
        for piece in range(_PIECES):
            for half in range(2):
                first, row = 2 * piece + half, 2 * piece * FAN_IN
                column = source[first : first + stride * (FAN_IN - 1) + 1 : stride]
                target[row + half : row + 2 * FAN_IN : 2] = column
        wipe(plain)
        return spread

    def tag(self, seal_id: str, *, pass_number: int, size_bytes: int, group_values: bytearray) -> bytes:
        """The tag of one shard in one pass, from the sums that the kernels made of its groups.

        BLAKE3 keyed by P over label, seal_id (32 hex digits), u64 pass, u64 length and all sums in order,
        numbers little-endian: groups that changed places show. ``group_values`` are wiped.
        Raises InvalidInputError for another number of groups.
        """
        from blake3 import blake3

        self._require_alive()
        if len(group_values) != VALUE_BYTES * group_count(size_bytes):
            raise InvalidInputError("group_values", f"do not belong to {size_bytes} bytes")
        hasher = blake3(_LABEL, key=self._prf)
        hasher.update(seal_id.encode("ascii"))
        hasher.update(_NUMBERS.pack(pass_number, size_bytes))
        hasher.update(group_values)
        wipe(group_values)
        return hasher.digest()

    def wipe(self) -> None:
        """Overwrite both keys. May be called again."""
        for secret in (self._universal, self._prf):
            wipe(secret)
            secret.clear()

    def _require_alive(self) -> None:
        if self.is_wiped:
            raise InvalidInputError("tag key", "has been wiped", hint="Make a full pass with a new one.")


def wipe(secret: bytearray) -> None:
    """Overwrite bytes where they lie."""
    secret[:] = bytes(len(secret))


def _derived(seed: bytearray, context: str, size_bytes: int) -> bytearray:
    from blake3 import blake3

    hasher = blake3(seed, derive_key_context=context)
    key = taken(hasher.digest(length=size_bytes))
    hasher.reset()
    return key


def taken(secret: bytes) -> bytearray:
    """A copy that can be wiped of bytes that nobody else holds; the original is overwritten.

    Libraries hand out secrets as bytes, which Python never overwrites. Give it only what was made just now
    and has more than one byte: shorter ones are shared by the whole interpreter.
    """
    copy = bytearray(secret)
    ctypes.memset(ctypes.cast(ctypes.c_char_p(secret), ctypes.c_void_p), 0, len(secret))
    return copy
