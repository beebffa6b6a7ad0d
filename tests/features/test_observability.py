"""Steps of observability.feature: the coverage matrix of the user's documents, and residency.md section 8."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
from pytest_bdd import given, parsers, scenarios, then, when
from tests.shards import (
    MIB,
    TOKEN,
    WORKER,
    Place,
    PretendCard,
    altered,
    place,
    raw_bytes,
)

from vram_residency import (
    AllocationError,
    DigestMismatchError,
    InsufficientMemoryError,
    InvalidInputError,
    MalformedModelError,
    PolicyViolationError,
    SealVerificationError,
    UnknownShardError,
    VramManager,
)
from vram_residency.core import context
from vram_residency.testing import FaultDevice, MemoryLog, capture_narration

scenarios("observability.feature")

#: The words of the user's documents -> event_type on the wire.
WIRE = re.compile(r"(?<!^)(?=[A-Z])")


class World:
    """One scenario: the place, and where in its traces the operation in question begins."""

    def __init__(self, here: Place) -> None:
        self.here = here
        self.kept = here.manager.seal_model(raw_bytes(1000), shard_id="kept")
        self.array = np.arange(1000, dtype=np.float32)
        self.tensors = here.manager.seal_tensors({"layer.weight": self.array}, shard_id="adopted")
        self.mark()

    def mark(self) -> None:
        self.first_event, self.first_action = len(self.here.log.recorded), len(self.here.story.events)

    @property
    def events(self) -> list[Any]:
        return self.here.log.recorded[self.first_event :]

    @property
    def told(self) -> list[Any]:
        return self.here.story.events[self.first_action :]


@pytest.fixture
def correlation() -> Iterator[None]:
    token = context.correlation_id.set(None)
    yield
    context.correlation_id.reset(token)


@given("a VramManager with audit logging and narration enabled", target_fixture="world")
def a_manager(correlation: None) -> Iterator[World]:
    with place() as here:
        yield World(here)


@given("a VramManager on a GPU with audit logging and narration enabled", target_fixture="gpu")
def a_manager_on_a_gpu() -> Iterator[Place]:
    with place(PretendCard()) as here:
        yield here


@given("a machine without a GPU", target_fixture="log")
def a_host() -> MemoryLog:
    return MemoryLog()


@given(parsers.parse('the request has the correlation id "{text}"'))
def the_request_has_an_id(text: str) -> None:
    context.correlation_id.set(text)


@when("I seal a model with 1MB of data")
def seal_a_megabyte(world: World) -> None:
    world.mark()
    world.here.manager.seal_model(raw_bytes(MIB))


def fail(world: World, error: type[Exception], act: Callable[[], object]) -> None:
    """The operation in question is one that is refused."""
    world.mark()
    with pytest.raises(error):
        act()


def verify_damaged(world: World) -> None:
    world.here.device.flip_bit("kept", 500)
    fail(world, SealVerificationError, lambda: world.here.manager.verify_sealed(world.kept))


def lack_memory(world: World) -> None:
    fail(world, InsufficientMemoryError, lambda: world.here.manager.seal_model(bytes(64 * MIB)))


def lack_a_driver(world: World) -> None:
    world.here.device.run_out_of_memory()
    fail(world, AllocationError, lambda: world.here.manager.seal_model(raw_bytes(1000)))


def free_a_megabyte(world: World) -> None:
    shard = world.here.manager.seal_model(raw_bytes(MIB))
    world.mark()
    world.here.manager.deallocate(shard)


def reseal(world: World) -> None:
    world.array += 1
    world.mark()
    world.here.manager.reseal(world.tensors, reason="quantised")


def execute(world: World) -> None:
    with world.here.manager.execution(world.kept) as views:
        assert len(views.whole) == 1000


def start_anew(world: World) -> None:
    with VramManager.new_with_token(
        TOKEN, 0, world.here.log, WORKER, device=FaultDevice(capacity_bytes=16 * MIB)
    ):
        pass


OPERATIONS: dict[str, Callable[[World], object]] = {
    "manager init": start_anew,
    "model seal": lambda world: world.here.manager.seal_model(raw_bytes(MIB)),
    "seal verify": lambda world: world.here.manager.verify_sealed(world.kept),
    "execution": execute,
    "verify failed": verify_damaged,
    "allocate failed": lack_memory,
    "driver failed": lack_a_driver,
    "deallocate": free_a_megabyte,
    "tensors sealed": lambda world: world.here.manager.seal_tensors({"a": np.zeros(10)}),
    "model resealed": reseal,
    "malformed model": lambda world: fail(
        world,
        MalformedModelError,
        lambda: world.here.manager.seal_model(b"no header", format="safetensors"),
    ),
    "wrong digest": lambda world: fail(
        world,
        DigestMismatchError,
        lambda: world.here.manager.seal_model(raw_bytes(1000), expect="blake3:" + "00" * 32),
    ),
    "invalid input": lambda world: fail(
        world,
        InvalidInputError,
        lambda: world.here.manager.seal_model(raw_bytes(1000), shard_id="not an id"),
    ),
    "forged handle": lambda world: fail(
        world,
        UnknownShardError,
        lambda: world.here.manager.verify_sealed(altered(world.kept, vram_bytes=1)),
    ),
    "unknown shard": lambda world: fail(
        world, UnknownShardError, lambda: world.here.manager.verify_sealed("no-such-shard")
    ),
    "capacity query": lambda world: world.here.manager.available_vram(),
    "manager close": lambda world: world.here.manager.close(),
}


@when(parsers.parse('the operation "{name}" takes place'))
def an_operation_takes_place(world: World, name: str) -> None:
    OPERATIONS[name](world)


@when(parsers.parse('a VramManager is started with the policy "{mode}"'), target_fixture="refusal")
def start_with_policy(log: MemoryLog, mode: str) -> dict[str, Any]:
    with capture_narration() as story, pytest.raises(PolicyViolationError) as refused:
        VramManager.new_with_token(TOKEN, 0, log, WORKER, device="host", policy=mode)
    return {"error": refused.value, "story": story}


@when("three models are sealed, verified and freed")
def three_lives(world: World) -> None:
    for seed in range(3):
        shard = world.here.manager.seal_model(raw_bytes(1000, seed))
        world.here.manager.verify_sealed(shard)
        world.here.manager.deallocate(shard)


@then(parsers.parse('an audit event "{name}" should be emitted'), target_fixture="audited")
def an_audit_event(request: pytest.FixtureRequest, name: str) -> Any:
    fixtures = request.fixturenames
    events = request.getfixturevalue("world").events if "world" in fixtures else _log(request).recorded
    (event,) = [each for each in events if each.event_type == wire(name)]
    return event


@then(parsers.parse('a narration event with action "{action}" should be emitted'), target_fixture="narrated")
def a_narration_event(world: World, action: str) -> Any:
    (event,) = [each for each in world.told if each.action == action]
    return event


@then("both events should have the same shard ID")
def same_shard(audited: Any, narrated: Any) -> None:
    assert audited.fields["shard_id"] == narrated.as_dict()["shard_id"] == narrated.target


@then("both events should have the same correlation ID")
def same_correlation(audited: Any, narrated: Any) -> None:
    assert audited.correlation_id is not None
    assert audited.correlation_id == narrated.correlation_id


@then(parsers.parse('every event of the seal carries the correlation id "{text}"'))
def the_requests_correlation(world: World, text: str) -> None:
    assert len(world.events) == 2
    assert len(world.told) == 4
    assert {each.correlation_id for each in (*world.events, *world.told)} == {text}


@then(parsers.parse('exactly these audit events are emitted: "{names}"'))
def exactly_these_events(world: World, names: str) -> None:
    wanted = [] if names == "nothing" else [wire(name) for name in names.split(", ")]
    assert [each.event_type for each in world.events] == wanted


@then(parsers.parse('exactly these actions are narrated: "{names}"'))
def exactly_these_actions(world: World, names: str) -> None:
    told = [each.action for each in world.told]
    # A manager that was started for the scenario only is closed again, with nothing to free.
    assert told == names.split(", ")


@then("all of them carry one correlation ID")
def one_correlation(world: World) -> None:
    ids = {each.correlation_id for each in (*world.events, *world.told)}
    assert len(ids) == 1
    assert None not in ids


@then("no sentence claims VRAM that is not there")
def no_false_claims(world: World) -> None:
    for each in world.told:
        if each.action != "policy_violation":
            assert not re.search(r"VRAM|GPU \d|CUDA", each.human), each.human


@then(parsers.parse('the narration begins with "{sentence}"'), target_fixture="rest")
def begins_with(gpu: Place, sentence: str) -> list[str]:
    first, *rest = [each.human for each in gpu.story.events]
    assert first == sentence
    return rest


@then(parsers.parse('then says "{sentence}"'))
def then_says(rest: list[str], sentence: str) -> None:
    assert rest == [sentence]


@then("no audit event is emitted")
def no_event(gpu: Place) -> None:
    assert gpu.events == []


@then("it refuses to start because of the policy")
def refuses_to_start(refusal: dict[str, Any]) -> None:
    assert (refusal["error"].policy, refusal["error"].violation) == ("vram_only", "host_memory")


@then(parsers.parse('its action taken is "{action}"'))
def action_taken(audited: Any, action: str) -> None:
    assert audited.fields["action_taken"] == action


@then(parsers.parse('the narration says "{sentence}" at level "{level}"'))
def narrated_at(request: pytest.FixtureRequest, sentence: str, level: str) -> None:
    is_refused = "refusal" in request.fixturenames
    story = request.getfixturevalue("refusal")["story"] if is_refused else _world(request).here.story
    assert story.one(human=sentence).level == level


@then(parsers.parse('the audit log holds exactly {count:d} event "{name}"'), target_fixture="audited")
def so_many_events(world: World, count: int, name: str) -> Any:
    found = [each for each in world.here.log.recorded if each.event_type == wire(name)]
    assert len(found) == count
    return found[-1]


@then(parsers.parse('one sentence matches "{pattern}"'))
def one_sentence_matches(world: World, pattern: str) -> None:
    sentences = [each.human for each in world.told]
    assert len([each for each in sentences if re.fullmatch(pattern, each)]) == 1, sentences


def wire(name: str) -> str:
    return WIRE.sub("_", name).lower()


def _log(request: pytest.FixtureRequest) -> MemoryLog:
    log: MemoryLog = request.getfixturevalue("log")
    return log


def _world(request: pytest.FixtureRequest) -> World:
    world: World = request.getfixturevalue("world")
    return world
