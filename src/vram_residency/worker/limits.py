"""How much anybody may ask for, and how fast (worker.md, "Limits"). Pure: time is an argument."""

from __future__ import annotations

from collections import OrderedDict
from typing import Final

import msgspec

#: Peers that are remembered; with more, the one that was silent longest begins anew.
_PEERS_MAX: Final = 4096


class Rate(msgspec.Struct, frozen=True):
    """At most ``burst`` at once and ``per_s`` in the long run."""

    per_s: int
    burst: int


class Limits(msgspec.Struct, frozen=True, kw_only=True):
    """The numbers.

    body_bytes_max: of a model sent as a body; json_bytes_max: of any other body.
    header_bytes_max: of request line and headers together. connections_max, requests_max: at one time.
    requests: for each known caller; failures: for each address whose credentials are wrong.
    header_timeout_s: from a request's first byte to the end of its headers. body_timeout_s: a body that
    brings less than ``body_bytes_min`` in this time has stopped. keep_alive_s: between two requests.
    """

    body_bytes_max: int = 100 << 30
    json_bytes_max: int = 1 << 20
    header_bytes_max: int = 16 << 10
    header_count_max: int = 100
    connections_max: int = 512
    requests_max: int = 256
    requests: Rate = Rate(2000, 2000)
    failures: Rate = Rate(20, 20)
    header_timeout_s: float = 10.0
    body_timeout_s: float = 20.0
    body_bytes_min: int = 4096
    keep_alive_s: float = 30.0


class Buckets:
    """One bucket of permissions for each peer, which fills with time. Not thread-safe."""

    def __init__(self, rate: Rate) -> None:
        self.rate = rate
        self._levels: OrderedDict[str, tuple[float, float]] = OrderedDict()  # peer: (level, seen at)

    def take(self, peer: str, now_s: float) -> bool:
        """Whether ``peer`` may go on; takes one permission if so. ``now_s`` never steps back."""
        level, seen_s = self._levels.pop(peer, (float(self.rate.burst), now_s))
        level = min(self.rate.burst, level + (now_s - seen_s) * self.rate.per_s)
        may = level >= 1
        self._levels[peer] = (level - may, now_s)
        if len(self._levels) > _PEERS_MAX:
            self._levels.popitem(last=False)
        return may
