"""How much a model file may ask of its reader (residency.md section 2)."""

from __future__ import annotations

import msgspec


class Limits(msgspec.Struct, frozen=True, kw_only=True):
    """Bounds that hold before anything is allocated. All are inclusive.

    The last four are ours: they keep the time and the memory of a parse bounded where the others do not.
    """

    file_bytes: int = 100 * 2**30
    header_bytes: int = 100_000_000
    tensors: int = 100_000
    metadata_pairs: int = 10_000
    string_bytes: int = 65_536
    nesting: int = 16
    # NumPy and PyTorch stop at 64 dimensions as well.
    dimensions: int = 64
    # Tensor names and metadata keys of one file together: a name may cost four bytes per character in memory.
    names_bytes: int = 16 * 2**20
    # Strings inside GGUF arrays: the largest vocabularies with their merges hold about 800,000.
    array_strings: int = 4_000_000
    # No element count, and no size in bits, may pass this one.
    product: int = 2**63 - 1


DEFAULT_LIMITS = Limits()
