"""Steps of verification.feature: damage is named, bad handles change nothing."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import msgspec
import pytest
from pytest_bdd import given, parsers, scenarios, then, when
from tests.shards import GROUP, Place, altered, model_bytes, place

from vram_residency import (
    DeviceLostError,
    InvalidInputError,
    NotSealedError,
    ResidencyError,
    SealVerificationError,
    UnknownShardError,
)
from vram_residency.device.base import ResidencyFault
from vram_residency.formats import Layout
from vram_residency.residency import FULL

scenarios("verification.feature")

SIZES = (300_000, 200_000, 100_000)
DATA = model_bytes(*SIZES)


class World:
    """One scenario."""

    def __init__(self, stack: ExitStack) -> None:
        self.stack = stack
        self.enter()

    def enter(self, **options: Any) -> None:
        self.here: Place = self.stack.enter_context(place(gate_scope=FULL, **options))
        self.shard = self.here.manager.seal_model(DATA, shard_id="model", format="safetensors")
        self.error: BaseException | None = None
        self.flipped: list[int] = []
        self.block_ran = False
        self.copies: dict[str, bytes] = {}
        self.views: Any = None
        self.writes: list[type[BaseException]] = []

    def attempt(self, act: Callable[[], object]) -> None:
        try:
            act()
        except ResidencyError as error:
            self.error = error

    def middle_of(self, name: str) -> int:
        (spec,) = [spec for spec in self.shard.tensors if spec.name == name]
        return (spec.start + spec.end) // 2


@given(
    'a sealed model with the tensors "t0" of 300 KB, "t1" of 200 KB and "t2" of 100 KB',
    target_fixture="world",
)
def a_sealed_model() -> Iterator[World]:
    with ExitStack() as stack:
        yield World(stack)


@given(parsers.parse('the gate runs in mode "{mode}"'))
def the_gate_runs_in_mode(world: World, mode: str) -> None:
    world.enter(enforcement=mode)


@when(parsers.parse('bit {bit:d} of the byte in the middle of "{name}" flips'))
def a_bit_flips(world: World, bit: int, name: str) -> None:
    offset = world.middle_of(name)
    world.here.device.flip_bit("model", offset, bit)
    world.flipped.append(offset)


@when("the shard is verified")
def it_is_verified(world: World) -> None:
    world.attempt(lambda: world.here.manager.verify_sealed("model"))


@when(parsers.parse('the manager\'s own record of the "{part}" is damaged'))
def the_record_is_damaged(world: World, part: str) -> None:
    DAMAGES[part](world.here.record(world.shard))


@when(parsers.parse('the device answers the next "{operation}" with "{answer}"'))
def the_device_answers(world: World, operation: Any, answer: str) -> None:
    world.here.device.fail_next(operation, ANSWERS[answer]())


@when("the model is executed")
def it_is_executed(world: World) -> None:
    def act() -> None:
        with world.here.manager.execution(world.shard) as views:
            world.block_ran = True
            world.views = views
            world.copies = {name: bytes(memoryview(view)) for name, view in views.items()}
            world.writes = [_failure(lambda: _write(memoryview(views["t0"])))]
            world.writes.append(_failure(lambda: _write(views["t0"].numpy())))

    world.attempt(act)


@when("the model is executed with a recheck while a bit flips inside the block")
def it_is_executed_with_recheck(world: World) -> None:
    def act() -> None:
        with world.here.manager.execution(world.shard, recheck=True):
            world.block_ran = True
            world.here.device.flip_bit("model", 100_000)

    world.attempt(act)


@when("100 bad handles are used")
def bad_handles(world: World) -> None:
    manager = world.here.manager
    for number in range(50):
        for handle in (f"unknown-{number}", altered(world.shard, vram_bytes=number)):
            with pytest.raises(UnknownShardError, match="no shard"):
                manager.verify_sealed(handle)


@then(parsers.parse('it fails as damaged with reason "{reason}"'))
def it_fails_as_damaged(world: World, reason: str) -> None:
    assert isinstance(world.error, SealVerificationError)
    assert (world.error.shard_id, world.error.reason) == ("model", reason)
    fields = world.here.only("seal_verification_failed")
    assert (fields["shard_id"], fields["reason"], fields["severity"]) == ("model", reason, "CRITICAL")
    assert fields["action_taken"] == "shard_quarantined"
    assert world.here.story.one(action="verify_failed").level == "fatal"


@then('the damage lies within 128 KB around that byte and names "t1"')
def it_is_placed(world: World) -> None:
    (offset,) = world.flipped
    error: Any = world.error
    assert error.first_bad_offset <= offset <= error.last_bad_offset
    assert error.last_bad_offset - error.first_bad_offset < GROUP
    assert error.first_bad_offset % GROUP == 0
    assert "t1" in error.tensors
    assert f"bytes {error.first_bad_offset} to {error.last_bad_offset}" in str(error)


@then("the audit log holds the offsets, the tensors and both digests")
def it_is_audited(world: World) -> None:
    error: Any = world.error
    fields = world.here.only("seal_verification_failed")
    for name in ("first_bad_offset", "last_bad_offset", "expected_digest", "actual_digest"):
        assert fields[name] == getattr(error, name)
    assert tuple(fields["tensors"]) == error.tensors
    assert fields["expected_digest"] == world.shard.digest != fields["actual_digest"]


@then("the shard is quarantined")
def it_is_quarantined(world: World) -> None:
    assert world.here.manager.describe("model").state == "quarantined"
    assert world.here.only("shard_quarantined")["shard_id"] == "model"


@then(parsers.parse('{way} is refused because the shard is "{state}"'))
def it_is_refused(world: World, way: str, state: str) -> None:
    with pytest.raises(NotSealedError, match=state):
        WAYS[way](world)
    last = world.here.log.of_type("seal_verification_failed")[-1]
    assert (last["reason"], last["action_taken"]) == ("not_sealed", "request_rejected")
    assert len(world.here.log.of_type("shard_quarantined")) == 1


@then("the views held the sealed bytes by tensor name")
def the_views_held_the_bytes(world: World) -> None:
    assert world.error is None
    assert world.copies == {spec.name: DATA[spec.start : spec.end] for spec in world.shard.tensors}


@then("they could not be written")
def they_could_not_be_written(world: World) -> None:
    assert world.writes == [TypeError, ValueError]


@then("they are refused after the block")
def they_are_refused(world: World) -> None:
    for use in (world.views["t0"].numpy, lambda: world.views.whole):
        with pytest.raises(InvalidInputError, match="after its execution"):
            use()


@then("the block never ran")
def it_never_ran(world: World) -> None:
    assert not world.block_ran


@then("the block ran")
def it_ran(world: World) -> None:
    assert world.block_ran


@then(parsers.parse("{count:d} executions would have been blocked"))
def would_have_been_blocked(world: World, count: int) -> None:
    assert world.here.manager.would_have_blocked == count
    failures = world.here.log.of_type("seal_verification_failed")
    assert [each["action_taken"] for each in failures] == ["allowed_by_configuration"] * count
    assert world.here.manager.describe("model").state == "sealed"


@then(parsers.parse('the lesser mode "{mode}" is on record as a policy violation that configuration allows'))
def it_is_on_record(world: World, mode: str) -> None:
    found = [each for each in world.here.log.of_type("policy_violation") if mode in each["details"]]
    assert [each["action_taken"] for each in found] == ["allowed_by_configuration"]
    assert found[0]["violation"] == "gate_not_enforced"


@then("each was refused and audited")
def each_was_audited(world: World) -> None:
    failures = world.here.log.of_type("seal_verification_failed")
    assert [each["reason"] for each in failures] == ["unknown_shard", "signature_invalid"] * 50
    assert "shard_quarantined" not in world.here.events


@then("the shard still verifies")
def it_still_verifies(world: World) -> None:
    world.here.manager.verify_sealed(world.shard)


def _failure(act: Callable[[], object]) -> type[BaseException]:
    try:
        act()
    except (TypeError, ValueError) as error:
        # Not the error itself: its traceback would keep the view, and the view the memory.
        return type(error)
    raise AssertionError("it was written")


def _write(target: Any) -> None:
    target[0] = 1


def _execute(world: World) -> None:
    with world.here.manager.execution(world.shard):
        raise AssertionError("a quarantined shard was handed out")


WAYS: dict[str, Callable[[World], object]] = {
    "verifying it": lambda world: world.here.manager.verify_sealed("model"),
    "executing it": _execute,
    "attesting it": lambda world: world.here.manager.attest(world.shard, nonce="n"),
}


def _replaced(name: str, **fields: Any) -> Callable[[Any], None]:
    return lambda record: setattr(record, name, msgspec.structs.replace(getattr(record, name), **fields))


DAMAGES: dict[str, Callable[[Any], object]] = {
    "statement": _replaced("statement", worker_id="another"),
    "signature": lambda record: setattr(record, "signature", bytes(32)),
    "group values": lambda record: setattr(record, "group_values", b"\1" + record.group_values[1:]),
    "layout": lambda record: setattr(record, "layout", Layout("safetensors", record.layout.tensors[1:])),
    "residency": lambda record: record.residency["facts"].update(seals="none"),
    "handle": _replaced("shard", model_ref="another model"),
}
ANSWERS: dict[str, Callable[[], Any]] = {
    "other memory": lambda: ResidencyFault("not_resident", "something else lies there"),
    "a system error": lambda: OSError(5, "Input/output error"),
    "a lost device": lambda: DeviceLostError("cuda:0", "it fell off the bus"),
}
