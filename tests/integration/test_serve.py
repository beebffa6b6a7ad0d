"""`vram serve` as a process: its socket, its drain, its death under load."""

from __future__ import annotations

import http.client
import json
import os
import signal
import socket
import stat
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import httpx
import pytest
from tests.daemons import Daemon, daemon, events_of, install_slow_engine, vram, wait_until, write_config
from tests.shards import write_model


def commit(client: httpx.Client, path: Path, shard_id: str) -> httpx.Response:
    return client.post("/v1/commit", json={"path": path.name, "shard_id": shard_id})


def verdict_of(root: Path) -> str:
    return str(
        json.loads(vram("audit", "verify", root / "audit", "--keys", root / "keys", "--json").stdout)[
            "verdict"
        ]
    )


def test_it_answers_on_a_socket_that_only_its_owner_can_reach(tmp_path: Path) -> None:
    """0600 in 0700, whatever the umask; the caller is the uid that the kernel names."""
    old = os.umask(0)
    try:
        with daemon(tmp_path) as worker, worker.client() as client:
            path = Path(worker.socket)
            assert stat.S_IMODE(path.stat().st_mode) == 0o600
            assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
            assert client.get("/v1/status").json()["state"] == "ready"
            assert worker.end() == 0
            assert not path.exists()
    finally:
        os.umask(old)
    (success,) = events_of(tmp_path / "audit", "auth_success")
    assert success["actor"] == {"user_id": f"uid:{os.getuid()}", "auth_method": "peer_uid"}


def test_models_of_the_configuration_are_sealed_before_it_is_ready(tmp_path: Path) -> None:
    """It says that it answers once they are sealed, and what is sealed is what was named."""
    write_model(tmp_path, 1000)
    models = [{"path": "model.safetensors", "shard_id": "first"}]
    with daemon(tmp_path, worker={"allow_empty_start": False}, models=models) as worker:
        with worker.client() as client:
            assert [each["handle_id"] for each in client.get("/v1/shards").json()] == ["first"]
        assert worker.end() == 0


def test_a_model_that_cannot_be_sealed_ends_the_start(tmp_path: Path) -> None:
    """Nothing is served then; the shards that were sealed are freed, and the log is closed."""
    write_model(tmp_path, 1000)
    models = [{"path": "model.safetensors"}, {"path": "nowhere.safetensors"}]
    done = vram("serve", "--config", write_config(tmp_path, models=models))
    assert done.returncode == 2
    assert "nowhere.safetensors" in done.stderr
    assert [entry["event_type"] for entry in events_of(tmp_path / "audit")][-2:] == [
        "log_closed",
        "epoch_closed",
    ]


def test_a_drain_refuses_new_work_and_lets_old_work_finish(tmp_path: Path) -> None:
    """SIGTERM: /readyz is 503 while an execution runs to its end; then the log is closed; exit code 0."""
    go = tmp_path / "go"
    model = write_model(tmp_path, 1000)
    environ = install_slow_engine(tmp_path)
    with daemon(tmp_path, environ=environ, worker={"engine": "slow"}) as worker, worker.client() as client:
        assert commit(client, model, "s1").status_code == 201
        answers: list[str] = []

        def execute() -> None:
            body = {"handle_id": "s1", "params": {"until": str(go)}}
            with worker.client() as other:
                answers.append(other.post("/v1/execute", json=body).text)

        running = threading.Thread(target=execute)
        running.start()
        wait_until(lambda: client.get("/v1/status").json()["executions"] == 1)
        worker.process.send_signal(signal.SIGTERM)
        wait_until(lambda: client.get("/readyz").status_code == 503)
        refused = client.post("/v1/execute", json={"handle_id": "s1"})
        assert (refused.status_code, refused.json()["code"]) == (503, "WORKER_STOPPED")
        assert worker.process.poll() is None
        go.touch()
        running.join()
        assert "event: end" in answers[0]
        assert worker.process.wait(60) == 0
    kinds = [entry["event_type"] for entry in worker.events()]
    assert kinds[-2:] == ["log_closed", "epoch_closed"]
    assert kinds.index("vram_deallocated") > kinds.index("vram_sealed")
    assert verdict_of(tmp_path) == "intact"


def test_a_second_signal_does_not_wait(tmp_path: Path) -> None:
    """An engine that never ends is left behind, the log is not: it is intact and says so."""
    model = write_model(tmp_path, 1000)
    environ = install_slow_engine(tmp_path)
    with daemon(tmp_path, environ=environ, worker={"engine": "slow"}) as worker, worker.client() as client:
        commit(client, model, "s1")
        body = {"handle_id": "s1", "params": {"until": str(tmp_path / "never")}}
        with worker.client() as other, other.stream("POST", "/v1/execute", json=body):
            worker.process.send_signal(signal.SIGTERM)
            wait_until(lambda: client.get("/readyz").status_code == 503)
            assert worker.end(signal.SIGTERM) == 5
    assert verdict_of(tmp_path) == "intact"


