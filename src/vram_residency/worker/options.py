"""What a worker can be told; each default is the safe one (worker.md)."""

from __future__ import annotations

from pathlib import Path

import msgspec

from vram_residency.residency import Scope, sample


class WorkerOptions(msgspec.Struct, frozen=True, kw_only=True):
    """The choices that the service itself needs; sockets and tokens are the server's.

    model_roots: directories under which ``path`` of a request may lie; none means that no path is taken.
    allow_empty_start: Ready without a shard. execution_scope: None is the gate's own default.
    ready_scope: how much of each shard ``GET /v1/ready`` reads.
    """

    model_roots: tuple[Path, ...] = ()
    allow_empty_start: bool = False
    execution_scope: Scope | None = None
    ready_scope: Scope = sample()
    body_bytes_max: int = 100 << 30
    header_bytes_max: int = 100_000_000
