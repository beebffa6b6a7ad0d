"""The witness client against a real witness on the loopback, and against ones that lie."""

from __future__ import annotations

import base64
import contextlib
import json
import socket
import stat
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.independent_log import LogMaker, make_log
from tests.witness_server import Answer, Witness, serving

from vram_residency.audit import prove_inclusion
from vram_residency.audit.publishing.witness import cosign
from vram_residency.cli.main import main
from vram_residency.core.errors import InvalidInputError, LogDamagedError, WitnessError


@pytest.fixture
def maker() -> LogMaker:
    return make_log()


@pytest.fixture
def witness(maker: LogMaker) -> Iterator[Witness]:
    with serving(Witness(maker.vkey)) as running:
        yield running


def _write(maker: LogMaker, folder: Path, size: int | None = None) -> Path:
    """The log with a checkpoint of ``size``; what witnesses gave before stays."""
    log = folder / "log"
    if log.exists():
        (log / "checkpoint").write_bytes(maker.checkpoint(size))
        (log / "entries" / f"{0:020}.jsonl").write_bytes(b"".join(line + b"\n" for line in maker.lines))
        return log
    return maker.write(log, size=size)


def test_a_growing_log_is_cosigned_each_time(tmp_path: Path, maker: LogMaker, witness: Witness) -> None:
    for size in (0, 1, 4, 4, len(maker.lines)):
        log = _write(maker, tmp_path, size)
        done = cosign(log, witness.url, [witness.vkey])
        assert witness.seen[maker.origin] == (size, maker.root(size))
        assert (done.size, done.root) == (size, maker.root(size))
        assert [(one.key.name, one.time_s) for one in done.cosignatures] == [(witness.name, witness.now_s)]
        text = maker.checkpoint(size)
        assert done.paths[0].read_bytes() == text + witness.cosign(text.decode().rpartition("\n\n")[0] + "\n")
    # The kept note told the old size each time: nobody had to be asked twice.
    assert [body.split(b"\n")[0] for body in witness.requests] == [
        b"old 0",
        b"old 0",
        b"old 1",
        b"old 4",
        b"old 4",
    ]
    assert stat.S_IMODE(done.paths[0].stat().st_mode) == 0o600
    assert stat.S_IMODE(done.paths[0].parent.stat().st_mode) == 0o700


def test_a_witness_that_knows_more_than_the_kept_notes_is_asked_again(
    tmp_path: Path, maker: LogMaker, witness: Witness
) -> None:
    witness.seen[maker.origin] = (3, maker.root(3))
    cosign(_write(maker, tmp_path), witness.url, [witness.vkey])
    assert [body.split(b"\n")[0] for body in witness.requests] == [b"old 0", b"old 3"]


def test_a_proof_carries_the_cosignatures_of_its_checkpoint_and_no_others(
    tmp_path: Path, maker: LogMaker, witness: Witness
) -> None:
    log = _write(maker, tmp_path, 5)
    cosign(log, witness.url, [witness.vkey])
    line = (log / "cosignatures").iterdir().__next__().read_bytes().splitlines(keepends=True)[-1]
    assert bytes(prove_inclusion(log, 2)).endswith(line)
    _write(maker, tmp_path)
    assert line not in bytes(prove_inclusion(log, 2))


def test_alien_files_among_the_cosignatures_harm_nothing(
    tmp_path: Path, maker: LogMaker, witness: Witness
) -> None:
    log = _write(maker, tmp_path)
    cosign(log, witness.url, [witness.vkey])
    good = bytes(prove_inclusion(log, 2))
    folder = log / "cosignatures"
    (folder / "00000000.note").write_bytes(b"\xff nonsense")
    (folder / "00000001.note").mkdir()
    (folder / "readme").write_text("hello")
    # A wrong signature in the log's own name would make stock tools refuse the whole note.
    head = maker.checkpoint().rpartition(b" ")[0]
    (folder / "00000002.note").write_bytes(head + b" " + base64.b64encode(maker.ident + bytes(64)) + b"\n")
    assert bytes(prove_inclusion(log, 2)) == good
    cosign(log, witness.url, [witness.vkey])


def test_a_log_that_was_rolled_back_is_seen(tmp_path: Path, maker: LogMaker, witness: Witness) -> None:
    cosign(_write(maker, tmp_path), witness.url, [witness.vkey])
    log = _write(maker, tmp_path, 3)
    with pytest.raises(LogDamagedError, match="rolled back"):
        cosign(log, witness.url, [witness.vkey])


