"""A real ssh-agent for tests, and one that lies."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

IS_HERE = all(map(shutil.which, ("ssh-agent", "ssh-add", "ssh-keygen")))
needs_openssh = pytest.mark.skipif(
    not IS_HERE and "VRAM_TESTS_NEED_TOOLS" not in os.environ,
    reason="NOT CHECKED WITH A REAL SSH-AGENT: install openssh-client",
)


class Agent:
    """An ssh-agent of OpenSSH, running until stop(), that may be started again on the same socket."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        self.socket = folder / "agent"
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        self.socket.unlink(missing_ok=True)
        command = ["ssh-agent", "-D", "-a", str(self.socket)]
        self._process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
        assert self._process.stdout is not None
        assert b"SSH_AUTH_SOCK" in self._process.stdout.readline()  # it listens from now on

    def stop(self) -> None:
        if self._process is not None:
            self._process.terminate()
            self._process.wait()
            assert self._process.stdout is not None
            self._process.stdout.close()
        self._process = None

    def make_key(self, name: str = "log", kind: str = "ed25519") -> str:
        """Make a key with ssh-keygen and add it; its fingerprint as ``ssh-add -l`` shows it."""
        path = self.folder / name
        self._run("ssh-keygen", "-q", "-t", kind, "-N", "", "-C", "a comment", "-f", str(path))
        self.add(name)
        return self._run("ssh-keygen", "-l", "-f", f"{path}.pub").split()[1]

    def add(self, name: str = "log") -> None:
        self._run("ssh-add", "-q", str(self.folder / name))

    def remove_all(self) -> None:
        self._run("ssh-add", "-q", "-D")

    def _run(self, *command: str) -> str:
        environment = {**os.environ, "SSH_AUTH_SOCK": str(self.socket)}
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
        return done.stdout


@contextmanager
def running(folder: Path) -> Iterator[Agent]:
    """A real agent until the block ends."""
    agent = Agent(folder)
    agent.start()
    try:
        yield agent
    finally:
        agent.stop()


@contextmanager
def answering(folder: Path, answer: Callable[[bytes], bytes]) -> Iterator[Path]:
    """A socket whose answers, length and all, ``answer`` makes from the requests; none where it is empty."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "liar"
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(path))
        server.listen()
        server.settimeout(0.05)
        is_over = threading.Event()

        def serve() -> None:
            while not is_over.is_set():
                try:
                    connection, _ = server.accept()
                except TimeoutError:
                    continue
                with connection:
                    connection.sendall(answer(connection.recv(1 << 16)))

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield path
        finally:
            is_over.set()
            thread.join()
