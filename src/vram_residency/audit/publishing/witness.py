"""Cosignatures from a witness (client of C2SP tlog-witness): others can then trust the log's time and length.

The witness gets the newest checkpoint and a proof that it continues the one it cosigned last. What it answers
is kept under ``cosignatures/``, one whole note a witness, once its cosignature verified.
"""

from __future__ import annotations

import os
import queue
import re
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Final, NamedTuple
from urllib.parse import urlsplit

import msgspec

from vram_residency.audit.format import cosignature, note
from vram_residency.audit.format.checkpoint import Checkpoint, CheckpointFormatError
from vram_residency.audit.format.cosignature import Cosignature, WitnessKey
from vram_residency.audit.publishing.proving import consistency_of
from vram_residency.audit.publishing.signed_log import SignedLog
from vram_residency.audit.store.files import DIRECTORY_MODE, SYSTEM_FILES, Files
from vram_residency.core.errors import AuditWriteError, InvalidInputError, LogDamagedError, WitnessError

TIMEOUT_S: Final = 30.0
_TIMEOUT_S_MAX: Final = 86_400
_ANSWER_BYTES_MAX: Final = note.NOTE_BYTES_MAX
_SIZE: Final = re.compile(rb"(0|[1-9][0-9]{0,18})\n\Z")
_OK, _FORBIDDEN, _NOT_FOUND, _CONFLICT, _UNPROCESSABLE = 200, 403, 404, 409, 422
#: A witness that names another size each time is not followed for ever.
_ATTEMPTS_MAX: Final = 3


class WitnessAnchor(msgspec.Struct, frozen=True):
    """A witness that is asked whenever a log is opened for writing, before anything is signed.

    ``url`` is its submission prefix, ``vkey`` its public key. ``AuditLogger.open(anchor=…)`` takes it.
    """

    url: str
    vkey: str
    timeout_s: float = TIMEOUT_S

    def ask(self, directory: str | os.PathLike[str], *, files: Files = SYSTEM_FILES) -> bytes:
        """The newest checkpoint, cosigned: the log is neither shorter than what the witness saw, nor another.

        Raises as cosign() does: LogDamagedError where it is, WitnessError where the witness does not answer.
        """
        return cosign(directory, self.url, [self.vkey], timeout_s=self.timeout_s, files=files).note_bytes


class Cosigned(msgspec.Struct, frozen=True):
    """The checkpoint's size and root, who cosigned it when, and the files that keep it.

    ``note_bytes`` is the log's own note of it.
    """

    origin: str
    size: int
    root: bytes
    cosignatures: tuple[Cosignature, ...]
    paths: tuple[Path, ...]
    note_bytes: bytes


def cosign(
    directory: str | os.PathLike[str],
    url: str,
    vkeys: Sequence[str],
    *,
    timeout_s: float = TIMEOUT_S,
    files: Files = SYSTEM_FILES,
) -> Cosigned:
    """Ask the witness at ``url`` (its submission prefix) to cosign the log's newest checkpoint; keep it.

    ``vkeys`` are the witness's public keys; one cosignature by one of them is needed. Proxies are not used
    and redirects not followed. Raises InvalidInputError (url, vkey), WitnessError (no or a wrong answer),
    LogDamagedError (the witness says that it saw a longer log or another one), AuditWriteError.
    """
    keys = [parse_witness_vkey(text) for text in vkeys]
    endpoint = Endpoint.parse(url, timeout_s=timeout_s)
    log = SignedLog.open(directory)
    # 1. The witness checks that the log continues what it saw before, and cosigns.
    answer = _ask(log, endpoint, _known_size(log, keys))
    # 2. Only a right cosignature over this very checkpoint counts.
    found = _verified(log, endpoint, answer, keys)
    # 3. Kept in the log's directory, beside the checkpoint.
    paths = tuple(_keep(log, one, files) for one in found)
    return Cosigned(log.origin, log.size, log.checkpoint.root, tuple(found), paths, log.checkpoint.note_bytes)


class Answer(NamedTuple):
    """Status and body of an HTTP answer, unverified."""

    status: int
    body: bytes


