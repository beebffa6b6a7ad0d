"""WorkerClient against a worker that answers on a real socket."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from tests.running_worker import RunningWorker, running_worker
from tests.shards import write_model

from vram_residency.core import context
from vram_residency.core.errors import ConfigurationError, WorkerRefusedError, WorkerUnreachableError
from vram_residency.worker.address import Address
from vram_residency.worker.client import WorkerClient

NOTHING = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\n{}"


@pytest.fixture
def worker(tmp_path: Path) -> Iterator[RunningWorker]:
    with running_worker(tmp_path) as running:
        write_model(running.models, 300_000, 20)
        yield running


@pytest.fixture
def client(worker: RunningWorker) -> Iterator[WorkerClient]:
    with WorkerClient(Address(socket=worker.socket)) as made:
        yield made


def test_a_model_lives_from_plan_to_free(client: WorkerClient, worker: RunningWorker):
    """Each call gives the struct that the API describes."""
    plan = client.plan("model.safetensors")
    assert (plan.feasible, len(plan.shard_plan)) == (True, 1)
    (handle,) = client.commit("model.safetensors", shard_id="m")
    assert handle.vram_bytes == plan.required_bytes
    assert client.shards() == [handle] == [client.shard("m")]
    assert client.verify("m").bytes_checked == handle.vram_bytes
    assert client.verify("m", "sample").scope == "sample"
    envelope = client.attest("m", nonce="n&scope=fast")
    assert envelope["payloadType"] == "application/vnd.in-toto+json"
    assert client.ready().ready
    assert client.status().shards == 1
    assert client.capacity().used_bytes == handle.vram_bytes
    client.free("m")
    assert client.shards() == []
    assert client.capacity().used_bytes == 0


def test_outputs_of_an_execution_come_one_by_one(client: WorkerClient):
    client.commit("model.safetensors", shard_id="m")
    outputs = list(client.execute("m", {"text": "line\nbreak \u2028 and \x85"}, {"tensors": ["t1"]}))
    assert outputs[0]["echo"] == {"text": "line\nbreak \u2028 and \x85"}
    assert [output["tensor"] for output in outputs[1:]] == ["t1"]
    assert [name for name, _ in client.stream("POST", "/v1/execute", body={"handle_id": "m"})] == [
        "started",
        *["output"] * 3,
        "metrics",
        "end",
    ]


def test_a_refusal_says_what_the_worker_said(client: WorkerClient):
    """Code, words and hint of the problem, and whether it may be tried again."""
    with pytest.raises(WorkerRefusedError, match="no shard 'none' is held") as caught:
        client.shard("none")
    error = caught.value
    assert (error.code, error.status, error.retriable) == ("INVALID_PARAMS", 404, False)
    assert error.hint == "List what is held with shards()."
    with pytest.raises(WorkerRefusedError, match="not ready"):
        list(client.execute("none"))


def test_room_that_is_not_there_is_a_refusal_to_try_again(client: WorkerClient, worker: RunningWorker):
    write_model(worker.models, 17 << 20, name="large.safetensors")
    with pytest.raises(WorkerRefusedError, match="not enough device memory") as caught:
        client.commit("large.safetensors")
    assert (caught.value.code, caught.value.retriable, caught.value.retry_after_ms) == (
        "VRAM_OOM",
        True,
        5000,
    )


def test_damage_found_on_the_way_is_the_refusal_of_that_call(client: WorkerClient, worker: RunningWorker):
    client.commit("model.safetensors", shard_id="m")
    worker.device.flip_bit("m", 4096)
    with pytest.raises(WorkerRefusedError, match="digest_mismatch") as caught:
        client.verify("m")
    assert caught.value.code == "SEAL_VERIFICATION_FAILED"
    assert client.status().state == "stopped"
    assert [handle.state for handle in client.shards()] == ["quarantined"]


def test_an_identifier_cannot_become_another_path(client: WorkerClient):
    """What stands in an identifier stays in it."""
    with pytest.raises(WorkerRefusedError):
        client.free("../shards")
    with pytest.raises(WorkerRefusedError):
        client.shard("m/attestation?nonce=1")


def test_a_program_that_stops_reading_cancels_the_execution(client: WorkerClient, worker: RunningWorker):
    client.commit("model.safetensors", shard_id="m")
    outputs = client.execute("m")
    next(outputs)
    outputs.close()
    assert next(iter(client.execute("m")))["shard_id"] == "m"
    client.free("m")


def test_nobody_there_is_one_error_with_the_next_step(tmp_path: Path):
    with (
        WorkerClient(Address(socket=tmp_path / "none.sock")) as client,
        pytest.raises(WorkerUnreachableError, match=r"no worker answers at .*none\.sock") as caught,
    ):
        client.status()
    assert "vram serve" in caught.value.hint


# httpcore leaves the descriptor of a connection that is refused to the garbage collector.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_socket_that_a_dead_worker_left_is_nobody(tmp_path: Path):
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(tmp_path / "s"))
    listener.close()
    with (
        WorkerClient(Address(socket=tmp_path / "s")) as client,
        pytest.raises(WorkerUnreachableError, match="refused"),
    ):
        client.status()


@contextmanager
def answering(path: Path, answer: bytes) -> Iterator[list[bytes]]:
    """A server that knows one answer; gives the requests that came."""
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(path))
    listener.listen(1)
    asked: list[bytes] = []

    def serve() -> None:
        connection, _ = listener.accept()
        with connection:
            asked.append(connection.recv(65536))
            connection.sendall(answer)

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        yield asked
    finally:
        thread.join()
        listener.close()


STREAM = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nConnection: close\r\n\r\n"
STRANGE = {
    "not HTTP": (b"SSH-2.0-x\r\n", "illegal|disconnected"),
    "nothing": (b"", "disconnected"),
    "another service": (b"HTTP/1.1 404 X\r\nContent-Length: 2\r\n\r\nno", "HTTP status 404"),
    "another answer": (NOTHING, "no worker of this version"),
}


@pytest.mark.parametrize("what", STRANGE)
def test_what_is_no_worker_is_said_to_be_none(what: str, tmp_path: Path):
    answer, words = STRANGE[what]
    with (
        answering(tmp_path / "s", answer),
        WorkerClient(Address(socket=tmp_path / "s")) as client,
        pytest.raises(WorkerUnreachableError, match=words),
    ):
        client.status()


BROKEN_STREAMS: dict[str, tuple[bytes, type[Exception], str]] = {
    "it ends early": (b"event: output\ndata: 1\n\n", WorkerUnreachableError, "before the end"),
    "no JSON": (b"event: output\ndata: {\n\n", WorkerUnreachableError, "JSON|truncated"),
    "an error": (
        (
            b'event: error\ndata: {"type":"t","title":"t","status":504,"detail":"too late",'
            b'"code":"DEADLINE_EXCEEDED","retriable":true}\n\n'
        ),
        WorkerRefusedError,
        "too late",
    ),
}


@pytest.mark.parametrize("what", BROKEN_STREAMS)
def test_a_stream_that_breaks_is_never_taken_for_whole(what: str, tmp_path: Path):
    stream, expected, words = BROKEN_STREAMS[what]
    with (
        answering(tmp_path / "s", STREAM + stream),
        WorkerClient(Address(socket=tmp_path / "s")) as client,
        pytest.raises(expected, match=words),
    ):
        list(client.execute("m"))


def test_a_call_carries_deadline_correlation_and_key(tmp_path: Path):
    """As worker.md names them."""
    with answering(tmp_path / "s", NOTHING) as asked, WorkerClient(Address(socket=tmp_path / "s")) as client:
        token = context.correlation_id.set("req-17")
        try:
            with pytest.raises(WorkerUnreachableError):
                client.commit("m", deadline_s=1.5, idempotency_key="once")
        finally:
            context.correlation_id.reset(token)
    request = asked[0].lower()
    for header in (b"x-deadline-ms: 1500", b"x-correlation-id: req-17", b"idempotency-key: once"):
        assert header in request


UNSAFE: dict[str, tuple[Callable[[], Address], str]] = {
    "plain HTTP to elsewhere": (lambda: Address(url="http://10.0.0.1:80", token="t"), "must be https"),
    "a password": (lambda: Address(url="https://u:p@h"), "no user"),
    "a token in the query": (lambda: Address(url="https://h/?token=t"), "query"),
    "no URL": (lambda: Address(url="worker"), "https://HOST"),
    "two ways": (lambda: Address(url="https://h", socket=Path("s")), "contradicts"),
    "a token for a socket": (lambda: Address(token="t"), "of no use"),
    "no such authority": (
        lambda: WorkerClient(Address(url="https://h", authority=Path("/none"))),  # type: ignore[dict-item, return-value]
        "cannot be used",
    ),
}


@pytest.mark.parametrize("what", UNSAFE)
def test_an_unsafe_address_is_refused(what: str):
    make, words = UNSAFE[what]
    with pytest.raises(ConfigurationError, match=words):
        make()


def test_the_socket_of_this_user_is_the_default(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv("VRAM_LISTEN_SOCKET", raising=False)
    monkeypatch.setenv("XDG_RUNTIME_DIR", "/run/user/7")
    assert str(Address()) == "/run/user/7/vram/worker.sock"
    monkeypatch.delenv("XDG_RUNTIME_DIR")
    with pytest.raises(WorkerUnreachableError, match="XDG_RUNTIME_DIR"):
        WorkerClient()
