"""Fuzz the audit log's parsers: each refuses in its own words, or prints what it read.

``python fuzz/fuzz_audit.py --runs 100000 --seed 1``
Targets: entry lines, signed notes, checkpoints, keys and changes of key, answers of an ssh-agent, log.json,
the stored frontier, slots of mac.key.
"""

from __future__ import annotations

from collections.abc import Callable

import msgspec
from mutation import of_many, run

from vram_residency.audit.format import checkpoint, entry, key_change, note, ssh_agent, tree
from vram_residency.audit.store import signers
from vram_residency.audit.store.directory import LogConfig, LogConfigError, Parent
from vram_residency.audit.store.keyring import MacState
from vram_residency.core.ed25519 import SigningKey

ORIGIN = "s/" + "0" * 32
KEY = note.SignerKey(ORIGIN, SigningKey(bytes(range(32))))
SIGNED = checkpoint.sign(checkpoint.Checkpoint(ORIGIN, 0, tree.EMPTY_ROOT), KEY)
CONFIG = LogConfig(
    origin=ORIGIN,
    service_id="s",
    created_at="2025-10-02T10:00:00.000000Z",
    mac_genesis_id="0" * 16,
    vkeys=(str(KEY.verifier),),
)
BODY = entry.encode_body(
    index=41,
    timestamp="2025-10-02T10:00:00.000000Z",
    event_type="vram_sealed",
    service_id="s",
    audit_id="5f1c9a02-41",
    fields={"shard_id": "é\n", "tensors": ["a", "b"], "changes": {"a": {"old": None, "new": True}}},
    sanitized=("shard_id",),
)
AGENT_KEY = signers.AgentSigner(KEY.verifier)
CHANGE = key_change.KeyChange(7, KEY.verifier, note.SignerKey(ORIGIN, SigningKey(bytes(32))).verifier)
BLOB = ssh_agent.key_blob(KEY.verifier.public_key)
FORK = msgspec.structs.replace(CONFIG, parent=Parent(origin="t/" + "1" * 32, tree_size=9, root_hash="0" * 64))
STATE = MacState(epoch=1, key=bytes(32), tree_size=9, last_mac=bytes(32), host_id="h")


def _string(data: bytes) -> bytes:
    return len(data).to_bytes(4, "big") + data


AGENT_ANSWER = b"\x0e" + _string(_string(b"ssh-ed25519") + _string(bytes(range(64))))
PIECES = (
    b'"a":1,',
    b'"a":{',
    b"[",
    b"]}",
    b"1.5",
    b"-0",
    b"1e5",
    b"\\u0041",
    b"\\ud800",
    b"\xff",
    b"\n",
    b"\n\n",
)
PIECES += (b'"mac":"', b'"sanitized":["a"],', b"+", b"=", "\u2014 ".encode(), b"9223372036854775808", b"\x00")


def _entry(data: bytes) -> bool:
    read = entry.parse_entry(data)
    body, mac = entry.split_line(data)
    again = entry.encode_body(
        index=read.index,
        timestamp=read.timestamp,
        event_type=read.event_type,
        service_id=read.service_id,
        audit_id=read.audit_id,
        fields=read.fields,
        sanitized=read.sanitized,
    )
    return again == body and entry.join_line(body, mac) == data


def _note(data: bytes) -> bool:
    return note.verify(data, [KEY.verifier]) == SIGNED.checkpoint.encode()


def _checkpoint(data: bytes) -> bool:
    text = data.decode()
    return checkpoint.Checkpoint.parse(text).encode() == text


def _vkey(data: bytes) -> bool:
    text = data.decode()
    return str(note.VerifierKey.parse(text)) == text


def _skey(data: bytes) -> bool:
    text = data.decode()
    return note.SignerKey.parse(text).secret_text() == text


def _agent_key(data: bytes) -> bool:
    signer = signers.parse_signer(data.decode())
    return isinstance(signer, signers.AgentSigner) and str(signer) == data.decode()


def _change(data: bytes) -> bool:
    CHANGE.verify(data.decode())
    return data.decode() == CHANGE.sign(KEY)  # Ed25519 is deterministic, and refuses a second form


def _identities(data: bytes) -> bool:
    return all(len(key) == len(KEY.verifier.public_key) for key in ssh_agent.parse_identities(data))


def _agent_signature(data: bytes) -> bool:
    signature = ssh_agent.parse_signature(data)
    return data.endswith(signature) and len(data) == len(AGENT_ANSWER)


def _log_json(data: bytes) -> bool:
    config = LogConfig.parse(data)
    return LogConfig.parse(config.encode()) == config


def _frontier(data: bytes) -> bool:
    return tree.Frontier.parse(data).encode() == data


def _slot(data: bytes) -> bool:
    state = MacState.parse(data)
    if state is None:
        raise ValueError
    return state.encode() == data


#: A valid input, its parser (True: reading and printing agree), and the only error it may raise.
TARGETS: tuple[tuple[bytes, Callable[[bytes], bool], type[ValueError]], ...] = (
    (entry.join_line(BODY, bytes(32)), _entry, entry.EntryFormatError),
    (SIGNED.note_bytes, _note, ValueError),
    (SIGNED.checkpoint.encode().encode(), _checkpoint, ValueError),
    (str(KEY.verifier).encode(), _vkey, ValueError),
    (KEY.secret_text().encode(), _skey, ValueError),
    (str(AGENT_KEY).encode(), _agent_key, ValueError),
    (CHANGE.sign(KEY).encode(), _change, ValueError),
    (b"\x0c" + bytes([0, 0, 0, 1]) + _string(BLOB) + _string(b"a comment"), _identities, ValueError),
    (AGENT_ANSWER, _agent_signature, ssh_agent.AgentFormatError),
    (CONFIG.encode(), _log_json, LogConfigError),
    (FORK.encode(), _log_json, LogConfigError),
    (tree.Frontier().extend([bytes(32)] * 5).encode(), _frontier, tree.FrontierFormatError),
    (STATE.encode(), _slot, ValueError),
)


make, check = of_many(TARGETS, PIECES)


if __name__ == "__main__":
    run(make, check)
