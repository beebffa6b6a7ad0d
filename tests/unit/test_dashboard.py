"""What the page says: a verdict, a forecast, what is not guaranteed, and what it remembers of the log."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vram_residency.core.clock import rfc3339
from vram_residency.dashboard.forecast import Point, forecast
from vram_residency.dashboard.guarantees import Host, caveats
from vram_residency.dashboard.recollection import Damage, Recollection
from vram_residency.dashboard.verdict import Seen, judge
from vram_residency.worker.host_check import HostFinding
from vram_residency.worker.states import State
from vram_residency.worker.wire import Handle

HOUR_S = 3600.0
NOW_NS = 1_800_000_000 * 10**9
NOON = "2026-11-22T12:03:00.000000Z"


def handle(name: str = "s1", *, state: str = "sealed", age_s: float = 60) -> Handle:
    return Handle(
        handle_id=name,
        digest="blake3:" + "0" * 64,
        vram_bytes=1000,
        gpu_device=0,
        sealed_at=NOON,
        worker_id="w",
        state=state,
        format="raw",
        tensors=1,
        model_ref=None,
        shard_index=None,
        total_shards=None,
        last_full_verification=rfc3339(NOW_NS - int(age_s * 10**9)),
    )


def damage(name: str = "s1", *tensors: str, at: str = NOON) -> Damage:
    return Damage(shard_id=name, timestamp=at, reason="digest_mismatch", tensors=tensors or None)


def seen(*handles: Handle, **known: Any) -> Seen:
    defaults = {
        "state": State.READY,
        "stopped_by": None,
        "damages": {},
        "lost_events": 0,
        "last_failure": None,
        "now_ns": NOW_NS,
    }
    return Seen(handles=handles, **(defaults | known))


STOPPED = {"state": State.STOPPED, "stopped_by": "shard 's1' failed verification"}
VERDICTS = {
    "one": (seen(handle()), "ok", "The only shard is verified"),
    "three": (seen(handle("a"), handle("b"), handle("c")), "ok", "All 3 shards are verified"),
    "none": (seen(), "attention", "Ready, but empty: no shard is held, so there is nothing to vouch for"),
    "loading": (
        seen(state=State.LOADING),
        "attention",
        "No shard is held yet (the worker is loading): nothing can be executed",
    ),
    "draining": (
        seen(handle(), state=State.DRAINING),
        "attention",
        "Draining: what runs may finish, nothing new is taken, and then all shards are freed",
    ),
    "old": (seen(handle(age_s=25 * HOUR_S)), "attention", "The only shard is verified"),
    "gaps": (
        seen(handle(), lost_events=4),
        "attention",
        "The only shard is verified, but the audit log has lost 4 events",
    ),
    "unwritable": (
        seen(handle(), last_failure="no space", lost_events=4),
        "attention",
        "The only shard is verified, but the audit log cannot be written: no space",
    ),
    "damaged": (
        seen(handle(state="quarantined"), handle("b"), damages={"s1": damage("s1", "t")}, **STOPPED),
        "stopped",
        "STOPPED: shard s1 is damaged in tensor t, found at 12:03:00 UTC",
    ),
    "damaged widely": (
        seen(handle(state="quarantined"), damages={"s1": damage("s1", "t", "u", "v")}, **STOPPED),
        "stopped",
        "STOPPED: shard s1 is damaged in tensor t and 2 more, found at 12:03:00 UTC",
    ),
    "damaged twice": (
        seen(
            handle(state="quarantined"),
            handle("b", state="quarantined"),
            damages={"s1": damage("s1", "t"), "b": damage("b", "t", at="2026-11-22T11:00:00.000000Z")},
            **STOPPED,
        ),
        "stopped",
        "STOPPED: shard b is damaged in tensor t, found at 11:00:00 UTC, and 1 more is",
    ),
    "nameless damage": (
        seen(handle(state="quarantined"), damages={"s1": damage("s1")}, **STOPPED),
        "stopped",
        "STOPPED: shard s1 is damaged (digest mismatch), found at 12:03:00 UTC",
    ),
    "damage unknown to the log": (
        seen(handle(state="quarantined"), **STOPPED),
        "stopped",
        "STOPPED: shard s1 is quarantined",
    ),
    "lost device": (
        seen(handle(), state=State.STOPPED, stopped_by="the device is lost"),
        "stopped",
        "STOPPED: the device is lost",
    ),
    "quarantined and running": (
        seen(handle(state="quarantined"), handle("b")),
        "stopped",
        "Shard s1 is quarantined",
    ),
    "ended": (seen(state=State.STOPPED), "stopped", "STOPPED: the worker has ended"),
}


@pytest.mark.parametrize("name", VERDICTS, ids=str)
def test_the_verdict_is_one_sentence_and_the_gravest_thing_decides(name: str) -> None:
    """Each state of the worker has its sentence; what is amiss says what to do next."""
    known, grade, says = VERDICTS[name]
    found = judge(known)
    assert (found.grade, found.says) == (grade, says)
    assert found.next is not None or grade == "ok" or name == "draining"


def test_the_verdicts_age_is_that_of_the_oldest_sound_shard() -> None:
    """A damaged shard vouches for nothing, and its age is not told."""
    young, old = handle("young", age_s=10), handle("old", age_s=1000)
    assert judge(seen(young, old)).oldest_full_verification == old.last_full_verification
    assert judge(seen()).oldest_full_verification is None
    damaged = handle("damaged", state="quarantined", age_s=9000)
    assert judge(seen(young, damaged)).oldest_full_verification is None


def test_too_little_makes_no_forecast() -> None:
    """Three changes, or two minutes, are no trend."""
    few = forecast([Point(0, 0), Point(1000, 10)], now_s=5000, usable_bytes=100)
    brief = forecast([Point(at, at) for at in range(50)], now_s=60, usable_bytes=100)
    assert (few.kind, few.changes) == ("too_few", 1)
    assert (brief.kind, brief.changes) == ("too_few", 49)
    assert forecast([], now_s=0, usable_bytes=1).kind == "too_few"


def test_even_growth_is_forecast_to_the_minute() -> None:
    """10 bytes an hour with 50 left: five hours."""
    points = [Point(number * HOUR_S / 10, number) for number in range(51)]
    found = forecast(points, now_s=5 * HOUR_S, usable_bytes=100)
    assert found.kind == "full"
    assert found.full_s == pytest.approx(10 * HOUR_S, rel=0.03)
    assert found.earliest_s is not None
    assert found.latest_s is not None
    assert found.earliest_s <= found.full_s <= found.latest_s


def test_one_large_load_among_quiet_hours_is_no_trend() -> None:
    """The median slope does not see it."""
    points = [Point(0, 0), *(Point(1000 + number, number * 10) for number in range(1, 6))]
    assert forecast(points, now_s=20 * HOUR_S, usable_bytes=100).kind == "steady"


def test_falling_use_is_said_to_fall() -> None:
    points = [Point(number * 600, 1000 - number * 10) for number in range(20)]
    assert forecast(points, now_s=20 * 600, usable_bytes=2000).kind == "falling"


def test_a_full_device_needs_no_forecast() -> None:
    assert forecast([Point(0, 100)], now_s=1, usable_bytes=100).kind == "is_full"


def test_a_forecast_of_months_is_none() -> None:
    """One byte an hour of a terabyte is not called a trend."""
    points = [Point(number * HOUR_S, number) for number in range(10)]
    assert forecast(points, now_s=10 * HOUR_S, usable_bytes=10**12).kind == "steady"


@given(
    steps=st.lists(st.tuples(st.floats(0, 5 * HOUR_S), st.integers(0, 100)), max_size=40),
    rest_s=st.floats(0, HOUR_S),
)
def test_a_forecast_lies_in_the_future_and_in_order(steps: list[tuple[float, int]], rest_s: float) -> None:
    """Whatever the staircase: earliest <= full <= latest, and none of them is past."""
    points, at_s = [], 0.0
    for step_s, used_bytes in steps:
        at_s += step_s
        points.append(Point(at_s, used_bytes))
    now_s = at_s + rest_s
    found = forecast(points, now_s=now_s, usable_bytes=101)
    if found.kind == "full":
        assert found.full_s is not None
        assert found.earliest_s is not None
        assert now_s <= found.earliest_s <= found.full_s <= (found.latest_s or found.full_s)
    else:
        assert (found.full_s, found.earliest_s, found.latest_s) == (None, None, None)


def line(event_type: str, **fields: Any) -> bytes:
    head = {"index": 1, "timestamp": NOON, "event_type": event_type, "service_id": "s", "audit_id": "0-1"}
    return msgspec.json.encode({**head, **fields, "mac": "0" * 64})


def test_the_evidence_is_remembered_as_far_as_the_page_shows_it() -> None:
    """Used bytes from allocations and frees, damage by shard; everything else is passed over."""
    memory = Recollection(Point(0, 0))
    memory.take(
        [
            line("vram_allocated", used_bytes=70),
            line("seal_verified", shard_id="s1"),
            line("seal_verification_failed", shard_id="s1", reason="digest_mismatch", tensors=["t"]),
            line("vram_deallocated", remaining_used=20),
        ]
    )
    assert [point.used_bytes for point in memory.points()] == [0, 70, 20]
    assert memory.damage_among({"s1"}) == {"s1": damage("s1", "t")}
    assert memory.damage_among({"s2"}) == {}


def test_what_is_remembered_is_bounded() -> None:
    """However long the worker runs, and however many shards are damaged."""
    memory = Recollection(Point(0, 0))
    memory.take([line("vram_allocated", used_bytes=number) for number in range(3000)])
    names = [f"s{number}" for number in range(3000)]
    memory.take([line("seal_verification_failed", shard_id=name, reason="r") for name in names])
    assert len(memory.points()) == 1024
    assert memory.points()[-1].used_bytes == 2999
    assert list(memory.damage_among(set(names))) == names[-1024:]


def test_words_of_an_event_in_another_event_are_no_event() -> None:
    """A model that is called like an entry's beginning is remembered as nothing."""
    memory = Recollection(Point(0, 0))
    memory.take([line("vram_sealed", model_ref='"event_type":"vram_allocated","used_bytes":7')])
    assert len(memory.points()) == 1


