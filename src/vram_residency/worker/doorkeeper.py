"""Who may come in, how often, and with how much: an ASGI wrapper before the whole application (worker.md)."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

from litestar.connection import ASGIConnection
from litestar.handlers import BaseRouteHandler
from litestar.types import ASGIApp, Message, Receive, Send

from vram_residency.audit.events import (
    Actor,
    AuthFailure,
    AuthorizationDenied,
    InvalidTokenUsed,
    RateLimitExceeded,
    Resource,
)
from vram_residency.core import context
from vram_residency.core.keys import fingerprint
from vram_residency.worker import access, answer, problem
from vram_residency.worker.caller import ALL_SCOPES, STATE_KEY, Caller, Connection, caller_of
from vram_residency.worker.caller import Scope as AccessScope
from vram_residency.worker.limits import Buckets, Limits, Rate
from vram_residency.worker.problem import Refused
from vram_residency.worker.reporter import Reporter
from vram_residency.worker.tokens import Tokens

#: Where the transport puts its Connection: ``scope["state"][CONNECTION_KEY]``.
CONNECTION_KEY: Final = "connection"
#: Streams that last as long as their readers: nothing that a drain waits for.
_ENDLESS: Final = frozenset({"/v1/events"})


class Rules:
    """Who is let in. Without tokens and certificates nobody is, over TCP."""

    def __init__(
        self,
        *,
        uids: frozenset[int],
        tokens: Tokens | None = None,
        certificate_scopes: frozenset[AccessScope] = frozenset(),
        hosts: frozenset[str] = frozenset(),
        origins: frozenset[str] = frozenset(),
    ) -> None:
        self.uids = uids
        self.tokens = tokens or Tokens(())
        self.certificate_scopes = certificate_scopes
        self.hosts = hosts
        self.origins = origins


class Doorkeeper:
    """One event loop's. ``running`` counts the requests under way, endless streams left out."""

    def __init__(self, rules: Rules, limits: Limits, reporter: Reporter) -> None:
        self._rules = rules
        self._limits = limits
        self._reporter = reporter
        self._requests = Buckets(limits.requests)
        self._failures = Buckets(limits.failures)
        self.running = 0

    def wrap(self, app: ASGIApp) -> ASGIApp:
        """``app`` behind the door."""

        async def guarded(scope: Any, receive: Receive, send: Send) -> None:
            if scope["type"] != "http":
                await app(scope, receive, send)
                return
            try:
                caller = self._admit(scope)
                limit = self._body_limit(scope)
                leave = self._entered(scope["path"])
            except Refused as refusal:
                await answer.send_problem(refusal, _closing(send, refusal))
                return
            context.actor.set(None if caller is None else caller.actor)
            scope.setdefault("state", {})[STATE_KEY] = caller
            with leave:
                body = _Body(receive, limit)
                await app(scope, body.receive, body.closing_where_too_large(send))

        return guarded

    def guard(self, connection: ASGIConnection[Any, Any, Any, Any], handler: BaseRouteHandler) -> None:
        """A Litestar guard: the caller's scopes against the one that the route declares as ``needs``."""
        method, path = str(connection.scope.get("method", "")), connection.scope["path"]
        if access.is_open(method, path, connection.scope["query_string"]):
            return
        caller = caller_of(connection.scope)
        needed = access.scope_needed(method, handler.opt.get("needs"))
        if caller is None:
            raise Refused(problem.AUTH_FAILED, "this needs credentials")
        if needed not in caller.scopes:
            event = AuthorizationDenied(
                actor=Actor(**caller.actor),
                resource=Resource(resource_type="endpoint", resource_id=path),
                action=method,
                reason=f"needs the scope {needed}",
            )
            self._reporter.report(event, caller.ip or caller.user_id)
            raise Refused(problem.FORBIDDEN, f"this needs the scope {needed}")

    def _admit(self, scope: Any) -> Caller | None:
        """The caller, or None where the request is open to all. Raises Refused."""
        connection: Connection = scope["state"][CONNECTION_KEY]
        headers = _Headers(scope["headers"])
        path, query = scope["path"], scope["query_string"]
        # 1. Is it meant for us, and from no foreign page?
        self._require_addressed(connection, headers, path)
        # 2. Headers and query within bounds.
        if len(scope["headers"]) > self._limits.header_count_max:
            raise Refused(problem.HEADERS_TOO_LARGE, f"more than {self._limits.header_count_max} headers")
        if access.has_secret(query):
            raise Refused(problem.INVALID_PARAMS, "a query is no place for a credential: it is kept in logs")
        # 3. Who is it?
        if access.is_open(scope["method"], path, query) and connection.uid is None:
            self._require_rate(self._requests, connection.address, connection.address, path)
            return None
        caller = self._recognised(connection, headers, path)
        # 4. How often?
        self._require_rate(self._requests, caller.user_id, connection.address, path)
        self._reporter.succeeded(caller, connection.address, path)
        return caller

    def _require_addressed(self, connection: Connection, headers: _Headers, path: str) -> None:
        is_local = connection.uid is not None
        if not is_local and not access.is_allowed_host(headers.only("host"), self._rules.hosts):
            self._failed(connection, path, "the Host header names no host of this worker")
            raise Refused(problem.MISDIRECTED, "the Host header names no host of this worker")
        if not access.is_allowed_origin(headers.only("origin"), self._rules.origins):
            self._failed(connection, path, "a page of a foreign origin called")
            raise Refused(problem.FORBIDDEN, "pages of this origin may not call")

    def _recognised(self, connection: Connection, headers: _Headers, path: str) -> Caller:
        """By uid on the Unix socket, by token or certificate on TCP. Raises Refused."""
        if connection.uid is not None:
            if connection.uid not in self._rules.uids:
                self._failed(connection, path, f"user {connection.uid} may not call")
                raise Refused(problem.FORBIDDEN, "this user may not call")
            return Caller(user_id=f"uid:{connection.uid}", auth_method="peer_uid", scopes=ALL_SCOPES)
        presented = headers.only("authorization")
        if presented is not None:
            return self._bearer(connection, presented, path)
        if connection.subject is not None:
            return Caller(
                user_id=f"certificate:{connection.subject}",
                auth_method="m_tls",
                scopes=self._rules.certificate_scopes,
                ip=connection.ip,
            )
        self._failed(connection, path, "no credentials")
        raise Refused(problem.AUTH_FAILED, "this needs credentials", hint="Send Authorization: Bearer TOKEN.")

    def _bearer(self, connection: Connection, presented: str, path: str) -> Caller:
        scheme, _, value = presented.partition(" ")
        token = self._rules.tokens.find(value.strip(), time.time()) if scheme.lower() == "bearer" else None
        if token is None:
            # A right token is never slowed down by wrong ones from the same address.
            prefix = fingerprint(value.strip().encode("utf-8", "surrogateescape"))
            event = InvalidTokenUsed(ip=connection.address, token_prefix=prefix, endpoint=path)
            self._reporter.report(event, connection.address)
            self._require_rate(self._failures, connection.address, connection.address, path)
            raise Refused(problem.AUTH_FAILED, "the token is not known, or it has ended")
        return Caller(
            user_id=f"client:{token.name}",
            auth_method="bearer_token",
            scopes=token.scopes,
            ip=connection.ip,
            session_id=token.fingerprint,
        )

    def _failed(self, connection: Connection, path: str, reason: str) -> None:
        event = AuthFailure(reason=reason, ip=connection.address, path=path)
        self._reporter.report(event, connection.address)
        self._require_rate(self._failures, connection.address, connection.address, path)

    def _require_rate(self, buckets: Buckets, peer: str, address: str, path: str) -> None:
        if buckets.take(peer, time.monotonic()):
            return
        self._reporter.report(_exceeded(buckets.rate, address, path), address)
        raise Refused(problem.TOO_MANY, f"more than {buckets.rate.per_s} requests a second")

    def _body_limit(self, scope: Any) -> int:
        headers = _Headers(scope["headers"])
        content_type = headers.only("content-type") or ""
        limit = access.body_limit(scope["method"], scope["path"], content_type, self._limits)
        declared = headers.only("content-length")
        if declared is not None and headers.only("transfer-encoding") is not None:
            # Two ways to find the end of a body: a proxy before us may have chosen the other one.
            raise Refused(
                problem.INVALID_PARAMS, "Content-Length and Transfer-Encoding contradict each other"
            )
        if declared is not None and declared.isdigit() and int(declared) > limit:
            raise _too_large(limit)
        return limit

    def _entered(self, path: str) -> Any:
        if path in _ENDLESS:
            return _nothing()
        if self.running >= self._limits.requests_max:
            raise Refused(problem.BUSY, f"{self._limits.requests_max} requests are under way already")
        return self._counted()

    @contextmanager
    def _counted(self) -> Iterator[None]:
        self.running += 1
        try:
            yield
        finally:
            self.running -= 1