def test_a_kill_under_load_loses_nothing_that_was_acknowledged(tmp_path: Path) -> None:
    """SIGKILL: the log is intact and holds every answered commit; the next start says what is lost."""
    model = write_model(tmp_path, 1000)
    acknowledged: list[str] = []
    with daemon(tmp_path) as worker, ThreadPoolExecutor(8) as pool:
        futures = [pool.submit(_load, worker, model, number, acknowledged) for number in range(8)]
        wait_until(lambda: len(acknowledged) >= 20)
        assert worker.end(signal.SIGKILL) == -signal.SIGKILL
        for future in futures:
            future.result()
    with daemon(tmp_path) as again:
        assert again.end() == 0
    sealed = {entry["shard_id"] for entry in events_of(tmp_path / "audit", "vram_sealed")}
    assert set(acknowledged) <= sealed
    lost = {name for entry in events_of(tmp_path / "audit", "shards_lost") for name in entry["shard_ids"]}
    assert set(acknowledged) <= lost
    assert verdict_of(tmp_path) == "intact"


def test_a_drain_under_load_loses_nothing_that_was_acknowledged(tmp_path: Path) -> None:
    """SIGTERM: every commit that was answered is recorded, and so is its end; exit code 0."""
    model = write_model(tmp_path, 1000)
    acknowledged: list[str] = []
    with daemon(tmp_path) as worker, ThreadPoolExecutor(8) as pool:
        futures = [pool.submit(_load, worker, model, number, acknowledged) for number in range(8)]
        wait_until(lambda: len(acknowledged) >= 20)
        assert worker.end() == 0
        for future in futures:
            future.result()
    sealed = {entry["shard_id"] for entry in worker.events("vram_sealed")}
    freed = {entry["shard_id"] for entry in worker.events("vram_deallocated")}
    assert set(acknowledged) <= sealed
    assert sealed == freed
    assert worker.events("worker_state_changed")[-1]["to_state"] == "stopped"


def _load(worker: Daemon, model: Path, number: int, acknowledged: list[str]) -> None:
    """Commit and commit on one connection until the worker refuses or is gone."""
    with closing(http.client.HTTPConnection("localhost")) as connection:
        connection.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        connection.auto_open = 0
        try:
            connection.sock.connect(worker.socket)
            for count in range(1000):
                body = json.dumps({"path": model.name, "shard_id": f"s{number}-{count}"})
                connection.request("POST", "/v1/commit", body, {"Content-Type": "application/json"})
                answer = connection.getresponse()
                answer.read()
                if answer.status != 201:
                    return
                acknowledged.append(f"s{number}-{count}")
        except (OSError, http.client.HTTPException):
            return


def test_a_second_worker_at_the_same_socket_is_refused(tmp_path: Path) -> None:
    """The living one keeps its place; the other says why in two lines."""
    with daemon(tmp_path):
        done = vram("serve", "--config", tmp_path / "worker.toml")
    assert done.returncode == 2
    assert "another process serves at" in done.stderr
    assert "hint: Choose another path." in done.stderr


def test_strict_is_the_default_and_refuses_the_host(tmp_path: Path) -> None:
    """Who wants the host device must write development."""
    config = write_config(tmp_path)
    config.write_text(config.read_text().replace('policy = "development"\n', ""))
    done = vram("serve", "--config", config)
    assert done.returncode == 3
    assert "host_memory" in done.stderr
    assert not (tmp_path / "run" / "worker.sock").exists()


@pytest.mark.parametrize(
    ("setting", "value", "named"),
    [
        pytest.param("worker.engine", "nonsense", "engine: there is no engine 'nonsense'", id="engine"),
        pytest.param("worker.model_roots", ["/nonsense"], "model_roots: /nonsense", id="root"),
        pytest.param("seal.token_file", "/nonsense", "/nonsense: cannot be read", id="token"),
        pytest.param("audit.create", False, "audit.directory:", id="log"),
        pytest.param("worker.polcy", "strict", "worker.polcy: is no setting", id="slip"),
        pytest.param("tcp.enabled", True, "tcp.tokens_file: is missing", id="tcp"),
    ],
)
def test_what_is_wrong_is_named_before_anything_happens(
    tmp_path: Path, setting: str, value: object, named: str
) -> None:
    """--check-config and the start itself say the same, and neither leaves a trace."""
    section, _, key = setting.partition(".")
    config = write_config(tmp_path, **{section: {key: value}})
    for more in (["--check-config"], []):
        done = vram("serve", "--config", config, *more)
        assert done.returncode == 2
        assert named in done.stderr
        assert len(done.stderr.splitlines()) == 2
    assert not (tmp_path / "audit").exists()
