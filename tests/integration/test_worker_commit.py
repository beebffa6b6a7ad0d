"""A commit over HTTP: a body that is the model, progress, and calls that are made twice."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from blake3 import blake3
from tests.shards import CAPACITY, MIB, model_bytes, raw_bytes, write_model
from tests.workers import (
    Conversation,
    Worker,
    acting_as,
    events_of,
    parse_events,
    require_problem,
    wait_until,
    worker,
)

from vram_residency.worker import upload

BODY = {"Content-Type": "application/octet-stream"}
SIZE = 3 * MIB + 17


@pytest.fixture
def at_work(tmp_path: Path) -> Iterator[Worker]:
    """A worker that believes the header x-actor, with an empty model root."""
    with worker(tmp_path, app={"wrappers": [acting_as()]}) as running:
        yield running


def send(running: Worker, content: bytes, query: str = "", **headers: str) -> Any:
    """Commit a body."""
    return running.client.post(f"/v1/commit{query}", content=content, headers=BODY | headers)


def chunks(data: bytes, size: int = 65_536) -> list[bytes]:
    """Pieces as a server hands them on."""
    return [data[start : start + size] for start in range(0, len(data), size)]


# --- a body -------------------------------------------------------------------------------------------


def test_a_body_is_sealed_as_it_came(at_work: Worker):
    data = model_bytes(SIZE, 5)
    query = "?name=a.safetensors&shard_id=s&model_ref=acme/a&shard_index=0&total_shards=1"
    answer = send(at_work, data, query)
    (handle,) = answer.json()
    assert answer.status_code == 201
    assert handle["digest"] == f"blake3:{blake3(data).hexdigest()}"
    assert (handle["format"], handle["tensors"], handle["model_ref"]) == ("safetensors", 2, "acme/a")
    assert (handle["handle_id"], handle["shard_index"], handle["total_shards"]) == ("s", 0, 1)
    assert at_work.execute("s").status_code == 200


@pytest.mark.parametrize("size", [5, 1000, MIB, MIB + 1, SIZE])
def test_a_body_without_a_format_is_sealed_raw(size: int, at_work: Worker):
    data = raw_bytes(size)
    (handle,) = send(at_work, data).json()
    assert (handle["digest"], handle["format"]) == (f"blake3:{blake3(data).hexdigest()}", "raw")


def test_an_approved_digest_is_compared_with_the_body(at_work: Worker):
    data = raw_bytes(1000)
    good = blake3(data).hexdigest()
    require_problem(send(at_work, data, "?expected_digest=blake3:" + "0" * 64), 422, "DIGEST_MISMATCH")
    at_work.require_untouched()
    assert send(at_work, data, f"?expected_digest=blake3:{good}").status_code == 201


@pytest.mark.parametrize(
    ("query", "content", "status", "code"),
    [
        ("?name=a.safetensors", b"\xff" * 100, 422, "MODEL_REJECTED"),
        ("", b"GGUF" + b"\xff" * 100, 422, "MODEL_REJECTED"),
        ("", b"", 422, "MODEL_REJECTED"),
        ("?misspelt=1", b"raw", 400, "INVALID_PARAMS"),
        ("?name=a&name=b", b"raw", 400, "INVALID_PARAMS"),
        ("?shard_index=one", b"raw", 400, "INVALID_PARAMS"),
        ("?shard_id=%20", b"raw", 400, "INVALID_PARAMS"),
        ("", bytes(CAPACITY + 1), 507, "VRAM_OOM"),
    ],
    ids=["safetensors", "gguf", "empty", "unknown", "twice", "number", "id", "oom"],
)
def test_a_body_that_is_refused_leaves_nothing_behind(
    *, query: str, content: bytes, status: int, code: str, at_work: Worker
):
    require_problem(send(at_work, content, query), status, code)
    at_work.require_untouched()


def test_a_body_of_unknown_length_is_refused(at_work: Worker):
    answer = at_work.client.post("/v1/commit", content=iter([b"raw"]), headers=BODY)
    require_problem(answer, 411, "INVALID_PARAMS")


def test_a_body_above_the_limit_is_refused_unread(tmp_path: Path):
    with worker(tmp_path, body_bytes_max=1000) as running:
        require_problem(send(running, bytes(1001)), 413, "INVALID_PARAMS")
        assert send(running, raw_bytes(1000)).status_code == 201


@pytest.mark.parametrize("sent", [0, 1000, MIB, SIZE - 1])
@pytest.mark.parametrize("how", ["disconnects", "sends less"])
def test_a_client_that_stops_in_the_middle_leaves_nothing_behind(how: str, sent: int, at_work: Worker):
    pieces: list[bytes | None] = [*chunks(raw_bytes(SIZE)[:sent])]
    pieces = [*pieces, None] if how == "disconnects" else (pieces or [b""])
    headers = BODY | {"Content-Length": str(SIZE)}
    spoken = at_work.speak(Conversation(at_work.app, "/v1/commit", pieces, headers=headers))
    if how == "sends less":
        assert spoken.status == 400
        assert f"ended after {sent} of {SIZE} bytes" in spoken.received.decode()
    at_work.require_untouched()


def test_a_client_that_pauses_too_long_is_let_go(at_work: Worker, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(upload.Upload.__init__, "__kwdefaults__", {"idle_s": 0.05})
    spoken = Conversation(at_work.app, "/v1/commit", [], headers=BODY | {"Content-Length": "10"})
    at_work.speak(spoken)
    assert spoken.status == 408
    at_work.require_untouched()


def test_the_body_is_never_kept_whole(at_work: Worker):
    waiting: list[int] = []
    data = raw_bytes(8 * MIB)

    class Counted(Conversation):
        handed_on = 0

        async def _receive(self) -> dict[str, Any]:
            message = await super()._receive()
            self.handed_on += len(message.get("body", b""))
            waiting.append(self.handed_on - self.filled)
            return message

        filled = 0

    spoken = Counted(
        at_work.app, "/v1/commit", [*chunks(data)], headers=BODY | {"Content-Length": str(len(data))}
    )
    service = at_work.service
    commit_source = service.commit_source

    def watched(source: Any, request: Any, on_progress: Any) -> Any:
        def filled(done: int, whole: int) -> None:
            spoken.filled = done
            on_progress(done, whole)

        return commit_source(source, request, filled)

    service.commit_source = watched  # type: ignore[method-assign]
    at_work.speak(spoken)
    assert spoken.status == 201
    assert max(waiting) <= MIB + 2 * 65_536  # what is on its way to the memory: one run, and one piece


# --- progress -----------------------------------------------------------------------------------------


def test_a_commit_can_be_followed(at_work: Worker, tmp_path: Path):
    path = write_model(tmp_path, SIZE)
    request = {"json": {"path": path.name, "shard_id": "s"}, "headers": {"Accept": "text/event-stream"}}
    found = events_of(at_work.client.post("/v1/commit", **request))
    names = [name for name, _ in found]
    assert names == ["progress"] * (len(names) - 1) + ["end"]
    assert all(0 < data["done_bytes"] <= data["all_bytes"] == path.stat().st_size for _, data in found[:-1])
    assert found[-1][1]["handles"] == at_work.client.get("/v1/shards").json()


def test_a_body_can_be_followed_too(at_work: Worker):
    found = events_of(send(at_work, raw_bytes(SIZE), Accept="text/event-stream"))
    assert found[-1][0] == "end"


def test_what_is_refused_before_it_began_is_a_problem_and_no_stream(at_work: Worker):
    answer = send(at_work, b"\xff" * 100, "?name=a.gguf", Accept="text/event-stream")
    require_problem(answer, 422, "MODEL_REJECTED")


def test_what_fails_on_the_way_is_the_last_event(at_work: Worker):
    answer = send(at_work, raw_bytes(SIZE), "?expected_digest=blake3:" + "0" * 64, Accept="text/event-stream")
    found = events_of(answer)
    assert [found[0][0], found[-1][0]] == ["progress", "error"]
    assert found[-1][1]["code"] == "DIGEST_MISMATCH"
    at_work.require_untouched()


def test_who_stops_following_stops_the_commit(at_work: Worker):
    data = raw_bytes(SIZE)
    spoken = Conversation(
        at_work.app,
        "/v1/commit",
        [*chunks(data)],
        headers=BODY | {"Content-Length": str(SIZE), "Accept": "text/event-stream"},
        leaves_after=b"event: progress",
    )
    service, go_on = at_work.service, threading.Event()
    commit_source = service.commit_source

    def slowly(source: Any, request: Any, on_progress: Any) -> Any:
        def told(done: int, whole: int) -> None:
            on_progress(done, whole)
            if done == whole:
                go_on.wait(10)
                on_progress(done, whole)

        return commit_source(source, request, told)

    service.commit_source = slowly  # type: ignore[method-assign]

    async def talk() -> None:
        await spoken.run()
        go_on.set()

    at_work.run(talk)
    wait_until(lambda: not at_work.service.manager.capacity().used_bytes)
    assert [name for name, _ in parse_events(bytes(spoken.received))] == ["progress"]
    at_work.require_untouched()


# --- once ---------------------------------------------------------------------------------------------


def keyed(key: str, actor: str = "alice") -> dict[str, str]:
    """Headers of a call that may be made twice."""
    return {"Idempotency-Key": key, "x-actor": actor}


def test_the_same_call_is_made_once(at_work: Worker, tmp_path: Path):
    request = {"path": write_model(tmp_path, 10).name}
    first, second = (at_work.client.post("/v1/commit", json=request, headers=keyed("k")) for _ in range(2))
    assert (first.status_code, second.status_code) == (201, 201)
    assert first.json() == second.json()
    assert len(at_work.service.manager.shards()) == 1


def test_another_body_under_the_same_key_is_refused(at_work: Worker, tmp_path: Path):
    name = write_model(tmp_path, 10).name
    at_work.client.post("/v1/commit", json={"path": name}, headers=keyed("k"))
    answer = at_work.client.post("/v1/commit", json={"path": name, "shard_id": "b"}, headers=keyed("k"))
    require_problem(answer, 422, "INVALID_PARAMS")
    assert len(at_work.service.manager.shards()) == 1


def test_the_key_of_another_actor_is_another_key(at_work: Worker, tmp_path: Path):
    request = {"path": write_model(tmp_path, 10).name}
    at_work.client.post("/v1/commit", json=request, headers=keyed("k", "alice"))
    at_work.client.post("/v1/commit", json=request, headers=keyed("k", "mallory"))
    assert len(at_work.service.manager.shards()) == 2


def test_a_body_is_read_again_and_compared(at_work: Worker):
    data = raw_bytes(SIZE)
    first, second = (send(at_work, data, **keyed("k")) for _ in range(2))
    assert first.json() == second.json()
    other = send(at_work, raw_bytes(SIZE, seed=1), **keyed("k"))
    require_problem(other, 422, "INVALID_PARAMS")
    assert len(at_work.service.manager.shards()) == 1


def test_a_refusal_for_good_is_kept_and_one_for_now_is_not(at_work: Worker, tmp_path: Path):
    path = tmp_path / "m.safetensors"
    path.write_bytes(b"\xff" * 50)
    request = {"path": path.name}
    require_problem(
        at_work.client.post("/v1/commit", json=request, headers=keyed("k")), 422, "MODEL_REJECTED"
    )
    path.write_bytes(model_bytes(10))
    require_problem(
        at_work.client.post("/v1/commit", json=request, headers=keyed("k")), 422, "MODEL_REJECTED"
    )
    at_work.device.run_out_of_memory()
    require_problem(at_work.client.post("/v1/commit", json=request, headers=keyed("l")), 503, "DEVICE_ERROR")
    at_work.device.recover()
    assert at_work.client.post("/v1/commit", json=request, headers=keyed("l")).status_code == 201


def test_a_duplicate_waits_for_the_call_that_is_under_way(at_work: Worker, tmp_path: Path):
    request = {"path": write_model(tmp_path, 10).name}
    begun, go_on = threading.Event(), threading.Event()
    commit_path = at_work.service.commit_path

    def slowly(*args: Any) -> Any:
        begun.set()
        go_on.wait(10)
        return commit_path(*args)

    at_work.service.commit_path = slowly  # type: ignore[method-assign]
    answers: list[Any] = []

    def ask() -> None:
        answers.append(at_work.client.post("/v1/commit", json=request, headers=keyed("k")))

    asking = [threading.Thread(target=ask) for _ in range(4)]
    for thread in asking:
        thread.start()
    assert begun.wait(10)
    late = at_work.client.post("/v1/commit", json=request, headers=keyed("k") | {"X-Deadline-Ms": "20"})
    require_problem(late, 504, "DEADLINE_EXCEEDED")
    go_on.set()
    for thread in asking:
        thread.join()
    assert [each.status_code for each in answers] == [201] * 4
    assert len({each.text for each in answers}) == 1
    assert len(at_work.service.manager.shards()) == 1


@pytest.mark.parametrize("key", ["", " ", "a b", "x" * 256])
def test_a_key_of_another_form_is_refused(key: str, at_work: Worker, tmp_path: Path):
    request = {"path": write_model(tmp_path, 10).name}
    answer = at_work.client.post("/v1/commit", json=request, headers={"Idempotency-Key": key})
    require_problem(answer, 400, "INVALID_PARAMS")
    at_work.require_untouched()
