"""The events are those of events.md: names, fields, order, types; wrong ones are refused whole."""

from __future__ import annotations

import json
import pickle
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.event_table import ACTOR, CRITICAL, EVENTS, OWN_EVENTS, SAMPLES, sample

from vram_residency.audit import events as e
from vram_residency.audit.events.line import LINE_BYTES_MAX, parse_event_line
from vram_residency.core.errors import InvalidEventError

ALL = {**EVENTS, **OWN_EVENTS}
WRONG: dict[str, list[Any]] = {
    "str": [1, None, b"x", ["x"]],
    "uint": [-1, 2**63, 1.0, "1", True],
    "risk": [101, -1],
    "bool": [0, 1, "true"],
    "time": [
        "yesterday",
        "2025-10-02",
        "2025-10-02T10:00:00",
        "2025-13-02T10:00:00Z",
        "2025-10-02T10:00:00Z\n",
        5,
    ],
    "strs": ["ab", [1], {"a": 1}, [["a"]]],
    "uints": [[-1], ["1"], [True], 1],
    "actor": [{}, {"user_id": "u"}, {**ACTOR, "more": 1}, {**ACTOR, "ip": 5}, "alice"],
    "resource": [{}, {"resource_type": "a"}, "pool"],
    "result": [
        {},
        {"status": "maybe"},
        {"status": "success", "reason": "x"},
        {"status": "failure"},
        "success",
    ],
    "changes": [
        {"a": 1},
        {"a": {"old": 1}},
        {"a": {"old": 1.5, "new": 2}},
        [],
        {"a": {"old": 1, "new": 2, "x": 3}},
    ],
}


def test_exactly_the_events_of_the_specification_are_built_in() -> None:
    assert set(e.BUILT_IN) == set(ALL)
    assert set(OWN_EVENTS) == e.LOG_OWN_TYPES


@pytest.mark.parametrize("event_type", ALL)
def test_fields_stand_in_the_declared_order(event_type: str) -> None:
    names = [name for name in e.BUILT_IN[event_type].__struct_fields__ if name != "claimed_at"]
    assert names == [name.rstrip("?") for name in ALL[event_type]]
    assert e.is_critical(event_type) is (event_type in CRITICAL)


@pytest.mark.parametrize("event_type", ALL)
@pytest.mark.parametrize("optional", [True, False])
def test_an_event_comes_out_as_it_went_in(event_type: str, optional: bool) -> None:
    fields = sample(event_type, optional=optional)
    event = e.from_mapping(event_type, fields)
    assert e.event_type_of(event) == event_type
    assert list(e.to_fields(event).items()) == list(fields.items())
    assert e.from_mapping(event_type, e.to_fields(event)) == event
    assert pickle.loads(pickle.dumps(event)) == event


@pytest.mark.parametrize("event_type", ALL)
def test_a_wrong_type_or_name_in_any_field_is_refused(event_type: str) -> None:
    for name, kind in ALL[event_type].items():
        field = name.rstrip("?")
        for wrong in WRONG[kind]:
            if wrong is None and name.endswith("?"):
                continue
            with pytest.raises(InvalidEventError, match=event_type):
                e.from_mapping(event_type, {**sample(event_type), field: wrong})
        if not name.endswith("?"):
            with pytest.raises(InvalidEventError, match=field):
                e.from_mapping(event_type, {k: v for k, v in sample(event_type).items() if k != field})
    with pytest.raises(InvalidEventError, match="unknown field"):
        e.from_mapping(event_type, {**sample(event_type), "index": 1})


@pytest.mark.parametrize("event_type", ALL)
def test_validate_finds_what_a_constructor_lets_through(event_type: str) -> None:
    """Structs check nothing when they are made in Python; validate does, and names the field."""
    cls = e.BUILT_IN[event_type]
    lawful = e.from_mapping(event_type, sample(event_type))
    values = {name: getattr(lawful, name) for name in cls.__struct_fields__}
    for name, kind in ALL[event_type].items():
        field = name.rstrip("?")
        for wrong in WRONG[kind]:
            if wrong is not None:
                with pytest.raises(InvalidEventError, match=f"{field} must be"):
                    e.validate(cls(**{**values, field: wrong}))
    e.validate(lawful)


