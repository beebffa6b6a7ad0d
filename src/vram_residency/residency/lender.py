"""Shards lent to other processes: verified first, audited, counted as in use, revoked by epoch (gpu.md)."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

from msgspec import Struct

from vram_residency.formats import Format
from vram_residency.residency.attester import Attester
from vram_residency.residency.recorder import Recorder
from vram_residency.residency.registry import Record, Registry
from vram_residency.residency.scope import FULL


class Peer(Struct, frozen=True):
    """Who asks, as the kernel says: identity at the time of connecting; ``uid`` alone decides."""

    pid: int
    uid: int


class Loan(Struct, frozen=True, eq=False):
    """What a borrower needs to map and check a shard. ``descriptor`` is the lender's to close.

    ``epoch`` counts the revocations of this shard before the loan.
    """

    descriptor: int
    envelope: dict[str, Any]
    format: Format
    epoch: int


class Lender:
    """Knows every loan that is out. A shard on loan cannot be freed: revoke first."""

    def __init__(self, *, registry: Registry, attester: Attester, recorder: Recorder) -> None:
        self._registry = registry
        self._attester = attester
        self._recorder = recorder
        self._lock = threading.Lock()  # guards the two below
        self._epochs: dict[str, int] = {}
        self._borrowers: dict[str, list[Callable[[int], object]]] = {}

    @contextmanager
    def lend(
        self, record: Record, *, nonce: str, peer: Peer, on_revoked: Callable[[int], object]
    ) -> Iterator[Loan]:
        """Verify, record the grant, hand out; the loan lasts as long as the block.

        ``on_revoked`` is called once, with the new epoch, if the loan is revoked; the block must end then.
        """
        shard_id = record.shard.shard_id
        with self._registry.using(record):
            envelope = self._attester.attest(record, nonce=nonce, scope=FULL)
            descriptor = record.content.descriptor()
            try:
                epoch = self._note(shard_id, on_revoked)
                self._recorder.shared(shard_id, peer_pid=peer.pid, peer_uid=peer.uid)
                yield Loan(descriptor, envelope, record.layout.format, epoch)
            finally:
                self._forget(shard_id, on_revoked)
                os.close(descriptor)

    def revoke(self, shard_id: str) -> int:
        """End every loan of a shard; how many there were. What was mapped stays until it is let go."""
        with self._lock:
            epoch = self._epochs[shard_id] = self._epochs.get(shard_id, 0) + 1
            told = self._borrowers.pop(shard_id, [])
        self._recorder.share_revoked(shard_id, epoch)
        for tell in told:
            with suppress(Exception):  # a borrower that is gone need not be told
                tell(epoch)
        return len(told)

    def _note(self, shard_id: str, on_revoked: Callable[[int], object]) -> int:
        with self._lock:
            self._borrowers.setdefault(shard_id, []).append(on_revoked)
            return self._epochs.get(shard_id, 0)

    def _forget(self, shard_id: str, on_revoked: Callable[[int], object]) -> None:
        with self._lock:
            left = [each for each in self._borrowers.pop(shard_id, []) if each is not on_revoked]
            if left:
                self._borrowers[shard_id] = left
