"""One sealed shard in two real processes: lent, verified by the borrower, revoked, nothing left behind."""

from __future__ import annotations

import os
import secrets
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.models import SILERO
from tests.shards import TOKEN, Place, place

from vram_residency import (
    ConfigurationError,
    DeviceBusyError,
    DeviceLostError,
    DigestMismatchError,
    InvalidInputError,
    SealVerificationError,
)
from vram_residency.device.host import HostDevice
from vram_residency.sharing import ShareServer, borrow, wire

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="descriptors of sealed memory are Linux's")

ROOT = Path(__file__).parents[2]

LENDER = """
import sys
from vram_residency import VramManager
from vram_residency.sharing import ShareServer
token, path, model = sys.argv[1:]
with VramManager.new_with_token(token, device="host") as manager:
    shard = manager.seal_file(model, shard_id="shard-1")
    with ShareServer(manager, path):
        print(manager.attestation_public_key.hex(), shard.digest, flush=True)
        for line in sys.stdin:
            print(manager.revoke("shard-1"), flush=True)
"""

BORROWER = """
import sys
from vram_residency import VramManager
from vram_residency.sharing import borrow
token, path, digest = sys.argv[1:]
manager = VramManager.new_with_token(token, device="host", worker_id="borrower")
borrowed = borrow(manager, path, "shard-1", expect=digest)
print(borrowed.shard.digest, flush=True)
sys.stdin.read()
"""


