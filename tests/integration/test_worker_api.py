"""The worker's API: every call, every way in which it is refused, and what stops the worker."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.models import SILERO, split_model
from tests.shards import CAPACITY, write_model
from tests.workers import Worker, events_of, require_problem, worker

from vram_residency import AuditWriteError, DeviceLostError
from vram_residency.core.errors import AllocationError
from vram_residency.residency import FULL
from vram_residency.worker.problem import FORBIDDEN, Refused

TENSOR_BYTES = 300_000


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """A model of two tensors under the root."""
    return write_model(tmp_path, TENSOR_BYTES, 7)


@pytest.fixture
def at_work(model: Path) -> Iterator[Worker]:
    """A worker whose model root holds ``model``."""
    with worker(model.parent) as running:
        yield running


@pytest.fixture
def loaded(at_work: Worker, model: Path) -> Worker:
    """A worker that holds the shard ``s``."""
    at_work.commit(model, shard_id="s")
    return at_work


def test_a_worker_without_a_shard_is_alive_and_not_ready(at_work: Worker):
    assert at_work.client.get("/livez").json() == {"status": "alive"}
    readiness = at_work.client.get("/readyz")
    assert (readiness.status_code, readiness.json()["state"]) == (503, "loading")
    assert at_work.client.get("/v1/ready").json() == {
        "ready": False, "state": "loading", "reason": None, "handles": [],
    }  # fmt: skip
    require_problem(at_work.execute("s"), 503, "WORKER_STOPPED")


def test_a_worker_that_may_start_empty_is_ready_at_once(tmp_path: Path):
    with worker(tmp_path, allow_empty_start=True) as empty:
        assert empty.client.get("/readyz").status_code == 200
        require_problem(empty.execute("s"), 404, "INVALID_PARAMS")


def test_a_plan_says_what_a_model_needs_and_reserves_nothing(at_work: Worker, model: Path):
    plan = at_work.client.post("/v1/plan", json={"path": model.name}).json()
    size_bytes = model.stat().st_size
    assert plan == {
        "feasible": True,
        "required_bytes": size_bytes,
        "available_bytes": CAPACITY,
        "shard_plan": [{"name": model.name, "required_bytes": size_bytes}],
    }
    at_work.require_untouched()


def test_a_tensor_parallel_plan_shares_all_bytes_among_its_ranks(at_work: Worker, model: Path):
    request = {"path": model.name, "shard_layout": "tensor_parallel", "tp_degree": 4}
    shards = at_work.client.post("/v1/plan", json=request).json()["shard_plan"]
    assert [each["name"] for each in shards] == ["rank-0", "rank-1", "rank-2", "rank-3"]
    assert sum(each["required_bytes"] for each in shards) == model.stat().st_size


def test_a_committed_model_is_ready_shown_verified_and_freed(at_work: Worker, model: Path):
    handle = at_work.commit(model, shard_id="s", model_ref="acme/tiny", shard_index=0, total_shards=2)
    client = at_work.client
    assert handle["handle_id"] == "s"
    assert handle["vram_bytes"] == model.stat().st_size
    assert (handle["state"], handle["tensors"], handle["model_ref"]) == ("sealed", 2, "acme/tiny")
    assert client.get("/v1/shards").json() == [client.get("/v1/shards/s").json()]
    assert client.get("/readyz").json() == {"ready": True, "state": "ready"}
    assert client.get("/readyz?verbose").json() == {"ready": True, "state": "ready", "reason": None}
    assert client.get("/v1/ready").json()["ready"] is True
    verified = client.post("/v1/shards/s/verify", json={"scope": "full"}).json()
    assert (verified["digest"], verified["bytes_checked"]) == (handle["digest"], handle["vram_bytes"])
    assert client.get("/v1/capacity").json()["used_bytes"] == handle["vram_bytes"]
    assert client.get("/v1/status").json()["shards"] == 1
    assert client.delete("/v1/shards/s").status_code == 204
    at_work.require_untouched()
    require_problem(client.get("/v1/shards/s"), 404, "INVALID_PARAMS")


def test_an_execution_tells_its_steps_in_order(loaded: Worker):
    answer = loaded.execute("s", input={"a": 1}, params={"tensors": ["t1"]})
    assert (answer.status_code, answer.headers["content-type"].partition(";")[0]) == (
        200,
        "text/event-stream",
    )
    found = events_of(answer)
    assert [name for name, _ in found] == ["started", "output", "output", "metrics", "end"]
    assert found[0][1]["digest"] == loaded.client.get("/v1/shards/s").json()["digest"]
    assert found[1][1]["echo"] == {"a": 1}
    assert found[2][1]["tensor"] == "t1"
    assert found[3][1]["outputs"] == 2
    states = [each["to_state"] for each in loaded.log.of_type("worker_state_changed")]
    assert states == ["loading", "ready", "executing", "ready"]


def test_an_attestation_carries_the_nonce_of_who_asked(loaded: Worker):
    envelope = loaded.client.get("/v1/shards/s/attestation", params={"nonce": "n-1", "scope": "full"}).json()
    assert json.loads(base64.b64decode(envelope["payload"]))["predicate"]["nonce"] == "n-1"


@pytest.mark.parametrize(
    ("method", "path", "body", "status"),
    [
        ("POST", "/v1/plan", {"path": "../x"}, 400),
        ("POST", "/v1/plan", {"path": "missing"}, 400),
        ("POST", "/v1/plan", {"path": "m", "tp_degree": 0}, 400),
        ("POST", "/v1/plan", {"path": "m", "shard_layout": "diagonal"}, 400),
        ("POST", "/v1/plan", {"path": "m", "misspelt": 1}, 400),
        ("POST", "/v1/plan", {}, 400),
        ("POST", "/v1/commit", {"path": "model.safetensors", "shard_id": "no such id!"}, 400),
        ("POST", "/v1/commit", {"path": "model.safetensors", "expected_digest": "md5:0"}, 400),
        ("POST", "/v1/commit", {"path": "model.safetensors", "shard_index": 5, "total_shards": 2}, 400),
        ("POST", "/v1/commit", {"path": "model.safetensors", "misspelt": 1}, 400),
        ("POST", "/v1/commit?misspelt=1", {"path": "model.safetensors"}, 400),
        ("POST", "/v1/commit", {"path": 7}, 400),
        ("POST", "/v1/commit", {"path": ".", "shard_id": "one"}, 400),
        ("POST", "/v1/commit", {"path": "model.safetensors", "shard_id": "s"}, 409),
        ("POST", "/v1/execute", {"handle_id": "nope"}, 404),
        ("POST", "/v1/execute", {"handle": "s"}, 400),
        ("POST", "/v1/shards/s/verify", {"scope": "everything"}, 400),
        ("POST", "/v1/shards/nope/verify", {}, 404),
        ("GET", "/v1/shards/nope", None, 404),
        ("DELETE", "/v1/shards/nope", None, 404),
        ("GET", "/v1/shards/s/attestation", None, 400),
        ("GET", "/v1/shards/s/attestation?nonce=", None, 400),
        ("GET", "/v1/shards/nope/attestation?nonce=a", None, 404),
        ("GET", "/v1/nothing", None, 404),
        ("PUT", "/v1/shards", None, 405),
    ],
)
def test_what_breaks_a_rule_is_refused_as_invalid(
    *, method: str, path: str, body: Any, status: int, loaded: Worker
):
    answer = loaded.client.request(method, path, json=body)
    assert not require_problem(answer, status, "INVALID_PARAMS")["retriable"]
    assert loaded.client.get("/readyz").status_code == 200


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b"\xff", b"null", b'{"path": "a"'])
@pytest.mark.parametrize("path", ["/v1/plan", "/v1/commit", "/v1/execute", "/v1/shards/s/verify"])
def test_a_body_that_is_no_json_of_ours_is_refused(path: str, body: bytes, loaded: Worker):
    answer = loaded.client.post(path, content=body, headers={"Content-Type": "application/json"})
    require_problem(answer, 400, "INVALID_PARAMS")


def test_json_without_end_is_refused_by_its_size(loaded: Worker):
    answer = loaded.client.post("/v1/execute", json={"handle_id": "s", "input": "x" * (1 << 20)})
    require_problem(answer, 413, "INVALID_PARAMS")


def test_an_unknown_kind_of_body_is_refused(at_work: Worker):
    answer = at_work.client.post("/v1/commit", content=b"a=1", headers={"Content-Type": "text/html"})
    require_problem(answer, 400, "INVALID_PARAMS")


def test_a_malformed_model_is_rejected_and_recorded(at_work: Worker, tmp_path: Path):
    bad = tmp_path / "bad.safetensors"
    bad.write_bytes(b"\xff" * 64)
    for path in ("/v1/plan", "/v1/commit"):
        problem = require_problem(at_work.client.post(path, json={"path": bad.name}), 422, "MODEL_REJECTED")
        assert "bad.safetensors" in problem["detail"]
    assert at_work.events.count("malformed_model_rejected") == 2
    at_work.require_untouched()


def test_a_digest_that_was_not_approved_leaves_nothing_behind(at_work: Worker, model: Path):
    request = {"path": model.name, "expected_digest": "blake3:" + "0" * 64}
    require_problem(at_work.client.post("/v1/commit", json=request), 422, "DIGEST_MISMATCH")
    assert "integrity_violation" in at_work.events
    at_work.require_untouched()


def test_a_model_without_room_is_refused_for_now(at_work: Worker, tmp_path: Path):
    large = write_model(tmp_path, CAPACITY, name="large.safetensors")
    assert at_work.client.post("/v1/plan", json={"path": large.name}).json()["feasible"] is False
    answer = at_work.client.post("/v1/commit", json={"path": large.name})
    assert require_problem(answer, 507, "VRAM_OOM")["retriable"]
    assert answer.headers["retry-after"] == "5"


def test_a_device_that_refuses_memory_is_a_device_error(at_work: Worker, model: Path):
    at_work.device.fail_next("allocate", AllocationError("create a memfd", "refused"))
    answer = at_work.client.post("/v1/commit", json={"path": model.name})
    assert require_problem(answer, 503, "DEVICE_ERROR")["retriable"]
    assert at_work.commit(model)


def test_an_error_of_nobody_tells_nothing_of_itself(loaded: Worker, monkeypatch: pytest.MonkeyPatch):
    def fail(*_: object) -> None:
        raise RuntimeError("a secret at 0x7fff0000")

    monkeypatch.setattr(loaded.service, "status", fail)
    problem = require_problem(loaded.client.get("/v1/status"), 500, "INTERNAL")
    assert "secret" not in json.dumps(problem)
    assert loaded.story.events[-1].action == "request_failed"
    assert "secret" not in str(loaded.story.events[-1])


@pytest.mark.parametrize("how", ["verify", "fast", "attestation", "ready"])
def test_damage_stops_the_worker_within_one_request(how: str, loaded: Worker, model: Path):
    loaded.device.flip_bit("s", TENSOR_BYTES // 2)
    client = loaded.client
    if how == "ready":
        answer = client.get("/v1/ready").json()
        # A sample may miss one flipped bit; of three groups of 128 KiB it is read sooner or later.
        while answer["ready"]:
            answer = client.get("/v1/ready").json()
        assert answer["state"] == "stopped"
        assert "digest_mismatch" in answer["reason"]
    else:
        answer = {
            "verify": lambda: client.post("/v1/shards/s/verify", json={}),
            "fast": lambda: client.post("/v1/shards/s/verify", json={"scope": "fast"}),
            "attestation": lambda: client.get("/v1/shards/s/attestation", params={"nonce": "n"}),
        }[how]()
        assert not require_problem(answer, 503, "SEAL_VERIFICATION_FAILED")["retriable"]
    readiness = client.get("/readyz")
    assert (readiness.status_code, readiness.json()["state"]) == (503, "stopped")
    assert "reason" not in readiness.json()
    assert "digest_mismatch" in client.get("/readyz?verbose").json()["reason"]
    change = loaded.log.of_type("worker_state_changed")[-1]
    assert (change["from_state"], change["to_state"]) == ("ready", "stopped")
    assert "shard_quarantined" in loaded.events
    for refused in (loaded.execute("s"), client.post("/v1/commit", json={"path": model.name})):
        assert "digest_mismatch" in require_problem(refused, 503, "WORKER_STOPPED")["detail"]
    assert client.get("/livez").status_code == 200
    assert client.get("/v1/shards/s").json()["state"] == "quarantined"
    assert client.get("/v1/status").json()["state"] == "stopped"


def test_the_gate_refuses_a_damaged_shard_before_the_engine_sees_it(model: Path):
    with worker(model.parent, execution_scope=FULL) as running:
        running.commit(model, shard_id="s")
        running.device.flip_bit("s", TENSOR_BYTES // 2)
        problem = require_problem(running.execute("s"), 503, "SEAL_VERIFICATION_FAILED")
        assert "t0" in problem["detail"]
        assert running.client.get("/readyz").status_code == 503


def test_damage_found_after_the_first_execution_stops_the_worker_too(model: Path):
    with worker(model.parent, execution_scope=FULL) as running:
        running.commit(model, shard_id="s")
        assert running.execute("s").status_code == 200
        running.device.flip_bit("s", TENSOR_BYTES // 2)
        require_problem(running.execute("s"), 503, "SEAL_VERIFICATION_FAILED")
        require_problem(running.execute("s"), 503, "WORKER_STOPPED")


def test_a_lost_device_stops_the_worker(loaded: Worker):
    loaded.device.fail_next("view", DeviceLostError("host", "it fell off"))
    answer = loaded.client.post("/v1/shards/s/verify", json={})
    assert "it fell off" in require_problem(answer, 503, "SEAL_VERIFICATION_FAILED")["detail"]
    assert loaded.client.get("/readyz").json()["state"] == "stopped"


def test_forged_handles_leave_the_worker_ready(loaded: Worker):
    for number in range(20):
        require_problem(loaded.execute(f"forged-{number}"), 404, "INVALID_PARAMS")
        require_problem(loaded.client.post("/v1/shards/%2e%2e/verify", json={}), 404, "INVALID_PARAMS")
    assert loaded.client.get("/readyz").json()["state"] == "ready"
    assert loaded.events.count("seal_verification_failed") >= 20
    assert "shard_quarantined" not in loaded.events
    assert not loaded.service._engines._turns  # nothing is kept of ids that strangers made up


def test_a_shard_in_use_is_freed_after_its_engine_let_go(loaded: Worker):
    assert loaded.execute("s").status_code == 200  # the engine keeps arrays of it
    assert loaded.client.delete("/v1/shards/s").status_code == 204
    loaded.require_untouched()


def test_a_shard_that_somebody_else_looks_at_is_busy(loaded: Worker):
    with loaded.service.manager.execution("s"):
        answer = loaded.client.delete("/v1/shards/s")
    assert require_problem(answer, 503, "BUSY")["retriable"]
    assert loaded.client.delete("/v1/shards/s").status_code == 204


def test_without_its_record_nothing_is_sealed_where_audit_is_required(model: Path):
    with worker(model.parent, manager_options={"audit_required": True}) as running:
        running.log.fail_with(AuditWriteError("log", "write", "no space"))
        require_problem(running.client.post("/v1/commit", json={"path": model.name}), 500, "INTERNAL")
        running.require_untouched()
        running.log.fail_with(None)
        running.commit(model, shard_id="s")
        running.log.fail_with(AuditWriteError("log", "write", "no space"))
        require_problem(running.execute("s"), 500, "INTERNAL")
        running.log.fail_with(None)


def test_an_engine_that_fails_ends_the_stream_with_the_error(model: Path):
    class Failing:
        def load(self, views: Any, metadata: Any) -> None:
            pass

        def execute(self, request: Any) -> Iterator[Any]:
            yield 1
            raise RuntimeError("a secret")

        def close(self) -> None:
            pass

    with worker(model.parent, make_engine=Failing) as running:
        running.commit(model, shard_id="s")
        found = events_of(running.execute("s"))
        assert [name for name, _ in found] == ["started", "output", "error"]
        assert found[-1][1]["code"] == "INTERNAL"
        assert "secret" not in json.dumps(found)
        assert running.client.get("/readyz").json()["state"] == "ready"


def test_what_an_inner_wrapper_refuses_is_a_problem_too(model: Path):
    def refusing(app: Any) -> Any:
        async def respond(scope: Any, receive: Any, send: Any) -> None:
            if scope["path"] == "/v1/status":
                raise Refused(FORBIDDEN, "not for you")
            await app(scope, receive, send)

        return respond

    with worker(model.parent, app={"wrappers": [refusing]}) as running:
        require_problem(running.client.get("/v1/status"), 403, "AUTH_FAILED")
        assert running.client.get("/livez").status_code == 200


def test_every_call_under_v1_says_what_scope_it_needs(at_work: Worker):
    for route in at_work.app.routes:
        for handler in getattr(route, "route_handlers", []):
            if route.path.startswith("/v1") and handler.fn.__name__ != "options_handler":
                assert handler.opt["needs"] in {"read", "execute", "admin", "audit"}


def test_an_indexed_directory_becomes_one_shard_for_each_file(at_work: Worker, tmp_path: Path):
    (tmp_path / "split").mkdir()
    split_model(SILERO.path, tmp_path / "split", files=2)
    answer = at_work.client.post("/v1/commit", json={"path": "split"})
    assert [each["shard_index"] for each in answer.json()] == [0, 1]
    assert len(at_work.client.get("/v1/shards").json()) == 2


def test_no_answer_holds_a_pointer_or_a_path_into_the_process(loaded: Worker):
    for path in ("/v1/shards", "/v1/status", "/v1/ready", "/v1/shards/s/attestation?nonce=a"):
        text = loaded.client.get(path).text
        assert "/proc/" not in text
        assert "0x" not in text