class Endpoint(msgspec.Struct, frozen=True):
    """Where a witness listens; ``str`` shows it without what a query or user name may hold."""

    is_tls: bool
    host: str
    port: int | None
    path: str
    timeout_s: float

    @classmethod
    def parse(cls, url: str, *, timeout_s: float) -> Endpoint:
        """Of a submission prefix. Raises InvalidInputError."""
        try:
            parts = urlsplit(url)
            port = parts.port
        except ValueError:
            raise InvalidInputError("url", "is not a URL") from None
        if not 0 < timeout_s <= _TIMEOUT_S_MAX:  # no number fails it too
            raise InvalidInputError("timeout", f"must be over 0 and at most {_TIMEOUT_S_MAX} seconds")
        is_plain = not (parts.query or parts.fragment or parts.username or parts.password)
        if parts.scheme not in {"http", "https"} or not parts.hostname or not is_plain:
            raise InvalidInputError(
                "url",
                "is not an http or https URL of host and path alone",
                hint="Give the witness's submission prefix, such as https://witness.example/w1.",
            )
        path = f"{parts.path.rstrip('/')}/add-checkpoint"
        if not (path.isascii() and path.isprintable() and " " not in path):
            raise InvalidInputError("url", "its path has characters that a URL cannot have")
        return cls(parts.scheme == "https", parts.hostname, port, path, timeout_s)

    def __str__(self) -> str:
        scheme = "https" if self.is_tls else "http"
        port = "" if self.port is None else f":{self.port}"
        return f"{scheme}://{self.host}{port}{self.path.removesuffix('/add-checkpoint')}"

    def post(self, body: bytes) -> Answer:
        """Send ``body`` and read a bounded answer, all within ``timeout_s``. Raises WitnessError."""
        # In a thread of its own: to a socket every byte that comes is a new beginning, and a witness that
        # sends one now and then must not hold up the log that asks it.
        answers: queue.SimpleQueue[Answer | WitnessError] = queue.SimpleQueue()
        exchange = threading.Thread(
            target=lambda: answers.put(self._exchange(body)), name="vram-witness", daemon=True
        )
        exchange.start()
        try:
            answer = answers.get(timeout=self.timeout_s)
        except queue.Empty:
            raise WitnessError(str(self), "timed out") from None
        if isinstance(answer, WitnessError):
            raise answer
        return answer

    def _exchange(self, body: bytes) -> Answer | WitnessError:
        import http.client

        kind = http.client.HTTPSConnection if self.is_tls else http.client.HTTPConnection
        connection = kind(self.host, self.port, timeout=self.timeout_s)
        try:
            connection.request("POST", self.path, body, {"Content-Type": "application/octet-stream"})
            response = connection.getresponse()
            return Answer(response.status, response.read(_ANSWER_BYTES_MAX + 1))
        except (OSError, http.client.HTTPException, ValueError) as error:  # ValueError: a chunk of -5 bytes
            reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
            return WitnessError(str(self), reason)
        finally:
            connection.close()


def _ask(log: SignedLog, endpoint: Endpoint, known_size: int) -> bytes:
    """The body of the answer that cosigns. The witness is believed about what it saw last, once it says."""
    old_size = known_size
    for _ in range(_ATTEMPTS_MAX):
        answer = endpoint.post(bytes(consistency_of(log, old_size)))
        if answer.status == _OK:
            return answer.body
        if answer.status == _UNPROCESSABLE:
            # Our proof is right, so the witness holds another root for the old size.
            raise _contradicted(log, f"what {endpoint} saw of it before does not lead to it: a fork")
        if answer.status != _CONFLICT:
            raise _refusal(endpoint, answer)
        old_size = _conflicting_size(log, endpoint, answer, old_size)
    raise WitnessError(str(endpoint), "it names another size each time")


def _conflicting_size(log: SignedLog, endpoint: Endpoint, answer: Answer, old_size: int) -> int:
    match = _SIZE.match(answer.body)
    seen = None if match is None else int(match[1])
    if seen is not None and seen > log.size:
        raise _contradicted(log, f"{endpoint} has seen {seen} entries, the log has {log.size}: rolled back")
    if old_size == log.size and seen in {None, old_size}:
        raise _contradicted(log, f"{endpoint} has seen another log of {log.size} entries")
    if seen is None or seen == old_size:
        raise WitnessError(str(endpoint), "it answered 409 without the size that it saw last")
    return seen


def _refusal(endpoint: Endpoint, answer: Answer) -> WitnessError:
    reasons = {
        _NOT_FOUND: "it does not know this log (404)",
        _FORBIDDEN: "it does not trust this log's key (403)",
    }
    return WitnessError(str(endpoint), reasons.get(answer.status, f"HTTP status {answer.status}"))


def _verified(log: SignedLog, endpoint: Endpoint, answer: bytes, keys: list[WitnessKey]) -> list[Cosignature]:
    text = log.checkpoint.checkpoint.encode()
    try:
        found = cosignature.verify(f"{text}\n".encode() + answer, keys)
    except (note.NoteFormatError, note.NoteVerificationError) as error:
        raise WitnessError(str(endpoint), f"its answer is no cosignature: {error}") from None
    if not found:
        raise WitnessError(
            str(endpoint),
            "none of the keys given signed its answer",
            hint="Check --witness-vkey with the witness's operator.",
        )
    return found


def _keep(log: SignedLog, one: Cosignature, files: Files) -> Path:
    """``cosignatures/<key id>.note``: checkpoint, the log's signatures, this cosignature."""
    folder = log.directory.cosignatures
    path = folder / f"{one.key.id.hex()}.note"
    try:
        folder.mkdir(mode=DIRECTORY_MODE, exist_ok=True)
        files.write_atomically(path, log.checkpoint.note_bytes + one.line.encode())
        files.sync_directory(log.directory.path)
    except OSError as error:
        raise AuditWriteError(str(path), "replace", error.strerror or str(error)) from error
    return path


def _known_size(log: SignedLog, keys: list[WitnessKey]) -> int:
    """The size that the witness cosigned last, as far as the kept notes say: it is only a first guess."""
    names = {(key.name, key.id) for key in keys}
    sizes = [0]
    for text, signatures in log.kept_notes():
        try:
            kept = Checkpoint.parse(text)
        except CheckpointFormatError:
            continue
        is_of_witness = any((signature.name, signature.key_id) in names for signature in signatures)
        if is_of_witness and kept.origin == log.origin and kept.size <= log.size:
            sizes.append(kept.size)
    return max(sizes)


def parse_witness_vkey(text: str) -> WitnessKey:
    """A witness's public key. Raises InvalidInputError."""
    try:
        return WitnessKey.parse(text.strip())
    except note.NoteFormatError as error:
        hint = "Give the text name+hash+base64 that the witness's operator publishes."
        raise InvalidInputError("witness_vkey", str(error), hint=hint) from None


def _contradicted(log: SignedLog, reason: str) -> LogDamagedError:
    return LogDamagedError(str(log.directory), None, reason)