@pytest.mark.parametrize("longer", [0, 2])
def test_a_fork_is_seen(tmp_path: Path, maker: LogMaker, witness: Witness, longer: int) -> None:
    """The same key signs another history, as long as the first or longer."""
    size = len(maker.lines) - longer
    witness.seen[maker.origin] = (size, bytes(32))
    with pytest.raises(LogDamagedError, match=r"another log|a fork"):
        cosign(_write(maker, tmp_path), witness.url, [witness.vkey])
    assert not (tmp_path / "log" / "cosignatures").exists()


def test_a_wrong_cosignature_is_never_kept(tmp_path: Path, maker: LogMaker, witness: Witness) -> None:
    log = _write(maker, tmp_path)
    text = maker.checkpoint().decode().rpartition("\n\n")[0] + "\n"
    stranger = Witness(name=witness.name)
    answers: list[tuple[bytes, str]] = [
        (witness.cosign(text + "x"), "is wrong"),
        (stranger.cosign(text), "none of the keys"),
        (b"", "no cosignature"),
        (b"\n", "no cosignature"),
        (b"<html>\n", "no cosignature"),
        (b"\xff" * 100, "no cosignature"),
        (witness.cosign(text) * 101, "no cosignature"),
        (b"x" * 100_000, "no cosignature"),
        (f"{text}2\n\n".encode() + witness.cosign(f"{text}2\n"), "no cosignature|is wrong|none"),
    ]
    for body, reason in answers:
        witness.answer = lambda _, body=body: (200, "text/plain", body)
        with pytest.raises(WitnessError, match=reason):
            cosign(log, witness.url, [witness.vkey])
    assert not (log / "cosignatures").exists()


@pytest.mark.parametrize(
    "refusal",
    [
        ((404, "text/plain", b""), "does not know this log"),
        ((403, "text/plain", b""), "does not trust"),
        ((400, "text/plain", b""), "HTTP status 400"),
        ((500, "text/plain", b""), "HTTP status 500"),
        ((302, "text/plain", b""), "HTTP status 302"),
        ((409, "text/x.tlog.size", b"abc\n"), "409 without the size"),
        ((409, "text/x.tlog.size", b"0\n"), "409 without the size"),
        ((409, "text/x.tlog.size", b"07\n"), "409 without the size"),
    ],
)
def test_a_refusal_is_told_in_one_sentence(
    tmp_path: Path, maker: LogMaker, witness: Witness, refusal: tuple[Answer, str]
) -> None:
    answer, reason = refusal
    witness.answer = lambda _: answer
    with pytest.raises(WitnessError, match=reason) as caught:
        cosign(_write(maker, tmp_path), witness.url, [witness.vkey])
    assert witness.url in str(caught.value)


def test_a_witness_that_names_another_size_each_time_is_given_up(
    tmp_path: Path, maker: LogMaker, witness: Witness
) -> None:
    sizes = iter(range(1, 8))
    witness.answer = lambda _: (409, "text/x.tlog.size", b"%d\n" % next(sizes))
    with pytest.raises(WitnessError, match="another size each time"):
        cosign(_write(maker, tmp_path), witness.url, [witness.vkey])
    assert len(witness.requests) == 3


def test_nobody_listening_is_told_and_a_silent_one_not_waited_for(tmp_path: Path, maker: LogMaker) -> None:
    log = _write(maker, tmp_path)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        with pytest.raises(WitnessError, match="timed out"):
            cosign(log, f"http://127.0.0.1:{port}", [Witness().vkey], timeout_s=0.2)
    with pytest.raises(WitnessError, match="refused"):
        cosign(log, f"http://127.0.0.1:{port}", [Witness().vkey])


