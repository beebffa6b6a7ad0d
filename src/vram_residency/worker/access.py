"""What a request needs: its scope, its host, its origin, its size. Pure decisions (worker.md)."""

from __future__ import annotations

from collections.abc import Collection
from typing import Final
from urllib.parse import parse_qsl

from vram_residency.worker.caller import Scope
from vram_residency.worker.limits import Limits

#: What tells no more than that a worker is here; ``/readyz`` only without its query.
_OPEN: Final = frozenset({"/", "/livez", "/readyz"})
_OPEN_FOLDER: Final = "/page/"
#: Query parameters that somebody might carry a secret in.
_SECRET_NAMES: Final = frozenset({"access_token", "token", "api_key", "apikey", "authorization", "password"})


def is_open(method: str, path: str, query: bytes) -> bool:
    """Whether a request needs no credentials."""
    if method not in {"GET", "HEAD"}:
        return False
    return (path in _OPEN and not (path == "/readyz" and query)) or path.startswith(_OPEN_FOLDER)


def scope_needed(method: str, declared: Scope | None) -> Scope:
    """The scope that a route takes: the one it declares; else ``read`` to read, ``admin`` for the rest."""
    return declared or ("read" if method in {"GET", "HEAD"} else "admin")


def has_secret(query: bytes) -> bool:
    """Whether a query carries what might be a credential: it would stand in histories and logs."""
    names = parse_qsl(query.decode("latin-1"), keep_blank_values=True)
    return any(name.lower() in _SECRET_NAMES for name, _ in names)


def is_allowed_host(host: str | None, allowed: Collection[str]) -> bool:
    """Whether the Host header names this worker: a name that a stranger's DNS points here must not do."""
    return host is not None and host.lower() in allowed


def is_allowed_origin(origin: str | None, allowed: Collection[str]) -> bool:
    """Whether a browser's page may call: none is no page."""
    return origin is None or origin.lower() in allowed


def body_limit(method: str, path: str, content_type: str, limits: Limits) -> int:
    """How many bytes a request's body may have: only a model is large."""
    is_model = method == "POST" and path.rstrip("/") == "/v1/commit"
    is_json = content_type.partition(";")[0].strip().lower() in {"", "application/json"}
    return limits.body_bytes_max if is_model and not is_json else limits.json_bytes_max
