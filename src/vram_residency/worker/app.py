"""The ASGI application: routes, correlation, and errors as problem details (worker.md)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import msgspec
from litestar import Litestar, Request, Response, get
from litestar.datastructures import State
from litestar.di import Provide
from litestar.openapi import OpenAPIConfig, ResponseSpec
from litestar.types import ControllerRouterHandler, Guard

from vram_residency.core.version import __version__
from vram_residency.worker import openapi, problem, wire
from vram_residency.worker.answer import answer_of
from vram_residency.worker.audit_routes import audit_router
from vram_residency.worker.committing import Committing
from vram_residency.worker.correlation import Correlation, Wrapper, wrapped
from vram_residency.worker.inject import TheService
from vram_residency.worker.routes import query_as, shard_router
from vram_residency.worker.service import WorkerService
from vram_residency.worker.threads import Threads

AnyRequest = Request[Any, Any, State]

#: JSON alone; a body that is a model has its own limit.
JSON_BYTES_MAX: Final = 1 << 20


def create_app(
    service: WorkerService,
    *,
    route_handlers: Sequence[ControllerRouterHandler] = (),
    wrappers: Sequence[Wrapper] = (),
    guards: Sequence[Guard] = (),
    threads: Threads | None = None,
) -> Litestar:
    """The application over one service; whoever runs it owns sockets, tokens and the service's end.

    route_handlers: more routes. wrappers: ASGI wrappers around everything, the first outermost; what they
    raise is answered as problem details. guards: Litestar's, asked before every handler.
    """
    threads = threads or Threads()
    committing = Committing(service, threads)
    app = Litestar(
        route_handlers=[livez, readyz, openapi_json, shard_router(), audit_router(), *route_handlers],
        dependencies={
            "service": _provide(service),
            "threads": _provide(threads),
            "committing": _provide(committing),
        },
        exception_handlers={Exception: answer_error},
        guards=list(guards),
        on_shutdown=[threads.close],
        openapi_config=OpenAPIConfig(title="vram worker", version=__version__, render_plugins=[]),
        request_max_body_size=JSON_BYTES_MAX,
        debug=False,
    )
    app.asgi_handler = Correlation(wrapped(app.asgi_handler, tuple(wrappers)), worker_id=service.worker_id)
    return app


@get("/livez", exclude_from_auth=True)
async def livez() -> dict[str, str]:
    """Answer, for the process is alive."""
    return {"status": "alive"}


@get(
    "/readyz",
    exclude_from_auth=True,
    query=wire.ReadinessQuery,
    responses={
        503: ResponseSpec(dict[str, Any], description="Nothing can be executed", generate_examples=False)
    },
)
async def readyz(request: AnyRequest, service: TheService) -> Response[dict[str, Any]]:
    """200 where models can be executed, else 503; what was last seen, nothing is read for it.

    The reason, which names shards, is told with ``?verbose`` alone, for which one must be known.
    """
    conditions = service.watchman.conditions
    body: dict[str, Any] = {"ready": conditions.is_ready, "state": str(conditions.state)}
    if query_as(request, wire.ReadinessQuery).verbose is not None:
        body["reason"] = conditions.stopped_by
    return Response(body, status_code=200 if conditions.is_ready else 503)


@get("/openapi.json", exclude_from_auth=True, include_in_schema=False)
async def openapi_json(request: AnyRequest) -> dict[str, Any]:
    """Describe this API (OpenAPI 3.1)."""
    return openapi.document(request.app)


def answer_error(_request: AnyRequest, error: Exception) -> Response[bytes]:
    """Whatever went wrong, as problem details."""
    found, headers = answer_of(error)
    return Response(
        msgspec.json.encode(found), status_code=found.status, media_type=problem.MEDIA_TYPE, headers=headers
    )


def _provide(value: Any) -> Provide:
    return Provide(lambda: value, sync_to_thread=False, use_cache=True)