@pytest.mark.parametrize(
    ("begin", "piece"),
    [
        (b"HTTP/1.1 200 OK\r\nContent-Length: 50000\r\n\r\n", b"x"),
        (b"HTTP/1.1 200 OK\r\nX: ", b"x"),
        (b"", b"HTTP/1.1 100 Continue\r\n\r\n"),
    ],
    ids=["body", "header", "continue"],
)
def test_a_witness_that_sends_a_byte_now_and_then_is_not_waited_for(
    tmp_path: Path, maker: LogMaker, begin: bytes, piece: bytes
) -> None:
    is_over = threading.Event()

    def trickle(server: socket.socket) -> None:
        connection, _ = server.accept()
        with connection, contextlib.suppress(OSError):
            connection.sendall(begin)
            while not is_over.wait(0.02):
                connection.sendall(piece)

    with socket.create_server(("127.0.0.1", 0)) as server:
        thread = threading.Thread(target=trickle, args=(server,))
        thread.start()
        timer = threading.Timer(10, is_over.set)  # so that the test ends where the client waits on
        timer.start()
        try:
            with pytest.raises(WitnessError, match="timed out"):
                cosign(
                    _write(maker, tmp_path),
                    f"http://127.0.0.1:{server.getsockname()[1]}",
                    [Witness().vkey],
                    timeout_s=0.5,
                )
            assert not is_over.is_set()
        finally:
            timer.cancel()
            is_over.set()
            thread.join()


def test_a_chunk_of_negative_length_is_no_answer(tmp_path: Path, maker: LogMaker) -> None:
    answer = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n-5\r\nabc"

    def serve(server: socket.socket) -> None:
        connection, _ = server.accept()
        with connection:
            connection.recv(1 << 16)
            connection.sendall(answer)

    with socket.create_server(("127.0.0.1", 0)) as server:
        thread = threading.Thread(target=serve, args=(server,))
        thread.start()
        with pytest.raises(WitnessError, match="length must be non-negative"):
            cosign(
                _write(maker, tmp_path),
                f"http://127.0.0.1:{server.getsockname()[1]}",
                [Witness().vkey],
            )
        thread.join()


@pytest.mark.parametrize("timeout_s", [0.0, -1.0, float("nan"), float("inf"), 1e300])
def test_a_timeout_that_is_none_is_refused(tmp_path: Path, maker: LogMaker, timeout_s: float) -> None:
    with pytest.raises(InvalidInputError, match="timeout: "):
        cosign(_write(maker, tmp_path), "http://127.0.0.1:9", [Witness().vkey], timeout_s=timeout_s)


@pytest.mark.parametrize(
    "url",
    [
        "",
        "witness.example",
        "ftp://w.example",
        "http://",
        "http://u:p@w.example",
        "http://w?x=1",
        "http://w:x",
        "http://[::1",
        "http://w/a b",
        "http://w/\u00e9",
    ],
)
def test_a_url_that_is_none_is_refused(tmp_path: Path, maker: LogMaker, url: str) -> None:
    with pytest.raises(InvalidInputError, match="url: "):
        cosign(_write(maker, tmp_path), url, [Witness().vkey])


def test_the_command_prints_who_when_and_where(
    tmp_path: Path, maker: LogMaker, witness: Witness, capsys: pytest.CaptureFixture[str]
) -> None:
    log = _write(maker, tmp_path)
    words = ["audit", "witness", str(log), witness.url, "--witness-vkey", witness.vkey]
    assert main([*words, "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["tree_size"] == len(maker.lines)
    assert document["root_hash"] == maker.root().hex()
    [row] = document["cosignatures"]
    assert (row["name"], row["time"]) == (witness.name, "2025-10-09T08:53:20.000000Z")
    assert main(words) == 0
    assert "Cosigned" in capsys.readouterr().out
    verify = ["audit", "verify", str(log), "--vkey", maker.vkey, "--checkpoint", row["file"], "--json"]
    assert main(verify) == 0
    assert json.loads(capsys.readouterr().out)["unprotected_entries"] == 0


def test_the_command_s_exit_codes(
    tmp_path: Path, maker: LogMaker, witness: Witness, capsys: pytest.CaptureFixture[str]
) -> None:
    log = str(_write(maker, tmp_path))
    assert main(["audit", "witness", log, witness.url]) == 2
    assert main(["audit", "witness", log, witness.url, "--witness-vkey", "x"]) == 2
    assert main(["audit", "witness", log, "nowhere", "--witness-vkey", witness.vkey]) == 2
    witness.answer = lambda _: (404, "text/plain", b"")
    assert main(["audit", "witness", log, witness.url, "--witness-vkey", witness.vkey]) == 5
    witness.answer = lambda _: (409, "text/x.tlog.size", b"99\n")
    assert main(["audit", "witness", log, witness.url, "--witness-vkey", witness.vkey]) == 1
    assert "Traceback" not in capsys.readouterr().err
