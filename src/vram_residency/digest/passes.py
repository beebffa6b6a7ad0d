"""Passes over memory: when a fast one counts, and when its key must go (spec: gpu.md, "The fast tag"). Pure.

A full pass makes a key and a tag for every shard whose digest was right in that very pass. Fast passes
compare with those tags. The first mismatch ends the key, and with it all fast passes that stand on it.
"""

from __future__ import annotations

import hmac
from collections.abc import Callable
from typing import Literal

from vram_residency.digest.tag import TagKey, wipe

#: What a fast pass says of a shard; without a tag it says nothing, and a full pass is due.
Verdict = Literal["match", "mismatch", "unknown"]


class FullPass:
    """One full pass over any number of shards: its key and its tags. Used under its owner's lock.

    Invariant: tags exist only while the key does. ``wipe_device`` overwrites the device's copy of the key;
    it is called once, when the pass ends, and must not raise.
    """

    def __init__(self, number: int, key: TagKey, wipe_device: Callable[[], None]) -> None:
        self.number = number
        self.key = key
        self._wipe_device = wipe_device
        self._tags: dict[str, tuple[int, bytes]] = {}

    @property
    def is_over(self) -> bool:
        """Whether its key is gone."""
        return self.key.is_wiped

    def admit(self, seal_id: str, *, size_bytes: int, sums: bytearray, is_digest_right: bool) -> bool:
        """Keep a shard's tag, if the digest of the same loaded words equals the seal. ``sums`` are wiped.

        Where it does not, the memory is not what was sealed, and the key ends as after any mismatch.
        """
        if self.is_over or not is_digest_right:
            wipe(sums)
            self.end()
            return False
        self._tags[seal_id] = (size_bytes, self._tag(seal_id, size_bytes, sums))
        return True

    def check(self, seal_id: str, *, size_bytes: int, sums: bytearray) -> Verdict:
        """Compare a fast pass with the full one; a mismatch ends the key. ``sums`` are wiped."""
        # 1. A shard without a tag of this pass was never wholly read under this key: nothing can be said.
        kept = self._tags.get(seal_id)
        if kept is None:
            wipe(sums)
            return "unknown"
        # 2. The tag is made anew with the same key over what was read now, and compared in constant time.
        kept_bytes, tag = kept
        is_same = kept_bytes == size_bytes and hmac.compare_digest(tag, self._tag(seal_id, size_bytes, sums))
        wipe(sums)
        if is_same:
            return "match"
        # 3. Who learns that a guess was wrong learns about the key (Handschuh and Preneel, CRYPTO 2008).
        self.end()
        return "mismatch"

    def forget(self, seal_id: str) -> None:
        """A shard is gone; with the last of them the key goes too."""
        self._tags.pop(seal_id, None)
        if not self._tags:
            self.end()

    def end(self) -> None:
        """Wipe the key here and on the device, and drop all tags. May be called again."""
        if not self.is_over:
            self.key.wipe()
            self._tags.clear()
            self._wipe_device()

    def _tag(self, seal_id: str, size_bytes: int, sums: bytearray) -> bytes:
        return self.key.tag(seal_id, pass_number=self.number, size_bytes=size_bytes, group_values=sums)
