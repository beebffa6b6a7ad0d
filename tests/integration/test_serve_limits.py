"""What one client, or many, can take from `vram serve`: bytes, time, connections."""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

from tests.daemons import Daemon, daemon, wait_until
from tests.shards import write_model

QUICK = {"header_timeout_s": 0.5, "body_timeout_s": 0.5, "keep_alive_s": 1.0}


@contextmanager
def connected(worker: Daemon) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        connection.settimeout(60)
        connection.connect(worker.socket)
        yield connection


def all_of(connection: socket.socket) -> bytes:
    """Everything until the other side closes."""
    found = b""
    try:
        while part := connection.recv(65_536):
            found += part
    except ConnectionResetError:
        pass
    return found


def status_of(answer: bytes) -> int:
    return int(answer.split()[1])


def is_ready(worker: Daemon) -> bool:
    with worker.client() as client:
        return client.get("/readyz").status_code == 200


def test_headers_that_never_end_are_cut_off(tmp_path: Path) -> None:
    """Slow loris: whoever sends a byte now and then has the time of one request, not of many."""
    with daemon(tmp_path, limits=QUICK) as worker, connected(worker) as slow, connected(worker) as silent:
        slow.sendall(b"GET /v1/status HTTP/1.1\r\nHost: x\r\n")
        answer = b""
        slow.settimeout(0.05)
        end_s = time.monotonic() + 20
        while time.monotonic() < end_s:
            try:
                slow.sendall(b"X-A: b\r\n")
                answer += slow.recv(65_536)
            except TimeoutError:
                continue
            except OSError:
                break
            if answer:
                break
        assert status_of(answer) == 408
        assert json.loads(answer.partition(b"\r\n\r\n")[2])["code"] == "INVALID_PARAMS"
        assert all_of(silent) == b""
        assert is_ready(worker)


def test_a_body_that_stands_still_is_cut_off(tmp_path: Path) -> None:
    """The thread that waits for it is free again."""
    with daemon(tmp_path, limits=QUICK) as worker, connected(worker) as slow:
        slow.sendall(b"POST /v1/plan HTTP/1.1\r\nHost: x\r\nContent-Length: 500\r\n\r\n{")
        assert all_of(slow) == b""
        assert is_ready(worker)


def test_a_connection_without_requests_is_closed(tmp_path: Path) -> None:
    """After an answer there is a time for the next request."""
    with daemon(tmp_path, limits=QUICK) as worker, connected(worker) as kept:
        kept.sendall(b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\n")
        assert status_of(all_of(kept)) == 200


def test_too_much_is_refused_with_a_number(tmp_path: Path) -> None:
    """Headers in bytes and in count, bodies by their length and without one, and what is no HTTP at all."""
    with daemon(tmp_path, limits={"json_bytes_max": 10_000}) as worker:
        head = b"POST /v1/plan HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
        chunk = b"1000\r\n" + b" " * 0x1000 + b"\r\n"
        for request, status in (
            (b"GET /livez HTTP/1.1\r\nHost: x\r\nX-Long: " + b"a" * 20_000, 431),
            (b"GET /livez HTTP/1.1\r\nHost: x\r\n" + b"X-A: b\r\n" * 200 + b"\r\n", 431),
            (head + b"Content-Length: 99999999\r\n\r\n", 413),
            (head + b"Transfer-Encoding: chunked\r\n\r\n" + chunk * 4, 413),
            (head + b"Content-Length: 10\r\nContent-Length: 11\r\n\r\n", 400),
            (head + b"Content-Length: 10\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400),
            (b"nonsense\r\n\r\n", 400),
            (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n", 400),
        ):
            with connected(worker) as connection:
                connection.sendall(request)
                answer = all_of(connection)
                assert (request[:80], status_of(answer)) == (request[:80], status)
        assert is_ready(worker)


def test_whoever_leaves_early_leaves_nothing_behind(tmp_path: Path) -> None:
    """Half-closed after the request, closed before the answer, reset: no request stays under way."""
    with daemon(tmp_path) as worker:
        for _ in range(20):
            with connected(worker) as connection:
                connection.sendall(b"GET /v1/status HTTP/1.1\r\nHost: x\r\n\r\n")
                connection.shutdown(socket.SHUT_WR)
            with connected(worker) as connection:
                connection.sendall(b"POST /v1/plan HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n{")
        assert is_ready(worker)
        assert worker.end() == 0


def test_connections_beyond_the_limit_are_turned_away(tmp_path: Path) -> None:
    """Those that are there go on."""
    with daemon(tmp_path, limits={"connections_max": 4}) as worker:
        held = [socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) for _ in range(8)]
        try:
            for each in held:
                each.settimeout(60)
                each.connect(worker.socket)
            wait_until(lambda: sum(_is_closed(each) for each in held) == 4)
            held[0].sendall(b"GET /livez HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
            assert status_of(all_of(held[0])) == 200
        finally:
            for each in held:
                each.close()


def _is_closed(connection: socket.socket) -> bool:
    connection.settimeout(0.05)
    try:
        return connection.recv(1, socket.MSG_PEEK) == b""
    except TimeoutError:
        return False
    except OSError:
        return True
    finally:
        connection.settimeout(60)


def test_who_asks_too_often_is_told_to_wait(tmp_path: Path) -> None:
    """429 with Retry-After; the log has one line about it."""
    with daemon(tmp_path, limits={"requests_per_s": 5}) as worker:
        with worker.client() as client:
            answers = [client.get("/v1/status") for _ in range(30)]
        refused = [each for each in answers if each.status_code == 429]
        assert len(refused) >= 10
        assert {each.json()["code"] for each in refused} == {"BUSY"}
        assert {each.headers["retry-after"] for each in refused} == {"1"}
        worker.end()
    (event,) = worker.events("rate_limit_exceeded")
    assert (event["limit"], event["window_seconds"]) == (5, 1)


def test_two_hundred_clients_at_once_are_served(tmp_path: Path) -> None:
    """Each executes on the same shard, which takes them one by one; none is lost and none hangs."""
    model = write_model(tmp_path, 1000)
    with daemon(tmp_path) as worker:
        with worker.client() as client:
            assert client.post("/v1/commit", json={"path": model.name, "shard_id": "s1"}).status_code == 201
        with ThreadPoolExecutor(200) as pool:
            answers = list(pool.map(lambda number: _execute(worker, number), range(200)))
        assert answers == [f'"echo":{number}' for number in range(200)]
        assert is_ready(worker)
        assert worker.end() == 0


def _execute(worker: Daemon, number: int) -> str:
    with worker.client() as client:
        text = client.post("/v1/execute", json={"handle_id": "s1", "input": number}).text
    assert "event: end" in text
    return text.partition('"echo"')[1] + text.partition('"echo"')[2].partition(",")[0]
