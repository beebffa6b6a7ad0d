"""GET /v1/events: narration and audit entries as server-sent events, for as long as somebody reads them.

Each event has an id; a reader that comes again with ``Last-Event-ID`` goes on behind it, as far as the feed
still holds what came then.
"""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Annotated, Any, Final

import msgspec
from litestar import Request, Router, get
from litestar.datastructures import State
from litestar.params import Parameter

from vram_residency.worker.caller import caller_of
from vram_residency.worker.feed import EVENTS_MAX, Feed, Follower, News, Place
from vram_residency.worker.streaming import MEDIA_TYPE, FlowStream

HEARTBEAT_S: Final = 15.0
_RETRY: Final = b"retry: 2000\n\n"
_HEARTBEAT: Final = b": alive\n\n"
_ID = re.compile(r"([0-9a-f]{8})\.(0|[1-9]\d{0,15})\.(0|[1-9]\d{0,15})\Z", re.ASCII)


def event_router(feed: Feed, *, heartbeat_s: float = HEARTBEAT_S) -> Router:
    """The route, over one feed."""

    @get("/events", needs="read", media_type=MEDIA_TYPE)
    async def events(
        request: Request[Any, Any, State],
        recent: Annotated[int, Parameter(ge=0, le=EVENTS_MAX)] = 100,
    ) -> FlowStream:
        """Give the ``recent`` newest events and all that follow: ``story``, ``evidence``, ``lost``."""
        caller = caller_of(request.scope)
        follower = feed.follow(
            sees_evidence=caller is None or "audit" in caller.scopes,
            after=_place_of(request.headers.get("last-event-id", ""), feed),
            recent=recent,
        )
        content = _content(follower, feed, heartbeat_s)
        return FlowStream(content, follower, media_type=MEDIA_TYPE)

    return Router("/v1", route_handlers=[events])


def _place_of(unverified_id: str, feed: Feed) -> Place | None:
    """Where a reader was; None where that was in another run, or nowhere."""
    match = _ID.match(unverified_id)
    if match is None or match[1] != feed.run:
        return None
    return Place(int(match[2]), int(match[3]))


async def _content(follower: Follower, feed: Feed, heartbeat_s: float) -> AsyncIterator[bytes]:
    yield _RETRY
    while True:
        is_last = feed.is_closed  # asked before taking: what came until then is given
        before = follower.place
        story, evidence = follower.take()
        block = b"".join(_blocks(feed.run, before, story, evidence))
        if block:
            yield block
        elif is_last:
            return
        elif not await follower.wait(heartbeat_s):
            yield _HEARTBEAT


def _blocks(run: str, before: Place, story: News, evidence: News | None) -> Iterator[bytes]:
    """All that was taken as events; each one's id is the place behind it."""
    yield from _events("story", story, lambda number: f"{run}.{number}.{before.evidence}")
    if evidence is not None:
        behind = story.first + len(story.events)
        yield from _events("evidence", evidence, lambda number: f"{run}.{behind}.{number}")


def _events(name: str, news: News, id_behind: Callable[[int], str]) -> Iterator[bytes]:
    if news.lost:
        lost = msgspec.json.encode({"feed": name, "count": news.lost})
        yield _event(id_behind(news.first), "lost", lost)
    for number, event in enumerate(news.events, news.first + 1):
        yield _event(id_behind(number), name, event)


def _event(event_id: str, name: str, data: bytes) -> bytes:
    """One event; JSON holds no line break, so that nothing in ``data`` can end it."""
    return f"id: {event_id}\nevent: {name}\ndata: ".encode() + data + b"\n\n"
