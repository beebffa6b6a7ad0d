"""What bytes are worth: BLAKE3 and SHA-256 over memory and files, and values of groups of 128 KiB."""

from __future__ import annotations

from vram_residency.digest.value import GROUP_BYTES, Algorithm, Digest

__all__ = ["GROUP_BYTES", "Algorithm", "Digest"]
