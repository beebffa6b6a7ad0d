"""What happens, as it happens: narration and audit entries, for whoever follows the worker (worker.md).

Nobody can make it grow: a ring for the story and one for the evidence, and whoever follows holds no more
than a place in each. Who falls behind a ring's end is told how many events it lost.
"""

from __future__ import annotations

import asyncio
import secrets
import threading
from collections import deque
from collections.abc import Sequence
from contextlib import suppress
from itertools import islice
from typing import Final

import msgspec

from vram_residency.audit.log import AuditLogger
from vram_residency.narration import NarrationEvent
from vram_residency.narration.listeners import listen
from vram_residency.worker import problem
from vram_residency.worker.problem import Refused

EVENTS_MAX: Final = 1000
BYTES_MAX: Final = 4 << 20
FOLLOWERS_MAX: Final = 64


class Place(msgspec.Struct, frozen=True):
    """How far somebody has read: the number of the next event of either ring."""

    story: int = 0
    evidence: int = 0


class News(msgspec.Struct, frozen=True):
    """What one ring holds from a place on: how many events were lost before it, and JSON documents."""

    lost: int
    first: int
    events: tuple[bytes, ...]


class Ring:
    """The newest events, at most ``events_max`` and ``bytes_max``; numbered from 0 on. Not thread-safe."""

    def __init__(self, events_max: int = EVENTS_MAX, bytes_max: int = BYTES_MAX) -> None:
        self._events_max = events_max
        self._bytes_max = bytes_max
        self._events: deque[bytes] = deque()
        self._held_bytes = 0
        self.end = 0

    @property
    def start(self) -> int:
        """The number of the oldest event that is held."""
        return self.end - len(self._events)

    def add(self, event: bytes) -> None:
        """Take one more; the oldest go."""
        self._events.append(event)
        self._held_bytes += len(event)
        self.end += 1
        while len(self._events) > self._events_max or self._held_bytes > self._bytes_max:
            self._held_bytes -= len(self._events.popleft())

    def since(self, number: int) -> News:
        """What is held from event ``number`` on."""
        first = min(max(number, self.start), self.end)
        return News(max(first - number, 0), first, tuple(islice(self._events, first - self.start, None)))


class Feed:
    """Both rings of one worker. Thread-safe; make it before the first event that is to be in it.

    Only events of level info and above are in the story, and only durable entries in the evidence.
    """

    def __init__(self, audit_logger: AuditLogger) -> None:
        #: Distinguishes the numbers of this feed from those of another run of the worker.
        self.run: Final = secrets.token_hex(4)
        self._lock = threading.Lock()  # guards all below; held for a few operations on memory alone
        self._story = Ring()
        self._evidence = Ring()
        self._followers: set[Follower] = set()
        self._is_closed = False
        self._stop_listening = listen(self._hear)
        audit_logger.on_written(self._take)

    def follow(self, *, sees_evidence: bool, after: Place | None = None, recent: int = 100) -> Follower:
        """Begin to follow: from ``after`` on, or with the ``recent`` newest of either ring. In an event loop.

        Raises Refused where too many follow already, or the feed is closed.
        """
        with self._lock:
            if self._is_closed or len(self._followers) >= FOLLOWERS_MAX:
                raise Refused(problem.BUSY, f"{len(self._followers)} follow the events already")
            newest = Place(*(max(ring.start, ring.end - recent) for ring in (self._story, self._evidence)))
            follower = Follower(self, after or newest, sees_evidence=sees_evidence)
            self._followers.add(follower)
        return follower

    def read(self, place: Place, *, sees_evidence: bool) -> tuple[News, News | None]:
        """Story and evidence from ``place`` on; None for evidence that may not be seen."""
        with self._lock:
            evidence = self._evidence.since(place.evidence) if sees_evidence else None
            return self._story.since(place.story), evidence

    @property
    def is_closed(self) -> bool:
        """Whether nothing will come any more."""
        return self._is_closed

    def leave(self, follower: Follower) -> None:
        """Forget a follower; one that has left may leave again."""
        with self._lock:
            self._followers.discard(follower)

    def close(self) -> None:
        """End every stream, once it has given what is there. May be called again."""
        self._stop_listening()
        with self._lock:
            self._is_closed = True
            self._wake()

    def _hear(self, event: NarrationEvent) -> None:
        data = msgspec.json.encode(event.as_dict())
        with self._lock:
            self._story.add(data)
            self._wake()

    def _take(self, lines: Sequence[bytes], _duration_s: float) -> None:
        with self._lock:
            for line in lines:
                self._evidence.add(line)
            self._wake()

    def _wake(self) -> None:
        for follower in self._followers:
            follower.wake()


class Follower:
    """One reader of a feed, in one event loop."""

    def __init__(self, feed: Feed, place: Place, *, sees_evidence: bool) -> None:
        self._feed = feed
        self._sees_evidence = sees_evidence
        self._loop = asyncio.get_running_loop()
        self._has_news = asyncio.Event()
        self._is_woken = False
        # How much evidence there is concerns nobody who may not see it.
        self.place = place if sees_evidence else Place(place.story)

    def take(self) -> tuple[News, News | None]:
        """All that is there and was not taken yet."""
        self._has_news.clear()
        self._is_woken = False  # before reading: what comes in between wakes again
        story, evidence = self._feed.read(self.place, sees_evidence=self._sees_evidence)
        seen = 0 if evidence is None else evidence.first + len(evidence.events)
        self.place = Place(story.first + len(story.events), seen)
        return story, evidence

    async def wait(self, timeout_s: float) -> bool:
        """Whether there may be news within ``timeout_s``."""
        with suppress(TimeoutError):
            await asyncio.wait_for(self._has_news.wait(), timeout_s)
        return self._has_news.is_set()

    def wake(self) -> None:
        """Tell the event loop that there is news, once until it is taken; from any thread."""
        if not self._is_woken:
            self._is_woken = True
            with suppress(RuntimeError):  # the loop has ended
                self._loop.call_soon_threadsafe(self._has_news.set)

    def close(self) -> None:
        """Follow no more."""
        self._feed.leave(self)
