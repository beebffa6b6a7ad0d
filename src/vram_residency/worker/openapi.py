"""The OpenAPI document: the framework's, and what it cannot know of queries, bodies, headers and errors.

What a handler reads by itself it declares in its ``opt``: ``query`` and ``bodies`` are our structs,
``streams`` is the media type of an answer that comes in pieces.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final

import msgspec
from litestar import Litestar
from litestar.handlers import HTTPRouteHandler

from vram_residency.worker import deadline, problem, wire

_REFERENCES: Final = "#/components/schemas/{name}"
_BINARY: Final = {"type": "string", "format": "binary"}


def document(app: Litestar) -> dict[str, Any]:
    """What ``/openapi.json`` answers."""
    found: dict[str, Any] = app.openapi_schema.to_schema()
    components = found.setdefault("components", {}).setdefault("schemas", {})
    components |= _wire_schemas()
    for path, method, handler in _operations(app):
        operation = found.get("paths", {}).get(path, {}).get(method)
        if operation is not None:
            components |= _complete(operation, handler)
    return found


def _wire_schemas() -> dict[str, Any]:
    """Of all our bodies; unlike the framework's they say that other fields are refused."""
    kinds = [
        kind for kind in vars(wire).values() if isinstance(kind, type) and issubclass(kind, msgspec.Struct)
    ]
    return msgspec.json.schema_components(kinds, ref_template=_REFERENCES)[1]


def _operations(app: Litestar) -> Iterator[tuple[str, str, HTTPRouteHandler]]:
    for route in app.routes:
        for handler in getattr(route, "route_handlers", ()):
            for method in getattr(handler, "http_methods", ()):
                yield route.path_format, method.lower(), handler


def _complete(operation: dict[str, Any], handler: HTTPRouteHandler) -> dict[str, Any]:
    """Add to one operation what its handler declares; the schemas that this needs."""
    bodies: Mapping[str, type[msgspec.Struct] | None] = handler.opt.get("bodies", {})
    query: type[msgspec.Struct] | None = handler.opt.get("query")
    kinds = [problem.Problem, *filter(None, [*bodies.values(), query])]
    (_, *_), schemas = msgspec.json.schema_components(kinds, ref_template=_REFERENCES)
    operation["summary"] = " ".join((handler.fn.__doc__ or "").split("\n\n")[0].split()).rstrip(".")
    parameters = operation.setdefault("parameters", [])
    if query is not None:
        parameters += _query_parameters(schemas.pop(query.__name__), is_body=bool(bodies))
    parameters += _headers(handler)
    if bodies:
        operation["requestBody"] = {
            "required": True,
            "content": {name: {"schema": _body_schema(kind)} for name, kind in bodies.items()},
        }
    if "streams" in handler.opt:
        for answer in operation["responses"].values():
            # Without a schema: OpenAPI 3.1 has none for a stream of events.
            answer.setdefault("content", {})[handler.opt["streams"]] = {}
    operation["responses"].pop("400", None)  # the framework's own form of errors, which is not ours
    operation["responses"]["default"] = {
        "description": "Problem details (RFC 9457)",
        "content": {problem.MEDIA_TYPE: {"schema": {"$ref": _REFERENCES.format(name="Problem")}}},
    }
    if "needs" in handler.opt:
        operation["x-needs-scope"] = handler.opt["needs"]
    return schemas


def _query_parameters(schema: dict[str, Any], *, is_body: bool) -> list[dict[str, Any]]:
    note = {"description": "Only with a body that is the model."} if is_body else {}
    return [
        {
            "name": name,
            "in": "query",
            "required": name in schema.get("required", ()),
            "schema": _without_null(each),
            **note,
        }
        for name, each in schema["properties"].items()
    ]


def _headers(handler: HTTPRouteHandler) -> list[dict[str, Any]]:
    limits = {"type": "integer", "minimum": 1, "maximum": deadline.DEADLINE_MS_MAX}
    found = [_header(deadline.HEADER, limits)] if "needs" in handler.opt else []
    return found + [_header(name, schema) for name, schema in handler.opt.get("headers", {}).items()]


def _header(name: str, schema: dict[str, Any]) -> dict[str, Any]:
    return {"name": name, "in": "header", "required": False, "schema": schema}


def _body_schema(kind: type[msgspec.Struct] | None) -> dict[str, Any]:
    return _BINARY if kind is None else {"$ref": _REFERENCES.format(name=kind.__name__)}


def _without_null(schema: dict[str, Any]) -> dict[str, Any]:
    """A parameter is left out, never null."""
    rest = {name: value for name, value in schema.items() if name not in {"anyOf", "default"}}
    some = [each for each in schema.get("anyOf", ()) if each != {"type": "null"}]
    default = {} if schema.get("default") is None else {"default": schema["default"]}
    rest = rest | (some[0] if len(some) == 1 else {"anyOf": some} if some else {}) | default
    if "enum" in rest:
        rest["enum"] = [each for each in rest["enum"] if each is not None]
    return rest