def test_any_word_is_accepted_where_we_list_ours() -> None:
    """An event must not be lost over a reason, severity or method that we do not know."""
    event = e.from_mapping("policy_violation", {**sample("policy_violation"), "severity": "dreadful"})
    e.validate(event)
    actor = {"user_id": "u", "auth_method": "carrier pigeon"}
    e.from_mapping("auth_success", {**sample("auth_success"), "actor": actor})


def test_tuples_are_lists_too() -> None:
    event = e.ShardsLost(shard_ids=("a", "b"), reason="r")
    e.validate(event)
    assert list(e.to_fields(event)["shard_ids"]) == ["a", "b"]  # type: ignore[call-overload]


def test_a_callers_own_time_comes_last() -> None:
    event = e.SealVerified(shard_id="s", worker_id="w", claimed_at="2025-10-02T10:00:00+02:00")
    e.validate(event)
    assert list(e.to_fields(event)) == ["shard_id", "worker_id", "claimed_at"]
    with pytest.raises(InvalidEventError, match="claimed_at"):
        e.validate(e.SealVerified(shard_id="s", worker_id="w", claimed_at="noon"))


def test_events_are_frozen_and_made_by_keyword() -> None:
    event = e.LogClosed(reason="r")
    with pytest.raises(AttributeError):
        event.reason = "other"  # type: ignore[misc]
    with pytest.raises(TypeError):
        e.LogClosed("r")  # type: ignore[misc]


@pytest.mark.parametrize("thing", [None, "vram_sealed", {"event_type": "vram_sealed"}, object(), e.Success()])
def test_what_is_no_event_is_refused(thing: object) -> None:
    with pytest.raises(InvalidEventError, match="not registered"):
        e.validate(thing)


# --- names ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("vram.sealed", "vram_sealed"),
        ("vram_sealed", "vram_sealed"),
        ("seal.verification.failed", "seal_verification_failed"),
        ("seal.verification_failed", "seal_verification_failed"),
        ("acme.other", "acme.other"),
        ("nonsense", "nonsense"),
    ],
)
def test_queries_take_the_dotted_form(name: str, meant: str) -> None:
    assert e.canonical_type(name) == meant


def test_a_misspelt_event_gets_a_hint() -> None:
    with pytest.raises(InvalidEventError, match="no such event") as caught:
        e.from_mapping("vram_seeled", {})
    assert "vram_sealed" in caught.value.hint
    with pytest.raises(InvalidEventError, match="no such event") as caught:
        e.from_mapping("vram.sealed", {})
    assert "vram_sealed" in caught.value.hint


def test_a_user_adds_an_event_under_a_namespace() -> None:
    @e.register("acme.model_promoted")
    class ModelPromoted(e.Event, frozen=True, kw_only=True):
        critical = True
        model_ref: str
        approvers: list[str]
        actor: e.Actor | None = None
        count: int = 0

    event = ModelPromoted(model_ref="m", approvers=["a"])
    e.validate(event)
    assert e.event_type_of(event) == "acme.model_promoted"
    assert e.is_critical("acme.model_promoted")
    assert e.declares("acme.model_promoted", "actor")
    assert e.from_mapping("acme.model_promoted", {"model_ref": "m", "approvers": ["a"]}) == event
    with pytest.raises(InvalidEventError, match="approvers must be"):
        e.validate(ModelPromoted(model_ref="m", approvers="a"))  # type: ignore[arg-type]
    with pytest.raises(InvalidEventError, match="taken"):
        e.register("acme.model_promoted")(ModelPromoted)
    with pytest.raises(InvalidEventError, match="registered as"):
        e.register("acme.other_name")(ModelPromoted)


@pytest.mark.parametrize(
    "name", ["promoted", "Acme.promoted", "acme.", ".x", "acme.x y", "a.b\n", "a." + "b" * 130]
)
def test_a_users_event_needs_a_namespaced_name(name: str) -> None:
    class Promoted(e.Event, frozen=True, kw_only=True):
        what: str

    with pytest.raises(InvalidEventError, match="namespaced"):
        e.register(name)(Promoted)


def test_a_name_that_queries_would_read_as_ours_is_refused() -> None:
    class Sealed(e.Event, frozen=True, kw_only=True):
        what: str

    with pytest.raises(InvalidEventError, match="built-in"):
        e.register("vram.sealed")(Sealed)
    with pytest.raises(InvalidEventError, match="not registered"):
        e.validate(Sealed(what="x"))