@contextmanager
def process(script: str, *arguments: str) -> Iterator[subprocess.Popen[str]]:
    """Another process, killed at the end if it still lives."""
    running = subprocess.Popen(
        [sys.executable, "-c", script, TOKEN, *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=ROOT,
    )
    with running:
        try:
            yield running
        finally:
            running.kill()


def said(running: subprocess.Popen[str]) -> list[str]:
    assert running.stdout is not None
    return running.stdout.readline().split()


def tell(running: subprocess.Popen[str], words: str) -> None:
    assert running.stdin is not None
    running.stdin.write(f"{words}\n")
    running.stdin.flush()


def let_go(lender: Place) -> None:
    """Wait until every loan has ended on the lender's side as well."""
    for shard in lender.manager.shards():
        lender.manager._parts.registry.wait_until_idle(lender.record(shard))


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "share" / "socket"


@pytest.fixture
def here() -> Iterator[Place]:
    with place(HostDevice(capacity_bytes=64 << 20)) as made:
        yield made


def test_a_borrower_verifies_and_uses_the_very_same_pages(path: Path, here: Place):
    with process(LENDER, str(path), str(SILERO.path)) as lender:
        key, digest = said(lender)
        with borrow(here.manager, path, "shard-1", public_key=bytes.fromhex(key)) as borrowed:
            assert borrowed.shard.digest == digest
            assert here.manager.used_vram() == 0
            with here.manager.execution(borrowed.shard, "full") as views:
                total = sum(float(np.abs(views[name].numpy()).sum()) for name in views)
            assert total > 0
            facts = here.manager.verify_sealed(borrowed.shard).residency["facts"]
            assert (facts["kind"], facts["shared"], facts["descriptor"]) == ("memfd", True, "read_only")
            # The very same memory: one inode, seen from both processes.
            inodes = {fd.stat().st_ino for fd in Path(f"/proc/{lender.pid}/fd").iterdir()}
            assert facts["inode"] in inodes
        assert here.manager.shards() == []
        assert here.only("vram_deallocated")["freed_bytes"] == 0


def test_a_revoked_loan_ends_and_is_never_handed_out_again(path: Path, here: Place):
    with process(LENDER, str(path), str(SILERO.path)) as lender:
        key, _ = said(lender)
        borrowed = borrow(here.manager, path, "shard-1", public_key=bytes.fromhex(key))
        assert borrowed.is_on_loan
        tell(lender, "revoke")
        assert said(lender) == ["1"]
        assert not borrowed.is_on_loan
        with (
            pytest.raises(SealVerificationError, match="the lender revoked the loan"),
            here.manager.execution(borrowed.shard),
        ):
            pytest.fail("handed out after the revocation")
        assert here.manager.describe("shard-1").state == "quarantined"
        borrowed.close()


def test_a_killed_lender_ends_the_loan_and_leaves_a_path_that_can_be_used_again(path: Path, here: Place):
    with process(LENDER, str(path), str(SILERO.path)) as lender:
        key, _ = said(lender)
        borrowed = borrow(here.manager, path, "shard-1", public_key=bytes.fromhex(key))
        lender.send_signal(signal.SIGKILL)
        lender.wait()
        with pytest.raises(SealVerificationError, match="the lender of this memory is gone"):
            here.manager.verify_sealed(borrowed.shard)
        borrowed.close()
    assert path.is_socket()
    with pytest.raises(DeviceLostError, match="nobody lends shards"):
        borrow(here.manager, path, "shard-1", public_key=bytes.fromhex(key))
    with ShareServer(here.manager, path):
        assert path.is_socket()
    assert not path.exists()


def test_a_killed_borrower_gives_its_loan_back(path: Path, here: Place):
    shard = here.manager.seal_file(SILERO.path, shard_id="shard-1")
    with ShareServer(here.manager, path):
        with process(BORROWER, str(path), shard.digest) as borrower:
            assert said(borrower) == [shard.digest]
            event = here.only("shard_shared")
            assert event == {
                "shard_id": "shard-1",
                "peer_pid": borrower.pid,
                "peer_uid": os.getuid(),
                "access": "read_only",
            }
            with pytest.raises(DeviceBusyError, match=r"1 open .* loan"):
                here.manager.deallocate(shard)
            borrower.send_signal(signal.SIGKILL)
            borrower.wait()
        let_go(here)
        here.manager.deallocate(shard)
    assert here.manager.shards() == []


def test_closing_the_server_ends_every_loan(path: Path, here: Place):
    shard = here.manager.seal_file(SILERO.path, shard_id="shard-1")
    server = ShareServer(here.manager, path)
    with process(BORROWER, str(path), shard.digest) as borrower:
        assert said(borrower) == [shard.digest]
        server.close()
        server.close()
        here.manager.deallocate(shard)


def test_revoking_counts_epochs_and_is_audited(here: Place):
    shard = here.manager.seal_file(SILERO.path)
    assert [here.manager.revoke(shard), here.manager.revoke(shard)] == [0, 0]
    assert [each["epoch"] for each in here.log.of_type("share_revoked")] == [1, 2]


# --- what is refused -------------------------------------------------------------------------------------


def test_a_borrower_must_trust_something(path: Path, here: Place):
    with pytest.raises(InvalidInputError, match="both missing"):
        borrow(here.manager, path, "shard-1")


def test_another_digest_than_the_approved_one_is_refused_and_nothing_stays(path: Path, here: Place):
    here.manager.seal_file(SILERO.path, shard_id="shard-1")
    with place(HostDevice(capacity_bytes=1 << 20)) as there, ShareServer(here.manager, path):
        for trusted in ({}, {"public_key": here.manager.attestation_public_key}):
            with pytest.raises(DigestMismatchError):
                borrow(there.manager, path, "shard-1", expect=f"blake3:{'00' * 32}", **trusted)
        there.require_untouched()
        let_go(here)


def test_an_attestation_by_another_key_is_refused(path: Path, here: Place):
    here.manager.seal_file(SILERO.path, shard_id="shard-1")
    with place(HostDevice(capacity_bytes=1 << 20)) as there, ShareServer(here.manager, path):
        with pytest.raises(InvalidInputError, match="no valid signature of the given key"):
            borrow(there.manager, path, "shard-1", public_key=there.manager.attestation_public_key)
        there.require_untouched()
        let_go(here)


def test_a_user_who_may_not_borrow_is_refused(path: Path, here: Place):
    here.manager.seal_file(SILERO.path, shard_id="shard-1")
    with ShareServer(here.manager, path, allowed_uids=[]):
        with pytest.raises(InvalidInputError, match=f"user {os.getuid()} may not borrow"):
            borrow(here.manager, path, "shard-1", expect=f"blake3:{'00' * 32}")
        assert "shard_shared" not in here.events


def test_an_unknown_shard_is_refused_in_a_sentence(path: Path, here: Place):
    with (
        ShareServer(here.manager, path),
        pytest.raises(InvalidInputError, match="no shard 'nobody' is held here"),
    ):
        borrow(here.manager, path, "nobody", expect=f"blake3:{'00' * 32}")


def test_memory_that_could_still_be_written_is_not_borrowed(path: Path, here: Place):
    """The device of the tests keeps a writable twin, so the kernel's write seal is missing."""
    with place() as there:
        shard = there.manager.seal_file(SILERO.path, shard_id="shard-1")
        with (
            ShareServer(there.manager, path),
            pytest.raises(InvalidInputError, match=r"lacks the seals .*write"),
        ):
            borrow(here.manager, path, "shard-1", expect=shard.digest)
        let_go(there)


def test_adopted_tensors_cannot_be_shared(path: Path, here: Place):
    here.manager.seal_tensors({"t": bytearray(8)}, shard_id="shard-1")
    with ShareServer(here.manager, path), pytest.raises(InvalidInputError, match="adopted memory"):
        borrow(here.manager, path, "shard-1", expect=f"blake3:{'00' * 32}")


def test_a_place_that_others_can_enter_is_refused_with_the_mending_command(tmp_path: Path, here: Place):
    tmp_path.chmod(0o755)
    with pytest.raises(ConfigurationError, match="open to other users") as refused:
        ShareServer(here.manager, tmp_path / "socket")
    assert refused.value.hint == f"Run: chmod 700 {tmp_path}"


def test_two_servers_at_one_path_are_refused(path: Path, here: Place):
    with ShareServer(here.manager, path):
        with pytest.raises(ConfigurationError, match=r"lends shards at .* already"):
            ShareServer(here.manager, path)
        assert path.is_socket()
    assert (path.parent.stat().st_mode & 0o777) == 0o700


# --- a hostile other side -----------------------------------------------------------------------------------

HOSTILE = {
    "nothing": b"",
    "half a length": b"\0\0",
    "a length alone": b"\0\0\0\5",
    "too long": b"\xff\xff\xff\xff",
    "no json": b"\0\0\0\3abc",
    "another message": b'\0\0\0\x14{"type":"revoked"}\n\n',
    "a grant": wire._LENGTH.pack(51) + b'{"type":"grant","envelope":{},"format":"raw","epoch":0}'[:51],
}


@pytest.mark.parametrize("data", HOSTILE.values(), ids=HOSTILE)
def test_a_hostile_request_hurts_nobody_else(data: bytes, path: Path, here: Place):
    shard = here.manager.seal_file(SILERO.path, shard_id="shard-1")
    with ShareServer(here.manager, path):
        with socket.socket(socket.AF_UNIX) as hostile:
            hostile.connect(str(path))
            hostile.sendall(data)
            hostile.shutdown(socket.SHUT_WR)
            hostile.recv(1 << 16)
        with process(BORROWER, str(path), shard.digest) as borrower:
            assert said(borrower) == [shard.digest]


@contextmanager
def impostor(path: Path, answer: Any) -> Iterator[None]:
    """A lender that answers one request with whatever the test says."""
    path.parent.mkdir(mode=0o700)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen()

        def serve() -> None:
            connection, _ = listener.accept()
            with connection:
                wire.receive(connection)
                answer(connection)

        thread = threading.Thread(target=serve)
        thread.start()
        yield
        thread.join()


def memory(data: bytes, *, is_sealed: bool = True) -> int:
    from vram_residency.device import memfd

    descriptor = memfd.create("t", len(data))
    os.pwrite(descriptor, data, 0)
    if is_sealed:
        memfd.add_seals(descriptor, memfd.ALL_SEALS)
    return descriptor


def granting(make: Callable[[], int]) -> Any:
    def answer(connection: socket.socket) -> None:
        descriptor = make()
        wire.send(connection, wire.Grant({}, "raw", 0), descriptor)
        os.close(descriptor)

    return answer


IMPOSTORS = {
    "other bytes": (granting(lambda: memory(b"other")), DigestMismatchError, "blake3"),
    "unsealed memory": (
        granting(lambda: memory(b"x", is_sealed=False)),
        InvalidInputError,
        "lacks the seals",
    ),
    "a file": (
        granting(lambda: os.open(__file__, os.O_RDONLY)),
        InvalidInputError,
        "names no sealed memory",
    ),
    "no descriptor": (
        lambda connection: wire.send(connection, wire.Grant({}, "raw", 0)),
        InvalidInputError,
        "answered something else",
    ),
    "silence": (lambda connection: connection.close(), DeviceLostError, "closed the connection"),
    "rubbish": (lambda connection: connection.sendall(b"\0\0\0\2{}"), InvalidInputError, "is not one"),
}


@pytest.mark.parametrize("case", IMPOSTORS.values(), ids=IMPOSTORS)
def test_an_impostor_can_only_be_refused(case: Any, path: Path, here: Place):
    answer, error, words = case
    with impostor(path, answer), pytest.raises(error, match=words):
        borrow(here.manager, path, "shard-1", expect=f"blake3:{secrets.token_hex(32)}")
    here.require_untouched()
