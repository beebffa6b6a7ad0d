"""The API's routes over shards (worker.md, "Endpoints"): each names a call of the service, and no more.

``opt["needs"]`` is the scope that whoever asks must have.
"""

from __future__ import annotations

from contextlib import closing
from typing import Any, Final

import msgspec
from litestar import Request, Router, delete, get, post, route
from litestar.datastructures import State
from litestar.handlers import HTTPRouteHandler
from litestar.params import FromPath, JSONBody
from litestar.response import Response

from vram_residency.core.errors import InvalidInputError
from vram_residency.residency import Capacity
from vram_residency.worker import idempotency, streaming, wire
from vram_residency.worker.committing import CommitFlow
from vram_residency.worker.inject import TheCommitting, TheService, TheThreads
from vram_residency.worker.service import ignore_progress
from vram_residency.worker.threads import Give
from vram_residency.worker.upload import Upload

AnyRequest = Request[Any, Any, State]

BODY_MEDIA_TYPE: Final = "application/octet-stream"
JSON_MEDIA_TYPE: Final = "application/json"
EVENTS: Final = streaming.MEDIA_TYPE


@post("/plan", status_code=200, needs="read")
async def plan(data: JSONBody[wire.PlanRequest], service: TheService, threads: TheThreads) -> wire.Plan:
    """Say whether a model would fit; nothing is reserved."""
    return await threads.call(service.plan, data)


@post(
    "/commit",
    status_code=201,
    needs="admin",
    bodies={JSON_MEDIA_TYPE: wire.CommitRequest, BODY_MEDIA_TYPE: None},
    query=wire.BodyCommit,
    headers=idempotency.HEADERS,
    streams=EVENTS,
)
async def commit(
    request: AnyRequest, service: TheService, committing: TheCommitting
) -> Response[list[wire.Handle]]:
    """Load and seal a model: one under a model root, or the body itself."""
    key = request.headers.get(idempotency.HEADER)
    kind = request.content_type[0]
    if kind == JSON_MEDIA_TYPE:
        refuse_query(request)
        commit_it = committing.of_path(decoded(await request.body(), wire.CommitRequest), key)
    elif kind == BODY_MEDIA_TYPE:
        upload = Upload(request, body_bytes_max=service.options.body_bytes_max)
        commit_it = committing.of_body(query_as(request, wire.BodyCommit), upload, key)
    else:
        raise InvalidInputError("Content-Type", f"must be {JSON_MEDIA_TYPE} or {BODY_MEDIA_TYPE}")
    if EVENTS in request.headers.get("accept", ""):
        return await streaming.begin_events(CommitFlow(commit_it), status_code=201)  # type: ignore[return-value] # the same, told in pieces
    return Response(await commit_it(ignore_progress))


@get("/ready", needs="read")
async def ready(service: TheService, threads: TheThreads) -> wire.Ready:
    """Say whether models can be executed, looked at now."""
    return await threads.call(service.ready)


@post("/execute", status_code=200, needs="execute", media_type=EVENTS, streams=EVENTS)
async def execute(
    data: JSONBody[wire.ExecuteRequest], service: TheService, threads: TheThreads
) -> Response[str]:
    """Verify, then run the engine; server-sent events started, output…, metrics, end or error."""

    def produce(give: Give) -> None:
        with closing(service.execute(data)) as pairs:
            for pair in pairs:
                give(pair)

    return await streaming.begin_events(await threads.flow(produce))  # type: ignore[return-value] # in pieces


@get("/shards", needs="read")
async def list_shards(service: TheService, threads: TheThreads) -> list[wire.Handle]:
    """List all shards held."""
    return await threads.call(service.handles)


@get("/shards/{shard_id:str}", needs="read")
async def show_shard(shard_id: FromPath[str], service: TheService, threads: TheThreads) -> wire.Handle:
    """Show one shard."""
    return await threads.call(service.handle, shard_id)


@delete("/shards/{shard_id:str}", needs="admin")
async def free_shard(shard_id: FromPath[str], service: TheService, threads: TheThreads) -> None:
    """Free a shard."""
    await threads.call(service.free, shard_id)


@route(
    "/shards/{shard_id:str}", http_method=["OPTIONS"], status_code=204, include_in_schema=False, needs="read"
)
async def shard_options(shard_id: FromPath[str]) -> Response[None]:  # noqa: ARG001 - the route's parameter
    """Tell what can be asked of a shard; the framework would leave DELETE out."""
    return Response(None, headers={"Allow": "DELETE, GET, OPTIONS"})


@post("/shards/{shard_id:str}/verify", status_code=200, needs="read")
async def verify_shard(
    shard_id: FromPath[str], data: JSONBody[wire.VerifyRequest], service: TheService, threads: TheThreads
) -> wire.Verified:
    """Verify a shard now."""
    return await threads.call(service.verify, shard_id, data.scope)


@get("/shards/{shard_id:str}/attestation", needs="read", query=wire.AttestRequest)
async def attest_shard(
    shard_id: FromPath[str], request: AnyRequest, service: TheService, threads: TheThreads
) -> dict[str, Any]:
    """Verify a shard and sign that: a DSSE envelope."""
    return await threads.call(service.attest, shard_id, query_as(request, wire.AttestRequest))


@get("/capacity", needs="read")
async def capacity(service: TheService, threads: TheThreads) -> Capacity:
    """Bytes in all, used, available and kept free, at one instant."""
    return await threads.call(service.manager.capacity)


@get("/status", needs="read")
async def status(service: TheService, threads: TheThreads) -> wire.Status:
    """Show the worker in one document."""
    return await threads.call(service.status)


def decoded(body: bytes, kind: type[msgspec.Struct]) -> Any:
    """A JSON body as one of our structs. Raises InvalidInputError."""
    try:
        return msgspec.json.decode(body, type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise InvalidInputError("body", str(error)) from None


def query_as(request: AnyRequest, kind: type[msgspec.Struct]) -> Any:
    """The query parameters as one of our structs, a list for each that may come again.

    Raises InvalidInputError for one that is unknown, or comes twice where one is meant.
    """
    given: dict[str, Any] = {}
    many = {field.name for field in msgspec.structs.fields(kind) if field.type == list[str]}
    for name, value in request.query_params.multi_items():
        if name in many:
            given.setdefault(name, []).append(value)
        elif name in given:
            raise InvalidInputError(name, "must be given once")
        else:
            given[name] = value
    try:
        return msgspec.convert(given, kind, strict=False)
    except msgspec.ValidationError as error:
        raise InvalidInputError("query", str(error)) from None


def refuse_query(request: AnyRequest) -> None:
    """Raise InvalidInputError where there are query parameters that nobody reads."""
    for name in request.query_params:
        raise InvalidInputError(name, "is no query parameter of this call")


def shard_router() -> Router:
    """Everything under ``/v1`` that concerns shards."""
    handlers: list[HTTPRouteHandler] = [
        shard_options,  # before the others of its path, for which the framework would make one
        plan, commit, ready, execute, list_shards, show_shard, free_shard, verify_shard, attest_shard,
        capacity, status,
    ]  # fmt: skip
    return Router("/v1", route_handlers=handlers)
