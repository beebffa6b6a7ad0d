"""The fast tag, slow and plain, from the text of the spec (gpu.md, "The fast tag")."""

from __future__ import annotations

import struct

from blake3 import blake3

GROUP_BYTES = 128 * 1024


def key_words(seed: bytes) -> tuple[int, ...]:
    """K = 32,774 little-endian u32, by BLAKE3 derive_key in XOF mode."""
    context = "vram-residency 2026-11-22 fast tag v1: key of the universal hash"
    stream = blake3(seed, derive_key_context=context).digest(length=4 * 32_774)
    return struct.unpack("<32774I", stream)


def group_sums(group: bytes, key: tuple[int, ...]) -> bytes:
    """Four sums mod 2^64 over a group, zero-padded to 128 KiB."""
    m = struct.unpack("<32768I", group.ljust(GROUP_BYTES, b"\0"))
    sums = [
        sum(
            ((m[2 * i] + key[2 * i + 2 * j]) % 2**32) * ((m[2 * i + 1] + key[2 * i + 1 + 2 * j]) % 2**32)
            for i in range(len(m) // 2)
        )
        % 2**64
        for j in range(4)
    ]
    return struct.pack("<4Q", *sums)


def all_sums(data: bytes, seed: bytes) -> bytes:
    """The sums of all groups in order."""
    key = key_words(seed)
    return b"".join(
        group_sums(data[start : start + GROUP_BYTES], key) for start in range(0, len(data), GROUP_BYTES)
    )


def tag(data: bytes, seed: bytes, seal_id: str, pass_number: int) -> bytes:
    """BLAKE3 keyed by P over label, seal_id, u64 pass, u64 length and all group values in order."""
    context = "vram-residency 2026-11-22 fast tag v1: key of the pseudo-random function"
    key = blake3(seed, derive_key_context=context).digest()
    text = b"vram-residency/fast-tag/v1" + seal_id.encode() + struct.pack("<QQ", pass_number, len(data))
    return blake3(text + all_sums(data, seed), key=key).digest()
