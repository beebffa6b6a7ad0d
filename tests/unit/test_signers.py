"""Log keys that lie in an ssh-agent: a real one of OpenSSH, one that is away, and ones that lie."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.audit_logs import ManualClock, open_log, read_entries, reference_check, sealed
from tests.independent_log import open_note
from tests.ssh_agents import Agent, answering, needs_openssh, running

from vram_residency.audit.format import note, ssh_agent
from vram_residency.audit.log import AuditLogger
from vram_residency.audit.reading.verification import verify
from vram_residency.audit.store import signers
from vram_residency.audit.writing.creation import NewLog, create_log
from vram_residency.audit.writing.options import LogOptions
from vram_residency.core.ed25519 import SigningKey
from vram_residency.core.errors import AuditWriteError, InvalidInputError, MissingKeyError

SERVICE = "worker-gpu-0"
KEY = SigningKey(bytes(range(32)))
FINGERPRINT = ssh_agent.fingerprint(KEY.public_key)


@pytest.fixture
def short_path() -> Iterator[Path]:
    """A socket's path has at most 107 bytes."""
    folder = Path(tempfile.mkdtemp(prefix="vram-"))
    yield folder
    shutil.rmtree(folder)


@pytest.fixture
def agent(short_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Agent]:
    with running(short_path) as found:
        monkeypatch.setenv("SSH_AUTH_SOCK", str(found.socket))
        yield found


def _make(folder: Path, signer: str, **options: Any) -> NewLog:
    return create_log(
        folder / "log",
        service_id=SERVICE,
        keys=folder / "keys",
        keep_genesis=True,
        signer=signer,
        options=LogOptions(**options),
    )


def _verdict(folder: Path, vkey: str) -> str:
    return verify(folder / "log", vkey=vkey, keys=folder / "keys").verdict


# --- a real agent -----------------------------------------------------------------------------------------


@needs_openssh
def test_a_key_in_an_agent_signs_checkpoints_like_any_other(tmp_path: Path, agent: Agent) -> None:
    agent.make_key("other")
    agent.make_key("rsa", kind="rsa")
    new = _make(tmp_path, f"ssh-agent:{agent.make_key()}")
    with open_log(tmp_path) as logger:
        logger.emit(sealed())
    origin, size, _ = open_note((tmp_path / "log" / "checkpoint").read_bytes(), new.vkey)
    assert (origin, size) == (new.origin, len(read_entries(tmp_path)))
    assert _verdict(tmp_path, new.vkey) == "intact"
    assert verify(tmp_path / "log", keys=tmp_path / "keys").trust == "local"


@needs_openssh
def test_the_key_folder_of_such_a_log_holds_no_private_log_key(tmp_path: Path, agent: Agent) -> None:
    new = _make(tmp_path, f"ssh-agent:{agent.make_key()}")
    assert (tmp_path / "keys" / "log.key").read_text() == f"SSH+AGENT+KEY+{new.vkey}\n"


@needs_openssh
def test_while_the_agent_is_away_events_become_durable_and_checkpoints_fail(
    tmp_path: Path, agent: Agent
) -> None:
    clock = ManualClock()
    new = _make(tmp_path, f"ssh-agent:{agent.make_key()}", clock=clock)
    failures: list[AuditWriteError] = []
    with open_log(tmp_path, clock=clock, on_failure=failures.append) as logger:
        agent.stop()
        receipt = logger.emit(sealed(1), durable=True)
        assert receipt is not None
        with pytest.raises(
            AuditWriteError, match="checkpoint: sign failed: the ssh-agent cannot be reached"
        ) as e:
            logger.flush()
        assert "ssh-add" in e.value.hint
        # Epochs end all the same: the log must not stand still because a key is away.
        clock.advance(901)
        logger.tick()
        assert logger.stats().epoch == 1
        logger.emit(sealed(2), durable=True)
        assert failures
        assert logger.stats().checkpoint_size == 0
        assert _verdict(tmp_path, new.vkey) == "intact"
        # The agent comes back: what was written meanwhile is signed.
        agent.start()
        agent.add()
        clock.advance(1)
        checkpoint = logger.flush()
        assert checkpoint is not None
        assert checkpoint.size == len(read_entries(tmp_path))
    assert _verdict(tmp_path, new.vkey) == "intact"
    reference_check(tmp_path)


@needs_openssh
def test_a_log_is_not_closed_before_its_last_entry_is_signed(tmp_path: Path, agent: Agent) -> None:
    _make(tmp_path, f"ssh-agent:{agent.make_key()}")
    logger = open_log(tmp_path)
    logger.emit(sealed())
    agent.stop()
    with pytest.raises(AuditWriteError, match="sign failed"):
        logger.close()
    agent.start()
    agent.add()
    logger.close()
    assert verify(tmp_path / "log", keys=tmp_path / "keys").checkpoint_size == len(read_entries(tmp_path))


@needs_openssh
def test_log_keys_move_from_file_to_agent_to_agent_and_back(tmp_path: Path, agent: Agent) -> None:
    first = _make(tmp_path, "file")
    choices = [f"ssh-agent:{agent.make_key('one')}", f"ssh-agent:{agent.make_key('two')}", "file"]
    with open_log(tmp_path) as logger:
        vkeys = [first.vkey, *(logger.rotate_key(choice) for choice in choices)]
        logger.emit(sealed())
    for vkey in vkeys:
        assert _verdict(tmp_path, vkey) == "intact"


