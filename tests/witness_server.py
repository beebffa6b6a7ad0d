"""A small real witness (C2SP tlog-witness) on the loopback, for tests: its own arithmetic, keys and memory.

It shares no code with the product. ``answer`` may be replaced to make it lie, stall or talk nonsense.
"""

from __future__ import annotations

import base64
import hashlib
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from tests.independent_log import open_note
from tests.merkle_reference import recomputed_roots

Answer = tuple[int, str, bytes]


def cosignature_id(name: str, public_key: bytes, algorithm: int = 4) -> bytes:
    return hashlib.sha256(name.encode() + b"\n" + bytes([algorithm]) + public_key).digest()[:4]


class Witness:
    """What a witness knows: the keys of logs, and the newest checkpoint that it cosigned of each."""

    def __init__(
        self,
        *log_vkeys: str,
        name: str = "witness.example/w1",
        seed: bytes | None = None,
        now_s: int = 1_760_000_000,
    ) -> None:
        self.name = name
        self.private = Ed25519PrivateKey.from_private_bytes(os.urandom(32) if seed is None else seed)
        self.public_key = self.private.public_key().public_bytes_raw()
        self.log_vkeys = {vkey.partition("+")[0]: vkey for vkey in log_vkeys}
        self.seen: dict[str, tuple[int, bytes]] = {}
        self.requests: list[bytes] = []
        self.now_s = now_s
        self.answer: Callable[[bytes], Answer] = self.add_checkpoint
        self.url = ""
        self._lock = threading.Lock()

    @property
    def vkey(self) -> str:
        return self.vkey_of_type(4)

    def vkey_of_type(self, algorithm: int) -> str:
        ident = cosignature_id(self.name, self.public_key, algorithm).hex()
        return f"{self.name}+{ident}+{base64.b64encode(bytes([algorithm]) + self.public_key).decode()}"

    def cosign(self, text: str, now_s: int | None = None) -> bytes:
        """The signature line over a checkpoint's text."""
        now_s = self.now_s if now_s is None else now_s
        signature = self.private.sign(f"cosignature/v1\ntime {now_s}\n{text}".encode())
        ident = cosignature_id(self.name, self.public_key)
        encoded = base64.b64encode(ident + now_s.to_bytes(8, "big") + signature).decode()
        return f"\u2014 {self.name} {encoded}\n".encode()

    def add_checkpoint(self, body: bytes) -> Answer:
        head, separator, note = body.partition(b"\n\n")
        old_line, *hash_lines = head.decode().split("\n")
        word, _, old_text = old_line.partition(" ")
        if not separator or word != "old" or str(int(old_text)) != old_text or len(hash_lines) > 63:
            return 400, "text/plain", b"malformed\n"
        old_size = int(old_text)
        proof = [base64.b64decode(line, validate=True) for line in hash_lines]
        origin = note.decode().partition("\n")[0]
        if origin not in self.log_vkeys:
            return 404, "text/plain", b"unknown log\n"
        try:
            _, size, root = open_note(note, self.log_vkeys[origin])
        except (AssertionError, InvalidSignature):
            return 403, "text/plain", b"no trusted signature\n"
        if old_size > size:
            return 400, "text/plain", b"the old size is larger\n"
        with self._lock:
            return self._judge((origin, note), (old_size, proof), (size, root))

    def _judge(
        self, signed: tuple[str, bytes], old: tuple[int, list[bytes]], new: tuple[int, bytes]
    ) -> Answer:
        origin, note = signed
        old_size, proof = old
        size, root = new
        seen_size, seen_root = self.seen.get(origin, (0, hashlib.sha256(b"").digest()))
        if old_size != seen_size or (size == seen_size and root != seen_root):
            return 409, "text/x.tlog.size", b"%d\n" % seen_size
        if not _is_consistent(proof, (old_size, seen_root), new):
            return 422, "text/plain", b"the proof does not hold\n"
        self.seen[origin] = new
        text = note.decode().rpartition("\n\n")[0] + "\n"
        return 200, "text/plain", self.cosign(text)


def _is_consistent(proof: list[bytes], old: tuple[int, bytes], new: tuple[int, bytes]) -> bool:
    if old[0] == 0:
        return not proof
    try:
        return recomputed_roots(proof, old[0], new[0], old[1]) == (old[1], new[1])
    except (IndexError, ValueError):
        return False


@contextmanager
def serving(witness: Witness) -> Iterator[Witness]:
    """The witness at ``witness.url`` until the block ends."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            witness.requests.append(body)
            status, kind, data = (
                witness.answer(body) if self.path == "/w1/add-checkpoint" else (405, "text/plain", b"")
            )
            self.send_response(status)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    witness.url = f"http://127.0.0.1:{server.server_port}/w1"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield witness
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
