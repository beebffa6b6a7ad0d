"""Where a log's private key lies: in the file ``log.key``, or in an ssh-agent that signs for it.

A log key in an agent never enters this process. ``log.key`` then holds ``SSH+AGENT+KEY+<vkey>``: which key it
is, and no secret.
"""

from __future__ import annotations

import contextlib
import os
import socket
import time
from collections.abc import Iterator
from typing import Final

from vram_residency.audit.format import note, ssh_agent
from vram_residency.core import ed25519
from vram_residency.core.errors import InvalidInputError, MissingKeyError

#: A choice of signer: a new key in the file log.key.
FILE: Final = "file"
#: A choice of signer: a key that lies in an ssh-agent, by its fingerprint.
AGENT_PREFIX: Final = "ssh-agent:"
TIMEOUT_S: Final = 5.0
_SOCKET_VARIABLE: Final = "SSH_AUTH_SOCK"
_REFERENCE_PREFIX: Final = "SSH+AGENT+KEY+"


class AgentSigner:
    """A log key in the ssh-agent that ``SSH_AUTH_SOCK`` names at the moment of signing."""

    def __init__(self, verifier: note.VerifierKey) -> None:
        self.verifier: Final = verifier

    @classmethod
    def parse(cls, text: str) -> AgentSigner:
        """The inverse of str(). Raises NoteFormatError."""
        if not text.startswith(_REFERENCE_PREFIX):
            raise note.NoteFormatError("not a key in an ssh-agent")
        return cls(note.VerifierKey.parse(text.removeprefix(_REFERENCE_PREFIX)))

    @property
    def fingerprint(self) -> str:
        """As ``ssh-add -l`` shows it."""
        return ssh_agent.fingerprint(self.verifier.public_key)

    def sign(self, message: bytes) -> bytes:
        """A signature that was verified. Raises SignerUnavailableError within a few seconds."""
        public_key = self.verifier.public_key
        try:
            signature = ssh_agent.parse_signature(_ask(ssh_agent.sign_request(public_key, message)))
        except ssh_agent.AgentFormatError as error:
            raise note.SignerUnavailableError(str(error)) from None
        if not ed25519.verify(public_key, signature, message):
            raise note.SignerUnavailableError("the agent answered with a wrong signature")
        return signature

    def __str__(self) -> str:
        return f"{_REFERENCE_PREFIX}{self.verifier}"

    def __repr__(self) -> str:
        return f"AgentSigner({self.verifier})"


def new_signer(choice: str, name: str) -> note.Signer:
    """A signer for the log ``name``: ``file`` makes a new key, ``ssh-agent:SHA256:…`` finds one.

    Raises InvalidInputError (another choice), MissingKeyError (the agent, or the key in it, is not there).
    """
    if choice == FILE:
        return note.SignerKey.generate(name)
    wanted = choice.removeprefix(AGENT_PREFIX)
    if wanted == choice or not wanted.startswith("SHA256:"):
        hint = "Give `file`, or `ssh-agent:SHA256:…` with a fingerprint that `ssh-add -l` shows."
        raise InvalidInputError("signer", "is neither a file nor a key in an ssh-agent", hint=hint)
    try:
        held = ssh_agent.parse_identities(_ask(ssh_agent.list_request()))
    except (ssh_agent.AgentFormatError, note.SignerUnavailableError) as error:
        raise MissingKeyError("signer", str(error), hint=_HINT) from None
    found = [key for key in held if ssh_agent.fingerprint(key) == wanted and ed25519.is_sound_public_key(key)]
    if not found:
        raise MissingKeyError("signer", f"the agent holds no Ed25519 key {wanted}", hint=_HINT)
    return AgentSigner(note.VerifierKey(name, found[0]))


def parse_signer(text: str) -> note.Signer:
    """What ``log.key`` holds. Raises NoteFormatError; the text is in no message."""
    if text.startswith(_REFERENCE_PREFIX):
        return AgentSigner.parse(text)
    return note.SignerKey.parse(text)


def signer_text(signer: note.Signer) -> str:
    """The inverse of parse_signer(): a secret where the key itself is the signer."""
    return signer.secret_text() if isinstance(signer, note.SignerKey) else str(signer)


_HINT: Final = "Start ssh-agent, set SSH_AUTH_SOCK, and add the key with `ssh-add`; `ssh-add -l` shows it."


def _ask(request: bytes) -> bytes:
    """The agent's answer, without its length. Raises SignerUnavailableError, AgentFormatError."""
    path = os.environ.get(_SOCKET_VARIABLE)
    if not path:
        raise note.SignerUnavailableError(f"{_SOCKET_VARIABLE} does not name an ssh-agent")
    with _reasons(), socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        deadline = time.monotonic() + TIMEOUT_S
        connection.settimeout(TIMEOUT_S)
        connection.connect(path)
        connection.sendall(request)
        length = ssh_agent.answer_bytes(_receive(connection, ssh_agent.LENGTH_BYTES, deadline))
        return _receive(connection, length, deadline)


def _receive(connection: socket.socket, count: int, deadline: float) -> bytes:
    data = bytearray()
    while len(data) < count:
        # An agent that sends a byte now and then must not hold up the log's writer either.
        connection.settimeout(max(deadline - time.monotonic(), 0.001))
        piece = connection.recv(count - len(data))
        if not piece:
            raise note.SignerUnavailableError("the ssh-agent hung up")
        data += piece
    return bytes(data)


@contextlib.contextmanager
def _reasons() -> Iterator[None]:
    try:
        yield
    except TimeoutError:
        raise note.SignerUnavailableError(f"the ssh-agent did not answer in {TIMEOUT_S:.0f} s") from None
    except OSError as error:
        reason = error.strerror or str(error)  # a path that is too long has no number
        raise note.SignerUnavailableError(f"the ssh-agent cannot be reached: {reason}") from None