def record(**facts: Any) -> dict[str, Any]:
    return {
        "policy": {"violations": facts.pop("violations", ())},
        "device": {"fault_injection": facts.pop("fault_injection", None)},
        "facts": facts,
    }


def host(*residencies: dict[str, Any], **known: Any) -> Host:
    defaults = {"device_kind": "cuda", "has_log": True, "findings": (), "has_genesis_key": False}
    return Host(residencies=residencies, **(defaults | known))


CAVEATS = {
    "host memory": (host(device_kind="host"), "not in VRAM"),
    "test device": (host(record(fault_injection=True)), "test device"),
    "weaker backing": (host(record(weaker=True)), "does not make these shards immutable"),
    "unlocked": (host(record(locked=False), record(locked=True)), "One shard is not locked"),
    "unlocked ones": (host(record(locked=False), record(locked=False)), "2 shards are not locked"),
    "broken policy": (host(record(violations=("not_locked", "host_memory"))), "told to go on: not_locked."),
    "no log": (host(has_log=False), "Nothing is recorded"),
    "K_0": (host(has_genesis_key=True), "K_0 lies beside the log"),
    "doctor": (host(findings=(HostFinding("swap", "Swap is on.", "swapoff -a"),)), "Swap is on."),
}


@pytest.mark.parametrize("name", CAVEATS, ids=str)
def test_what_is_not_guaranteed_is_said(name: str) -> None:
    """Each fact that weakens a promise has its words; without it they are not said."""
    known, words = CAVEATS[name]
    assert any(words in caveat.says for caveat in caveats(known))
    assert not any(words in caveat.says for caveat in caveats(host()))


def test_no_host_is_without_caveats() -> None:
    """An outside checkpoint, the moment of reading, and who tells all this."""
    said = " ".join(caveat.says for caveat in caveats(host(record(locked=True))))
    assert "can be removed by whoever owns this machine" in said
    assert "speaks of the moment" in said
    assert "Evidence is the audit log alone" in said


def test_what_doctor_alone_tells_is_not_on_the_page() -> None:
    """Where the socket lies is no guarantee that is lost."""
    finding = HostFinding("runtime_directory", "XDG_RUNTIME_DIR is not set.", "set it")
    assert caveats(host(findings=(finding,))) == caveats(host())
