"""WorkerClient: the worker's API (worker.md) as typed calls, over its Unix socket or over TCP."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final, Self, TypeVar
from urllib.parse import quote

import msgspec

from vram_residency.core import context
from vram_residency.core.errors import WorkerError, WorkerRefusedError, WorkerUnreachableError
from vram_residency.residency import Capacity
from vram_residency.worker import wire
from vram_residency.worker.address import Address
from vram_residency.worker.event_stream import EventReader
from vram_residency.worker.problem import Problem

if TYPE_CHECKING:
    import httpx

_CONNECT_S: Final = 5.0
#: What a stream may take beyond its deadline until the worker has said that it has passed.
_GRACE_S: Final = 5.0
_ERROR_STATUS: Final = 400
_Answer = TypeVar("_Answer")


class WorkerClient:
    """One worker, asked over HTTP. Thread-safe. Use it as a context manager, or call ``close()``.

    address: where it listens and how to show who asks; ``Address()`` is the Unix socket of this user.
    timeout_s: how long the worker may be silent on calls that read no memory. Calls that load or verify
    may take as long as they do, unless ``deadline_s`` is given; then the worker gives up by itself.

    Every call raises WorkerRefusedError where the worker says no, and WorkerUnreachableError where none
    answers.
    """

    def __init__(self, address: Address | None = None, *, timeout_s: float = 30.0) -> None:
        self._address = Address() if address is None else address
        self._timeout_s = timeout_s
        self._http = self._address.open_http()

    @property
    def is_local(self) -> bool:
        """Whether the worker runs on this machine: paths mean the same to both."""
        return self._address.url is None

    # --- shards ---------------------------------------------------------------------------------------

    def plan(self, path: str, **choices: Any) -> wire.Plan:
        """Whether a model would fit. Choices are those of wire.PlanRequest."""
        return self._call("POST", "/v1/plan", wire.Plan, body=wire.PlanRequest(path=path, **choices))

    def commit(
        self,
        path: str,
        *,
        deadline_s: float | None = None,
        idempotency_key: str | None = None,
        **choices: Any,
    ) -> list[wire.Handle]:
        """Load and seal a file or an indexed directory under a model root of the worker.

        Choices are those of wire.CommitRequest. idempotency_key: the same call may be made again.
        """
        headers = {} if idempotency_key is None else {"Idempotency-Key": idempotency_key}
        return self._call(
            "POST",
            "/v1/commit",
            list[wire.Handle],
            body=wire.CommitRequest(path=path, **choices),
            deadline_s=deadline_s,
            is_long=True,
            headers=headers,
        )

    def shards(self) -> list[wire.Handle]:
        """All shards that the worker holds, quarantined ones included."""
        return self._call("GET", "/v1/shards", list[wire.Handle])

    def shard(self, shard_id: str) -> wire.Handle:
        """One shard."""
        return self._call("GET", _shard_path(shard_id), wire.Handle)

    def free(self, shard_id: str) -> None:
        """Free a shard."""
        self._call("DELETE", _shard_path(shard_id), None)

    def verify(
        self, shard_id: str, scope: wire.Scope = "full", *, deadline_s: float | None = None
    ) -> wire.Verified:
        """Have a shard verified now."""
        path = f"{_shard_path(shard_id)}/verify"
        body = wire.VerifyRequest(scope=scope)
        return self._call("POST", path, wire.Verified, body=body, deadline_s=deadline_s, is_long=True)

    def attest(
        self, shard_id: str, *, nonce: str, scope: wire.Scope = "full", deadline_s: float | None = None
    ) -> dict[str, Any]:
        """Have a shard verified now, and that signed: a DSSE envelope. ``nonce`` is yours."""
        return self._call(
            "GET",
            f"{_shard_path(shard_id)}/attestation",
            dict[str, Any],
            query={"nonce": nonce, "scope": scope},
            deadline_s=deadline_s,
            is_long=True,
        )

    def execute(
        self,
        handle_id: str,
        input: Any = None,  # noqa: A002 - the API's word
        params: dict[str, Any] | None = None,
        *,
        deadline_s: float | None = None,
    ) -> Iterator[Any]:
        """Run the engine on a shard, verified first; its outputs as they come. Closing cancels."""
        body = wire.ExecuteRequest(handle_id=handle_id, input=input, params=params or {})
        has_ended = False
        for name, data in self.stream("POST", "/v1/execute", body=body, deadline_s=deadline_s):
            if name == "output":
                yield data
            has_ended = name == "end"  # the stream is read out, so that its connection serves again
        if not has_ended:
            raise self._unreachable("it went away before the end of its answer")

    # --- the whole ------------------------------------------------------------------------------------

    def ready(self, *, deadline_s: float | None = None) -> wire.Ready:
        """Whether models can be executed, and which; the worker looks now."""
        return self._call("GET", "/v1/ready", wire.Ready, deadline_s=deadline_s, is_long=True)

    def status(self) -> wire.Status:
        """The worker in one document."""
        return self._call("GET", "/v1/status", wire.Status)

    def capacity(self) -> Capacity:
        """Bytes in all, used, available and kept free, at one instant."""
        return self._call("GET", "/v1/capacity", Capacity)

    def metrics(self) -> str:
        """The metrics, in Prometheus's text format."""
        return self._ask("GET", "/metrics").text

    def events(self) -> Iterator[tuple[str, Any]]:
        """What the worker narrates and audits, as it happens: (name, data). Never ends by itself."""
        return self.stream("GET", "/v1/events")

    def stream(
        self, method: str, path: str, *, body: Any = None, deadline_s: float | None = None
    ) -> Iterator[tuple[str, Any]]:
        """Server-sent events of a call: (name, data). An ``error`` event is raised as the problem it is."""
        request = self._request(
            method,
            path,
            body=body,
            deadline_s=deadline_s,
            is_long=True,
            headers={"Accept": "text/event-stream"},
        )
        with self._reaching():
            response = self._http.send(request, stream=True)
            try:
                if response.status_code >= _ERROR_STATUS:
                    raise self._problem(response.read(), response.status_code)
                yield from self._pairs(response)
            finally:
                response.close()

    def close(self) -> None:
        """Let go of the connections."""
        self._http.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"WorkerClient({str(self._address)!r})"

    # --- HTTP -----------------------------------------------------------------------------------------

    def _call(self, method: str, path: str, answer: type[_Answer] | None, **request: Any) -> _Answer:
        response = self._ask(method, path, **request)
        if answer is None:
            return None  # type: ignore[return-value] # the caller asked for nothing
        try:
            return msgspec.json.decode(response.content, type=answer)
        except msgspec.MsgspecError as error:
            raise self._unreachable(f"what answers there is no worker of this version: {error}") from None

    def _ask(self, method: str, path: str, **request: Any) -> httpx.Response:
        with self._reaching():
            response = self._http.send(self._request(method, path, **request))
        if response.status_code >= _ERROR_STATUS:
            raise self._problem(response.content, response.status_code)
        return response

    def _request(
        self,
        method: str,
        path: str,
        *,
        body: Any = None,
        query: dict[str, str] | None = None,
        headers: dict[str, str] | None = None,
        deadline_s: float | None = None,
        is_long: bool = False,
    ) -> httpx.Request:
        import httpx

        sent = dict(headers or {})
        silence_s = None if is_long else self._timeout_s
        if deadline_s is not None:
            sent["X-Deadline-Ms"] = str(max(round(deadline_s * 1e3), 1))
            silence_s = deadline_s + _GRACE_S
        if (correlation_id := context.correlation_id.get()) is not None:
            sent["X-Correlation-Id"] = correlation_id
        content = None
        if body is not None:
            content = msgspec.json.encode(body)
            sent["Content-Type"] = "application/json"
        timeout = httpx.Timeout(silence_s, connect=_CONNECT_S)
        return self._http.build_request(
            method, path, params=query, headers=sent, content=content, timeout=timeout
        )

    def _pairs(self, response: httpx.Response) -> Iterator[tuple[str, Any]]:
        reader = EventReader()
        for chunk in response.iter_raw():
            for event in reader.feed(chunk):
                if event.name == "error":
                    raise self._problem(event.data, response.status_code)
                yield event.name, msgspec.json.decode(event.data)

    @contextmanager
    def _reaching(self) -> Iterator[None]:
        """Whatever keeps an answer away, as one error."""
        import httpx

        try:
            self._address.require_socket()
            yield
        except WorkerError:
            raise
        except httpx.TimeoutException as error:
            raise self._unreachable(f"it did not answer in time ({type(error).__name__})") from error
        except httpx.HTTPError as error:
            raise self._unreachable(str(error) or type(error).__name__) from error
        except (OSError, ValueError, msgspec.MsgspecError) as error:
            raise self._unreachable(str(error)) from error

    def _problem(self, content: bytes, status: int) -> WorkerError:
        try:
            problem = msgspec.json.decode(content, type=Problem)
        except msgspec.MsgspecError:
            return self._unreachable(f"what answers there is no worker: HTTP status {status}")
        error = WorkerRefusedError(problem.code, problem.detail, hint=problem.hint)
        error.status = problem.status
        error.retriable = problem.retriable
        error.retry_after_ms = problem.retry_after_ms
        error.correlation_id = problem.correlation_id
        return error

    def _unreachable(self, reason: str) -> WorkerUnreachableError:
        return WorkerUnreachableError(str(self._address), reason)


def _shard_path(shard_id: str) -> str:
    return f"/v1/shards/{quote(shard_id, safe='')}"