class _Headers:
    """Headers by name, those that come twice being none: two answers to one question are a trick."""

    def __init__(self, pairs: list[tuple[bytes, bytes]]) -> None:
        self._pairs = pairs

    def only(self, name: str) -> str | None:
        wanted = name.encode()
        found = [value for key, value in self._pairs if key.lower() == wanted]
        if not found:
            return None
        if len(found) > 1:
            raise Refused(problem.INVALID_PARAMS, f"the header {name} comes more than once")
        return found[0].decode("latin-1").strip()


class _Body:
    """A request's body: Refused once it is longer than it may be, and then the connection ends."""

    def __init__(self, receive: Receive, limit: int) -> None:
        self._receive = receive
        self._limit = limit
        self._taken = 0

    async def receive(self) -> Any:
        message = await self._receive()
        if message["type"] == "http.request":
            self._taken += len(message.get("body", b""))
            if self._taken > self._limit:
                raise _too_large(self._limit)
        return message

    def closing_where_too_large(self, send: Send) -> Send:
        closing = _closing(send, _too_large(self._limit))

        async def send_so(message: Message) -> None:
            await (closing if self._taken > self._limit else send)(message)

        return send_so


def _closing(send: Send, refusal: Refused) -> Send:
    """``send``, telling that the connection ends: what else was on its way is not read."""

    async def closing(message: Message) -> None:
        if message["type"] == "http.response.start":
            more = [(b"connection", b"close")]
            if refusal.kind is problem.AUTH_FAILED:
                more.append((b"www-authenticate", b"Bearer"))
            message["headers"] = [*message["headers"], *more]
        await send(message)

    return closing


def _exceeded(rate: Rate, address: str, path: str) -> RateLimitExceeded:
    return RateLimitExceeded(
        ip=address, endpoint=path, limit=rate.per_s, actual=rate.burst + 1, window_seconds=1
    )


def _too_large(limit: int) -> Refused:
    return Refused(problem.TOO_LARGE, f"the body is larger than {limit} bytes")


@contextmanager
def _nothing() -> Iterator[None]:
    yield
