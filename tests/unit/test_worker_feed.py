"""The feed of events: bounded whatever happens, and honest about what it lost."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vram_residency.audit.events import WorkerStateChanged
from vram_residency.narration import narrate
from vram_residency.testing import MemoryLog
from vram_residency.worker import feed as feeds
from vram_residency.worker.event_routes import _content, _place_of
from vram_residency.worker.event_stream import EventReader
from vram_residency.worker.feed import Feed, Follower, Place, Ring
from vram_residency.worker.problem import Refused


@pytest.fixture
def log() -> MemoryLog:
    return MemoryLog()


@pytest.fixture
def feed(log: MemoryLog) -> Iterator[Feed]:
    made = Feed(log)
    yield made
    made.close()


def tell(text: str) -> None:
    narrate(action="worker_state", target="w", human=text)


def record(log: MemoryLog, reason: str) -> None:
    log.emit(WorkerStateChanged(worker_id="w", from_state="a", to_state="b", reason=reason))
    log.flush()


def said(follower: Follower) -> list[str]:
    story, _ = follower.take()
    return [json.loads(event)["human"] for event in story.events]


def recorded(follower: Follower) -> list[str] | None:
    _, evidence = follower.take()
    if evidence is None:
        return None
    return [json.loads(line)["reason"] for line in evidence.events if b"worker_state_changed" in line]


@given(
    sizes=st.lists(st.integers(0, 40), max_size=60),
    events_max=st.integers(1, 10),
    bytes_max=st.integers(40, 100),
    number=st.integers(0, 100),
)
def test_a_ring_holds_the_newest_and_counts_the_rest(
    sizes: list[int], events_max: int, bytes_max: int, number: int
) -> None:
    """Whatever comes, in whatever sizes: bounds hold, and lost + held is what came since."""
    ring = Ring(events_max, bytes_max)
    events = [bytes([index]) * size for index, size in enumerate(sizes)]
    for event in events:
        ring.add(event)
    news = ring.since(number)
    held = list(news.events)
    assert len(held) <= events_max
    assert sum(map(len, held)) <= bytes_max
    assert held == events[len(events) - len(held) :]
    assert news.lost + len(held) == max(len(events) - number, 0)
    assert news.first + len(held) == len(events)


def test_a_follower_gets_what_happens_from_then_on(feed: Feed, log: MemoryLog) -> None:
    """In order, each once."""

    async def follow() -> None:
        follower = feed.follow(sees_evidence=True, recent=0)
        tell("one")
        tell("two")
        record(log, "three")
        assert said(follower) == ["one", "two"]
        record(log, "four")
        assert recorded(follower) == ["four"]
        assert said(follower) == []

    asyncio.run(follow())


def test_the_recent_past_comes_first(feed: Feed) -> None:
    """Whoever opens the page in an incident sees how it began."""
    for number in range(5):
        tell(f"before {number}")

    async def follow() -> list[str]:
        return said(feed.follow(sees_evidence=True, recent=2))

    assert asyncio.run(follow()) == ["before 3", "before 4"]


def test_who_falls_behind_is_told_how_much_was_lost(
    feed: Feed, log: MemoryLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A flood of one kind takes nothing of the other."""
    monkeypatch.setattr(feed, "_story", Ring(3))

    async def follow() -> None:
        follower = feed.follow(sees_evidence=True, recent=0)
        record(log, "kept")
        for number in range(10):
            tell(f"flood {number}")
        story, evidence = follower.take()
        assert (story.lost, len(story.events)) == (7, 3)
        assert evidence is not None
        assert evidence.lost == 0
        assert len(evidence.events) >= 1

    asyncio.run(follow())


def test_evidence_is_for_those_who_may_see_it(feed: Feed, log: MemoryLog) -> None:
    """The others do not even learn how much there is."""

    async def follow() -> None:
        record(log, "before")
        follower = feed.follow(sees_evidence=False, recent=100)
        record(log, "secret")
        assert recorded(follower) is None
        assert follower.place.evidence == 0

    asyncio.run(follow())


def test_followers_are_bounded_and_leave(feed: Feed, monkeypatch: pytest.MonkeyPatch) -> None:
    """One more than the bound is told to come again."""
    monkeypatch.setattr(feeds, "FOLLOWERS_MAX", 2)

    async def follow() -> None:
        first, _second = (feed.follow(sees_evidence=True) for _ in range(2))
        with pytest.raises(Refused, match="2 follow"):
            feed.follow(sees_evidence=True)
        first.close()
        first.close()
        feed.follow(sees_evidence=True)

    asyncio.run(follow())


