"""What belongs to every request of the worker: who asks, under which name, until when, and who went away."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.shards import write_model
from tests.workers import (
    Conversation,
    Worker,
    acting_as,
    open_log,
    parse_events,
    require_problem,
    wait_until,
    worker,
)

JSON = {"Content-Type": "application/json"}


class Endless:
    """An engine that counts, and can be held at a number; it remembers how it ended."""

    def __init__(self) -> None:
        self.given: list[int] = []
        self.is_closed = threading.Event()
        self.may_go_on = threading.Event()
        self.may_go_on.set()
        self.has_begun = threading.Event()

    def load(self, views: Any, metadata: Any) -> None:
        """Nothing is needed."""

    def execute(self, request: Any) -> Iterator[Any]:
        """0, 1, 2, …"""
        try:
            while True:
                self.has_begun.set()
                self.may_go_on.wait(20)
                self.given.append(len(self.given))
                yield self.given[-1]
        finally:
            self.is_closed.set()

    def close(self) -> None:
        """Nothing was kept."""


@pytest.fixture
def engine() -> Endless:
    return Endless()


@pytest.fixture
def endless(tmp_path: Path, engine: Endless) -> Iterator[Worker]:
    """A worker whose engine never ends, with the shard ``s``; few threads."""
    with worker(tmp_path, make_engine=lambda: engine, places=2, wait_s=0.05) as running:
        running.commit(write_model(tmp_path, 10), shard_id="s")
        yield running
        engine.may_go_on.set()


def execution(running: Worker, leaves_after: bytes | None = None, **headers: str) -> Conversation:
    """An execution on the shard ``s``, spoken by hand."""
    body = json.dumps({"handle_id": "s"}).encode()
    headers = JSON | {"Content-Length": str(len(body))} | headers
    return Conversation(running.app, "/v1/execute", [body], headers=headers, leaves_after=leaves_after)


# --- cancellation -------------------------------------------------------------------------------------


def test_nothing_comes_after_a_cancel(endless: Worker, engine: Endless):
    spoken = endless.speak(execution(endless, leaves_after=b"data: 2\n\n"))
    assert engine.is_closed.wait(10)
    received = [data for name, data in parse_events(bytes(spoken.received)) if name == "output"]
    assert received == [0, 1, 2]
    # One may have been under way when the client left; none was begun after that.
    assert engine.given[: len(received)] == received
    assert len(engine.given) <= len(received) + 1
    assert b"event: end" not in spoken.received
    wait_until(lambda: endless.service.watchman.conditions.executions == 0)
    assert endless.client.get("/readyz").json()["state"] == "ready"


def test_a_cancelled_execution_lets_the_next_one_in_and_the_shard_go(endless: Worker):
    for _ in range(5):
        endless.speak(execution(endless, leaves_after=b"event: output"))
    wait_until(lambda: endless.service.watchman.conditions.executions == 0)
    assert endless.client.delete("/v1/shards/s").status_code == 204
    endless.require_untouched()


def test_an_execution_that_waits_for_its_turn_can_be_cancelled(endless: Worker, engine: Endless):
    engine.may_go_on.clear()

    async def talk() -> None:
        first = asyncio.create_task(execution(endless, leaves_after=b"event: output").run())
        await asyncio.to_thread(engine.has_begun.wait, 10)
        second = asyncio.create_task(execution(endless, leaves_after=b"event: output").run())
        await asyncio.sleep(0)
        engine.may_go_on.set()
        await asyncio.gather(first, second)

    endless.run(talk)
    wait_until(lambda: endless.service.watchman.conditions.executions == 0)


# --- deadlines and limits -----------------------------------------------------------------------------


def test_an_execution_ends_at_its_deadline(endless: Worker, engine: Endless):
    spoken = endless.speak(execution(endless, **{"X-Deadline-Ms": "200"}))
    found = parse_events(bytes(spoken.received))
    if spoken.status == 200:
        assert (found[-1][0], found[-1][1]["code"]) == ("error", "DEADLINE_EXCEEDED")
        assert found[-1][1]["retriable"]
        assert engine.is_closed.wait(10)
    else:
        assert spoken.status == 504


def test_a_call_that_takes_too_long_is_answered_at_its_deadline(
    endless: Worker, monkeypatch: pytest.MonkeyPatch
):
    go_on = threading.Event()
    monkeypatch.setattr(endless.service, "handles", lambda: go_on.wait(20) and [])
    answer = endless.client.get("/v1/shards", headers={"X-Deadline-Ms": "30"})
    require_problem(answer, 504, "DEADLINE_EXCEEDED")
    go_on.set()


def test_a_commit_that_is_late_leaves_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    path = write_model(tmp_path, 3_000_000)
    with worker(tmp_path) as running:
        commit_path = running.service.commit_path
        passed = threading.Event()

        def slowly(request: Any, on_progress: Any) -> Any:
            passed.wait(0.1)
            return commit_path(request, on_progress)

        monkeypatch.setattr(running.service, "commit_path", slowly)
        request = {"json": {"path": path.name}, "headers": {"X-Deadline-Ms": "30"}}
        require_problem(running.client.post("/v1/commit", **request), 504, "DEADLINE_EXCEEDED")
        running.require_untouched()


@pytest.mark.parametrize("deadline", ["0", "-1", "1.5", "soon", "", "9" * 30, "86400001", "1_000"])
def test_a_deadline_that_is_no_number_of_milliseconds_is_refused(deadline: str, endless: Worker):
    answer = endless.client.get("/v1/status", headers={"X-Deadline-Ms": deadline})
    require_problem(answer, 400, "INVALID_PARAMS")


def test_a_worker_whose_threads_are_all_at_work_is_busy(endless: Worker, engine: Endless):
    engine.may_go_on.clear()

    async def talk() -> None:
        spoken = [
            asyncio.create_task(execution(endless, leaves_after=b"event: output").run()) for _ in range(2)
        ]
        await asyncio.to_thread(engine.has_begun.wait, 10)
        await asyncio.to_thread(wait_until, lambda: endless.service.watchman.conditions.executions == 2)
        refused = Conversation(endless.app, "/v1/status", [b""], method="GET")
        await refused.run()
        assert (refused.status, json.loads(refused.received)["code"]) == (503, "BUSY")
        engine.may_go_on.set()
        await asyncio.gather(*spoken)

    endless.run(talk)
    wait_until(lambda: endless.service.watchman.conditions.executions == 0)
    assert endless.client.get("/v1/status").status_code == 200


def test_a_hundred_clients_at_once_are_all_answered(tmp_path: Path):
    with worker(tmp_path, places=8, wait_s=20) as running:
        running.commit(write_model(tmp_path, 10), shard_id="s")

        async def talk() -> list[Conversation]:
            return await asyncio.gather(*(execution(running).run() for _ in range(100)))

        spoken = running.run(talk)
    assert [each.status for each in spoken] == [200] * 100
    assert all(parse_events(bytes(each.received))[-1][0] == "end" for each in spoken)


# --- correlation and actor ----------------------------------------------------------------------------


def test_the_correlation_id_is_taken_recorded_and_echoed(tmp_path: Path):
    with worker(tmp_path) as running:
        path = write_model(tmp_path, 10)
        answer = running.client.post(
            "/v1/commit", json={"path": path.name}, headers={"X-Correlation-Id": "request-7"}
        )
        assert answer.headers["x-correlation-id"] == "request-7"
        (sealed,) = [each for each in running.log.recorded if each.event_type == "vram_sealed"]
        assert sealed.correlation_id == "request-7"
        told = [each for each in running.story.events if each.action == "seal"]
        assert [each.correlation_id for each in told] == ["request-7"]


def test_the_trace_of_the_caller_names_the_request(tmp_path: Path):
    trace_id = "4bf92f3577b34da6a3ce929d0e0e4736"
    with worker(tmp_path) as running:
        answer = running.client.get("/livez", headers={"traceparent": f"00-{trace_id}-00f067aa0ba902b7-01"})
    assert answer.headers["x-correlation-id"] == trace_id
    assert answer.headers["traceparent"].split("-")[1] == trace_id


@pytest.mark.parametrize("path", ["/livez", "/v1/shards", "/v1/shards/nope", "/nothing", "/v1/plan"])
def test_every_answer_has_a_correlation_id(path: str, endless: Worker):
    first, second = (endless.client.get(path).headers["x-correlation-id"] for _ in range(2))
    assert first != second


def test_an_invalid_correlation_id_is_replaced(endless: Worker):
    echoed = endless.client.get("/livez", headers={"X-Correlation-Id": "a b\tc"}).headers["x-correlation-id"]
    assert " " not in echoed


def test_everything_is_audited_with_its_actor_and_correlation_id(tmp_path: Path):
    root = tmp_path / "models"
    root.mkdir()
    path = write_model(root, 10)
    alice = {"x-actor": "alice", "X-Correlation-Id": "c-1"}
    with open_log(tmp_path / "log") as log, worker(root, log=log, app={"wrappers": [acting_as()]}) as running:
        post = running.client.post
        assert post("/v1/commit", json={"path": path.name, "shard_id": "s"}, headers=alice).status_code == 201
        assert post("/v1/execute", json={"handle_id": "s"}, headers=alice).status_code == 200
        require_problem(post("/v1/plan", json={"path": "../log"}, headers=alice), 400, "INVALID_PARAMS")
        require_problem(post("/v1/commit", json={"path": "/etc/passwd"}), 400, "INVALID_PARAMS")
        answer = running.client.get("/v1/audit", params={"actor": "alice"}, headers=alice)
        entries = [json.loads(line) for line in answer.text.splitlines()]
        tried = running.client.get("/v1/audit", params={"event": "path_traversal_attempt"}).text.splitlines()
    types = [each["event_type"] for each in entries]
    assert types.count("path_traversal_attempt") == 1
    assert {"vram_sealed", "vram_allocated", "seal_verified", "worker_state_changed"} <= set(types)
    assert {each["correlation_id"] for each in entries} == {"c-1"}
    assert {each["actor"]["user_id"] for each in entries} == {"alice"}
    attempts = [json.loads(line) for line in tried]
    assert [(each["attempted_path"], each["endpoint"]) for each in attempts] == [
        ("../log", "/v1/plan"),
        ("/etc/passwd", "/v1/commit"),
    ]
    assert attempts[0]["actor"] == {"auth_method": "bearer_token", "ip": "192.0.2.7", "user_id": "alice"}
    assert attempts[1]["actor"]["user_id"] == "unknown"