@needs_openssh
def test_without_the_old_key_there_is_no_rotation_and_the_log_goes_on(tmp_path: Path, agent: Agent) -> None:
    new = _make(tmp_path, f"ssh-agent:{agent.make_key()}")
    with open_log(tmp_path) as logger:
        agent.remove_all()
        with pytest.raises(AuditWriteError, match="sign failed: the agent refused"):
            logger.rotate_key()
        agent.add()
    assert "key_rotated" not in {entry["event_type"] for entry in read_entries(tmp_path)}
    open_log(tmp_path).close()
    assert _verdict(tmp_path, new.vkey) == "intact"
    assert not (tmp_path / "keys" / "log.key.next").exists()


@needs_openssh
def test_a_key_that_the_agent_does_not_hold_makes_no_log(tmp_path: Path, agent: Agent) -> None:
    agent.make_key("rsa", kind="rsa")
    with pytest.raises(MissingKeyError, match="holds no Ed25519 key SHA256:") as caught:
        _make(tmp_path, f"ssh-agent:{FINGERPRINT}")
    assert "ssh-add" in caught.value.hint
    assert not any(tmp_path.iterdir())


# --- no agent, and lying ones -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    "choice", ["", "agent", "FILE", "ssh-agent:", "ssh-agent:MD5:00", "SHA256:abc", "file:x"]
)
def test_a_signer_that_is_neither_file_nor_agent_is_refused(choice: str) -> None:
    with pytest.raises(InvalidInputError, match="neither a file nor a key in an ssh-agent"):
        signers.new_signer(choice, "s/" + "0" * 32)


@pytest.mark.parametrize("path", [None, "", "/nowhere/at/all", "/" + "x" * 200])
def test_without_an_agent_the_key_is_missing(path: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SSH_AUTH_SOCK", raising=False)
    if path is not None:
        monkeypatch.setenv("SSH_AUTH_SOCK", path)
    with pytest.raises(MissingKeyError, match="ssh-agent"):
        signers.new_signer(f"ssh-agent:{FINGERPRINT}", "s/" + "0" * 32)


def _string(data: bytes) -> bytes:
    return len(data).to_bytes(4, "big") + data


def _answer(content: bytes) -> bytes:
    return _string(content)


_RIGHT = b"\x0e" + _string(_string(b"ssh-ed25519") + _string(KEY.sign(b"message")))
_LIES = {
    "empty": b"",
    "refusal": _answer(b"\x05"),
    "nothing": _answer(b""),
    "too-long": b"\xff\xff\xff\xff\x0e",
    "cut": _answer(_RIGHT)[:-1],
    "longer": _answer(_RIGHT + b"\x00"),
    "other-message": _answer(b"\x0c" + _RIGHT[1:]),
    "other-algorithm": _answer(_RIGHT.replace(b"ssh-ed25519", b"ssh-ed25518")),
    "length-beyond-the-end": _answer(b"\x0e\xff\xff\xff\xff"),
    "wrong-signature": _answer(b"\x0e" + _string(_string(b"ssh-ed25519") + _string(bytes(64)))),
    "of-another-text": _answer(b"\x0e" + _string(_string(b"ssh-ed25519") + _string(KEY.sign(b"else")))),
}


def _signer() -> signers.AgentSigner:
    return signers.AgentSigner(note.VerifierKey("s/" + "0" * 32, KEY.public_key))


@pytest.mark.parametrize("lie", _LIES)
def test_an_answer_that_is_no_right_signature_is_no_signature(
    lie: str, short_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with answering(short_path, lambda _: _LIES[lie]) as path:
        monkeypatch.setenv("SSH_AUTH_SOCK", str(path))
        with pytest.raises(note.SignerUnavailableError, match="agent"):
            _signer().sign(b"message")


def test_a_right_answer_is_taken_and_asks_for_the_right_key(
    short_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    requests: list[bytes] = []

    def answer(request: bytes) -> bytes:
        requests.append(request)
        return _answer(_RIGHT)

    with answering(short_path, answer) as path:
        monkeypatch.setenv("SSH_AUTH_SOCK", str(path))
        assert _signer().sign(b"message") == KEY.sign(b"message")
    blob = _string(b"ssh-ed25519") + _string(KEY.public_key)
    assert requests == [_string(b"\x0d" + _string(blob) + _string(b"message") + bytes(4))]


def test_an_agent_that_never_answers_is_given_up(short_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(signers, "TIMEOUT_S", 0.2)
    import socket

    with socket.socket(socket.AF_UNIX) as silent:
        silent.bind(str(short_path / "s"))
        silent.listen()
        monkeypatch.setenv("SSH_AUTH_SOCK", str(short_path / "s"))
        with pytest.raises(note.SignerUnavailableError, match="did not answer"):
            _signer().sign(b"message")


def test_a_key_of_small_order_in_an_agent_is_not_taken(
    short_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    weak = (1).to_bytes(32, "little")
    blob = _string(b"ssh-ed25519") + _string(weak)
    listed = _answer(b"\x0c" + (1).to_bytes(4, "big") + _string(blob) + _string(b""))
    with answering(short_path, lambda _: listed) as path:
        monkeypatch.setenv("SSH_AUTH_SOCK", str(path))
        with pytest.raises(MissingKeyError, match="holds no Ed25519 key"):
            signers.new_signer(f"ssh-agent:{ssh_agent.fingerprint(weak)}", "s/" + "0" * 32)


def test_both_kinds_of_log_key_survive_being_written_and_read() -> None:
    own = note.SignerKey("s/" + "0" * 32, KEY)
    for signer in (own, _signer()):
        read = signers.parse_signer(signers.signer_text(signer))
        assert type(read) is type(signer)
        assert read.verifier == signer.verifier
    assert KEY.seed.hex() not in repr(_signer())


def test_a_disabled_logger_has_no_key_to_rotate() -> None:
    from vram_residency.core.errors import LogClosedError

    with pytest.raises(LogClosedError, match="closed"):
        AuditLogger.disabled().rotate_key()