@pytest.mark.parametrize(
    "name", ["index", "timestamp", "event_type", "service_id", "audit_id", "sanitized", "mac"]
)
def test_envelope_names_cannot_be_declared(name: str) -> None:
    cls = type("Sneaky", (e.Event,), {"__annotations__": {name: str}}, frozen=True, kw_only=True)
    with pytest.raises(InvalidEventError, match="envelope"):
        e.register("acme.sneaky")(cls)  # type: ignore[type-var]


@pytest.mark.parametrize("hint", [float, bytes, object, dict[str, str], "list[float]"])
def test_a_type_outside_the_format_cannot_be_declared(hint: Any) -> None:
    cls = type("Odd", (e.Event,), {"__annotations__": {"what": hint}}, frozen=True, kw_only=True)
    with pytest.raises(InvalidEventError, match="not a type"):
        e.register("acme.odd")(cls)  # type: ignore[type-var]


# --- lines of `audit emit` ------------------------------------------------------------------------------


@pytest.mark.parametrize("event_type", EVENTS)
def test_a_line_gives_the_event(event_type: str) -> None:
    fields = sample(event_type)
    parsed = parse_event_line(json.dumps({"event_type": event_type, **fields}).encode())
    assert e.to_fields(parsed.event) == fields
    assert (parsed.correlation_id, parsed.actor) == (None, None)


@pytest.mark.parametrize("event_type", OWN_EVENTS)
def test_a_line_cannot_make_the_logs_own_events(event_type: str) -> None:
    with pytest.raises(InvalidEventError, match="only the log's writer"):
        parse_event_line(json.dumps({"event_type": event_type, **sample(event_type)}).encode())


def test_a_line_may_carry_what_belongs_to_the_envelope() -> None:
    line = {
        "event_type": "seal_verified",
        "shard_id": "s",
        "worker_id": "w",
        "timestamp": SAMPLES["time"],
        "correlation_id": "req-1",
        "actor": ACTOR,
    }
    parsed = parse_event_line(json.dumps(line).encode())
    assert parsed.event.claimed_at == SAMPLES["time"]
    assert (parsed.correlation_id, parsed.actor) == ("req-1", ACTOR)


@pytest.mark.parametrize(
    "line",
    [
        b"",
        b"{",
        b"[]",
        b"null",
        b"\xff",
        b'"x"',
        b"{}",
        b'{"event_type":7}',
        b'{"event_type":"nonsense"}',
        b'{"event_type":"vram_sealed"}',
        b'{"event_type":"log_closed","event_type":"seal_verified","shard_id":"s","worker_id":"w"}',
        b'{"event_type":"seal_verified","shard_id":"s","shard_id":"t","worker_id":"w"}',
        b'{"event_type":"seal_verified","shard_id":"s","worker_id":"w","duration_us":1.0}',
        b'{"event_type":"seal_verified","shard_id":"s","worker_id":"w","duration_us":1e3}',
        b'{"event_type":"seal_verified","shard_id":"s","worker_id":"w","duration_us":NaN}',
        b'{"event_type":"seal_verified","shard_id":"s","worker_id":"w","duration_us":' + b"9" * 5000 + b"}",
        b'{"event_type":"seal_verified","shard_id":"s","worker_id":"w","mac":"00"}',
        b'{"event_type":"seal_verified","shard_id":"s","worker_id":"w","correlation_id":"a b"}',
        b'{"event_type":"seal_verified","shard_id":"s","worker_id":"w","actor":{"user_id":"u"}}',
        b'{"event_type":"seal_verified","shard_id":"s","worker_id":"w","timestamp":5}',
        b"[" * 200_000,
        b'{"a":' * 200_000,
        b" " * (LINE_BYTES_MAX + 1),
    ],
    ids=lambda line: line[:40].decode("latin-1"),
)
def test_a_bad_line_is_refused_with_our_error(line: bytes) -> None:
    with pytest.raises(InvalidEventError, match="refused"):
        parse_event_line(line)


@given(
    st.binary(max_size=200) | st.text(max_size=200).map(lambda text: text.encode("utf-8", "surrogatepass"))
)
def test_no_line_gives_anything_but_an_event_or_our_error(line: bytes) -> None:
    try:
        parsed = parse_event_line(line)
    except InvalidEventError:
        return
    e.validate(parsed.event)
