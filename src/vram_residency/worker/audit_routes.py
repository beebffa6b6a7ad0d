"""The API's routes over the audit log: what it says, and the checkpoint that commits to it (worker.md)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

import msgspec
from litestar import Request, Router, get
from litestar.datastructures import State
from litestar.response import Response

from vram_residency.worker import streaming, wire
from vram_residency.worker.inject import TheService, TheThreads
from vram_residency.worker.routes import query_as
from vram_residency.worker.threads import Give

LINES_MEDIA_TYPE: Final = "application/x-ndjson"
CHECKPOINT_MEDIA_TYPE: Final = "text/plain"
_BLOCK_BYTES: Final = 64 << 10


@get("/audit", needs="audit", media_type=LINES_MEDIA_TYPE, query=wire.AuditFilters)
async def audit(request: Request[Any, Any, State], service: TheService, threads: TheThreads) -> Response[str]:
    """Give entries of the audit log as they stand in it, one a line; the filters of ``vram audit query``."""
    filters = msgspec.to_builtins(query_as(request, wire.AuditFilters))

    def produce(give: Give) -> None:
        for block in _blocks(service.audit(filters)):
            give(("lines", block))

    flow = await threads.flow(produce)
    return await streaming.begin_bytes(flow, media_type=LINES_MEDIA_TYPE)  # type: ignore[return-value] # in pieces


@get("/audit/checkpoint", needs="audit", media_type=CHECKPOINT_MEDIA_TYPE)
async def checkpoint(service: TheService, threads: TheThreads) -> Response[str]:
    """Give the signed checkpoint (C2SP tlog-checkpoint) over everything accepted so far."""
    return Response((await threads.call(service.checkpoint)).decode(), media_type=CHECKPOINT_MEDIA_TYPE)


def audit_router() -> Router:
    """Everything under ``/v1/audit``."""
    return Router("/v1", route_handlers=[audit, checkpoint])


def _blocks(lines: Iterator[bytes]) -> Iterator[bytes]:
    block = bytearray()
    for line in lines:
        block += line + b"\n"
        if len(block) >= _BLOCK_BYTES:
            yield bytes(block)
            block.clear()
    yield bytes(block)