def test_an_event_of_another_thread_wakes_who_waits(feed: Feed) -> None:
    """And silence ends the wait at its time."""

    async def follow() -> None:
        follower = feed.follow(sees_evidence=True, recent=0)
        assert not await follower.wait(0.01)
        thread = threading.Thread(target=tell, args=("hello",))
        thread.start()
        assert await follower.wait(30)
        thread.join()
        assert said(follower) == ["hello"]
        assert not await follower.wait(0.01)

    asyncio.run(follow())


def test_a_follower_whose_loop_has_ended_hurts_nobody(feed: Feed) -> None:
    """Its stream was cut off; the narrator does not notice."""

    async def follow() -> Follower:
        return feed.follow(sees_evidence=True)

    follower = asyncio.run(follow())
    tell("after the end")
    follower.close()


def streamed(feed: Feed, log: MemoryLog, last_id: str, *, heartbeat_s: float = 30.0) -> list[tuple[str, str]]:
    """Names and ids of the events of a whole stream, which the feed's end ends."""

    async def read() -> bytes:
        follower = feed.follow(sees_evidence=True, after=_place_of(last_id, feed))
        feed.close()
        return b"".join([block async for block in _content(follower, feed, heartbeat_s)])

    text = asyncio.run(read()).decode()
    blocks = [
        dict(line.split(": ", 1) for line in block.splitlines()) for block in text.split("\n\n") if block
    ]
    return [(block["event"], block["id"]) for block in blocks if "event" in block]


def test_a_stream_is_resumed_behind_its_last_event(feed: Feed, log: MemoryLog) -> None:
    """From any id of the first stream on, the second has exactly the rest."""
    for number in range(3):
        tell(f"story {number}")
        record(log, f"evidence {number}")
    whole = streamed(feed, log, "")
    assert {name for name, _ in whole} == {"story", "evidence"}
    for number, (_, event_id) in enumerate(whole):
        assert streamed_again(log, feed, event_id) == whole[number + 1 :]


def streamed_again(log: MemoryLog, feed: Feed, last_id: str) -> list[tuple[str, str]]:
    """As streamed(), on a feed that was opened again for the purpose."""
    feed._is_closed = False
    return streamed(feed, log, last_id)


@pytest.mark.parametrize(
    "last_id", ["00000000.1.1", "nonsense", "", "x" * 10_000, "1.1", "-1.-1.-1"], ids=lambda text: text[:12]
)
def test_an_id_of_another_run_begins_anew(feed: Feed, last_id: str) -> None:
    """Numbers of another process mean nothing here."""
    assert _place_of(last_id, feed) is None


def test_an_id_from_the_future_gets_nothing_twice_and_loses_nothing_later(feed: Feed, log: MemoryLog) -> None:
    """A forged number reaches no further than the end."""

    async def follow() -> list[str]:
        follower = feed.follow(sees_evidence=True, after=_place_of(f"{feed.run}.999999.999999", feed))
        follower.take()
        tell("later")
        return said(follower)

    tell("before")
    assert asyncio.run(follow()) == ["later"]
    assert Place() == Place(0, 0)


def test_silence_is_filled_with_heartbeats(feed: Feed) -> None:
    """So that proxies and readers know that the stream lives."""

    async def read() -> list[bytes]:
        follower = feed.follow(sees_evidence=True, recent=0)
        content = _content(follower, feed, 0.01)
        blocks = [await anext(content) for _ in range(3)]
        await content.aclose()
        return blocks

    assert asyncio.run(read()) == [b"retry: 2000\n\n", b": alive\n\n", b": alive\n\n"]


def test_what_is_lost_is_an_event_of_its_own(
    feed: Feed, log: MemoryLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With its count, before what was kept."""
    monkeypatch.setattr(feed, "_story", Ring(2))
    for number in range(5):
        tell(f"flood {number}")

    async def read() -> list[tuple[str, object]]:
        follower = feed.follow(sees_evidence=False, after=Place(1, 0))
        feed.close()
        reader = EventReader()
        found = []
        async for block in _content(follower, feed, 30):
            found += [(event.name, json.loads(event.data)) for event in reader.feed(block)]
        return found

    first, *rest = asyncio.run(read())
    assert first == ("lost", {"feed": "story", "count": 2})
    assert [name for name, _ in rest] == ["story", "story"]
