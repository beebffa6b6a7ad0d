"""Which log key signs from which entry on (spec: audit-log.md section 3). Pure.

Every change is a key_rotated that the key before signed. So whoever trusts one key can follow to the later
ones; and what an earlier key signed stands while it was in force, once a later one signed the entries after.
"""

from __future__ import annotations

import hashlib
from typing import Final

import msgspec

from vram_residency.audit.events.own import KeyRotated
from vram_residency.audit.format import note
from vram_residency.audit.format.checkpoint import SignedCheckpoint
from vram_residency.audit.format.key_change import KeyChange
from vram_residency.audit.reading.verdict import Fault
from vram_residency.audit.store.directory import LogConfig

_LOG_JSON: Final = "log.json"
_CHECKPOINT: Final = "checkpoint"


class KeyChain:
    """The keys that the entries read so far brought, the first one being that of the first entry read."""

    def __init__(self, config: LogConfig, key_id: str | None = None) -> None:
        """``key_id`` (8 hex) names the key of the first entry there is; None: the first of log.json."""
        self._config: Final = config
        named = config.verifier_keys()
        ids = [key.id.hex() for key in named]
        #: How many keys came and went before the first entry that is there.
        self._passed: Final = ids.index(key_id) if key_id in ids else 0
        self.keys: list[note.VerifierKey] = [named[self._passed]]
        self._starts: list[int] = [0]
        self._opened_with = len(self.keys)
        self._seen_sha256: str | None = None

    @property
    def key_id(self) -> str:
        """The ID (8 hex) with which audit ids begin now."""
        return self.keys[-1].id.hex()

    def follow(self, index: int, event: KeyRotated) -> None:
        """Take over the change that entry ``index`` tells of. Raises ValueError where it is not signed."""
        change = KeyChange.parse(index, event.old_vkey, event.new_vkey)
        if change.old != self.keys[-1]:
            raise note.NoteVerificationError("the key that hands over is not the log's")
        change.verify(event.signature_by_old)
        self.keys.append(change.new)
        self._starts.append(index + 1)

    def note_opening(self, log_json_sha256: str) -> None:
        """A log_opened stands here: its hash (hex) of log.json is of the file with the keys so far."""
        self._opened_with, self._seen_sha256 = len(self.keys), log_json_sha256

    def in_force(self, size: int) -> note.VerifierKey:
        """The key that signs a checkpoint of ``size`` entries."""
        return [key for key, start in zip(self.keys, self._starts, strict=True) if start <= size][-1]

    def reaches(self, trusted: note.VerifierKey, key: note.VerifierKey) -> bool:
        """Whether ``key`` is the trusted one, or follows it."""
        return trusted in self.keys and self.keys.index(trusted) <= self.keys.index(key)

    def has_passed(self, trusted: note.VerifierKey) -> bool:
        """Whether the key was followed by another in an entry that is not there any more."""
        return str(trusted) in self._config.vkeys[: self._passed]

    def agrees(self, config: LogConfig, size: int) -> bool:
        """Whether log.json names the keys that came. The last of ``size`` entries may be ahead of it."""
        named, found = list(config.vkeys[self._passed :]), [str(key) for key in self.keys]
        is_last = self._starts[-1] == size and len(found) > 1
        return named == found or (is_last and named == found[:-1])

    def is_shorter(self, config: LogConfig) -> bool:
        """Whether log.json names keys beyond those that came: entries are missing at the end."""
        named, found = list(config.vkeys[self._passed :]), [str(key) for key in self.keys]
        return len(named) > len(found) and named[: len(found)] == found

    def was_seen(self, config: LogConfig, data: bytes) -> bool:
        """Whether log.json (``data``) is what the last log_opened saw, but for the keys that came since."""
        return self._seen_sha256 in {None, self._sha256_then(config, data)}

    def _sha256_then(self, config: LogConfig, data: bytes) -> str:
        named_then = self._passed + self._opened_with
        if len(config.vkeys) <= named_then:
            return hashlib.sha256(data).hexdigest()
        if data != config.encode():
            return ""
        before = msgspec.structs.replace(config, vkeys=config.vkeys[:named_then])
        return hashlib.sha256(before.encode()).hexdigest()


def possible_signers(config: LogConfig, trusted: note.VerifierKey | None) -> tuple[note.VerifierKey, ...]:
    """Every key that the log names; the trusted one alone where it is none of them."""
    keys = config.verifier_keys()
    return keys if trusted is None or trusted in keys else (trusted,)


def log_json_fault(keys: KeyChain, size: int, unverified_log_json: bytes) -> Fault | None:
    """What is wrong with log.json, after ``size`` entries."""
    config = LogConfig.parse(unverified_log_json)
    if not keys.was_seen(config, unverified_log_json):
        return Fault("tampered", "log.json is not the one that the last log_opened saw", file=_LOG_JSON)
    if keys.agrees(config, size):
        return None
    if keys.is_shorter(config):
        return Fault("truncated", "log.json names a log key that no entry brings: entries are missing")
    return Fault("tampered", "log.json does not name the keys that key_rotated brought", file=_LOG_JSON)


def signer_fault(keys: KeyChain, trusted: note.VerifierKey | None, newest: SignedCheckpoint) -> Fault | None:
    """What is wrong with the signature of the newest checkpoint: by the key in force, reached from trust."""
    key = keys.in_force(newest.size)
    if trusted is not None and keys.has_passed(trusted):
        reason = "the change from the trusted key to a later one was pruned: a newer vkey is needed"
        return Fault("unverifiable", reason, file=_CHECKPOINT)
    if not has_signed(key, newest):
        reason = "the checkpoint is not signed by the key that was the log's at its size"
        return Fault("tampered", reason, file=_CHECKPOINT)
    if trusted is not None and not keys.reaches(trusted, key):
        reason = "the checkpoint is signed neither by the trusted key nor by one that followed it"
        return Fault("tampered", reason, file=_CHECKPOINT)
    return None


def has_signed(key: note.VerifierKey, signed: SignedCheckpoint) -> bool:
    """Whether the key's signature, and a right one, stands under a checkpoint."""
    try:
        note.verify(signed.note_bytes, (key,))
    except note.NoteVerificationError:
        return False
    return True
