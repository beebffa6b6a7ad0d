"""A finding against a shard or a handle, on its way to the log, the narration and the caller."""

from __future__ import annotations

from typing import Literal

from msgspec import Struct

from vram_residency.core.errors import SealVerificationError
from vram_residency.formats.layout import Layout

Reason = Literal[
    "digest_mismatch", "signature_invalid", "not_sealed", "not_resident", "unknown_shard", "read_error"
]
TENSOR_NAMES_MAX = 64


class Damage(Struct, frozen=True, kw_only=True):
    """What is wrong; offsets are those of the first and the last bad byte's group, inclusive."""

    shard_id: str
    reason: Reason
    finding: str
    expected_digest: str = ""
    actual_digest: str = ""
    first_bad_offset: int | None = None
    last_bad_offset: int | None = None
    tensors: tuple[str, ...] = ()

    def error(self) -> SealVerificationError:
        """The fatal error that tells it."""
        error = SealVerificationError(self.shard_id, self.reason, self.finding)
        for name in (
            "expected_digest", "actual_digest", "first_bad_offset", "last_bad_offset", "tensors",
        ):  # fmt: skip
            setattr(error, name, getattr(self, name))
        return error


def placed(ranges: list[tuple[int, int]], layout: Layout) -> tuple[str, tuple[str, ...]]:
    """Damaged byte ranges (end exclusive) in words, and the tensors they touch (at most 64 names)."""
    names: dict[str, None] = {}
    for start, end in ranges:
        if len(names) >= TENSOR_NAMES_MAX:
            break
        names.update(dict.fromkeys(layout.names_in(start, end)))
    tensors = tuple(names)[:TENSOR_NAMES_MAX]
    span = f"bytes {ranges[0][0]} to {ranges[-1][1] - 1}"
    where = f"{len(ranges)} damaged ranges in {span}" if len(ranges) > 1 else f"damage in {span}"
    return (f"{where}, tensor {', '.join(tensors)}" if tensors else where), tensors
