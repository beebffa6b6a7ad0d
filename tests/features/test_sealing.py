"""Steps of sealing.feature: a seal is made whole or not at all."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from pytest_bdd import given, parsers, scenarios, then, when
from tests.shards import MIB, Place, altered, mapped_memfds, memfds, place, raw_bytes, write_model

from vram_residency import (
    AllocationError,
    BufferFullError,
    DeviceLostError,
    InsufficientMemoryError,
    PolicyViolationError,
    SealedShard,
    SealVerificationError,
)
from vram_residency.device.host import HostDevice
from vram_residency.formats.layout import TensorSpec
from vram_residency.policy.rules import Limits
from vram_residency.residency.owned import OwnedContent
from vram_residency.testing import FaultDevice

scenarios("sealing.feature")

FORGED: dict[str, Any] = {
    "shard_id": "another",
    "gpu_device": 1,
    "vram_bytes": 1,
    "digest": "blake3:" + "00" * 32,
    "sealed_at": "2025-10-02T10:00:00.000000Z",
    "worker_id": "worker-gpu-1",
    "model_ref": "approved",
    "shard_index": 0,
    "total_shards": 1,
    "tensors": (TensorSpec("x", "U8", (1,), 0, 1),),
    "path": "/dev/null",
}


class CancelledError(Exception):
    """What a caller's own progress callback raises."""


class World:
    """One scenario: where it happens, and what came of it."""

    def __init__(self, stack: ExitStack) -> None:
        self.stack = stack
        self.here: Place = stack.enter_context(place())
        self.shard: Any = None
        self.error: BaseException | None = None
        self.before = (memfds(), mapped_memfds())
        self.mark = len(self.here.log.recorded)

    def replace_place(self, here: Place) -> None:
        self.here = here
        self.before = (memfds(), mapped_memfds())
        self.mark = len(here.log.recorded)

    def attempt(self, act: Callable[[], Any]) -> None:
        self.mark = len(self.here.log.recorded)
        try:
            self.shard = act()
        except BaseException as error:  # noqa: BLE001 - interrupts are among what is tried
            self.error = error

    @property
    def events(self) -> list[str]:
        return self.here.events[self.mark :]


@given("a manager of 16 MB", target_fixture="world")
def a_manager() -> Iterator[World]:
    with ExitStack() as stack:
        yield World(stack)


@given("a manager that requires audit")
def audit_required(world: World) -> None:
    world.replace_place(world.stack.enter_context(place(audit_required=True)))


@given("the audit buffer is full")
def a_full_buffer(world: World) -> None:
    world.here.log.fail_with(BufferFullError(1000))


@given("a sealed shard")
def a_sealed_shard(world: World) -> None:
    world.shard = world.here.manager.seal_model(raw_bytes(1000), shard_id="the-shard")


@given("the shard is kept")
def it_is_kept() -> None:
    """Nothing happens to it."""


@given("the shard was deallocated")
def it_was_deallocated(world: World) -> None:
    world.here.manager.deallocate(world.shard)


@given("the shard was damaged")
def it_was_damaged(world: World) -> None:
    world.here.device.flip_bit("the-shard", 10)
    with pytest.raises(SealVerificationError, match="digest_mismatch"):
        world.here.manager.verify_sealed(world.shard)


@when("a model is sealed")
@when("sealing a model is tried")
@when("sealing a model under the same id is tried")
def seal_a_model(world: World) -> None:
    world.attempt(lambda: world.here.manager.seal_model(raw_bytes(1000, 1), shard_id="the-shard"))


@when("sealing a model of 16 MB is tried")
def seal_too_much(world: World) -> None:
    kept = world.shard
    world.attempt(lambda: world.here.manager.seal_model(bytes(16 * MIB), shard_id="too-large"))
    world.shard = kept


@when(parsers.parse('a handle whose "{field}" was altered is used'))
def use_a_forged_handle(world: World, field: str) -> None:
    forged = altered(world.shard, **{field: FORGED[field]})
    assert forged != world.shard
    kept = world.shard
    world.attempt(lambda: world.here.manager.verify_sealed(forged))
    world.shard = kept


@when(parsers.parse("{count:d} threads seal models of 3 MB at the same moment"), target_fixture="race")
def race_for_memory(world: World, count: int) -> dict[str, list[Any]]:
    start, data = threading.Barrier(count), raw_bytes(3 * MIB)
    result: dict[str, list[Any]] = {"won": [], "lost": []}

    def race() -> None:
        start.wait()
        try:
            result["won"].append(world.here.manager.seal_model(data))
        except InsufficientMemoryError as error:
            result["lost"].append(error)

    threads = [threading.Thread(target=race) for _ in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return result


@when(parsers.parse('sealing meets "{fault}"'))
def sealing_meets(world: World, fault: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    act = FAULTS[fault](world, tmp_path, monkeypatch)
    world.attempt(act)
    monkeypatch.undo()


@then("the shard is sealed and verifies")
def it_is_sealed(world: World) -> None:
    assert world.error is None
    assert world.here.manager.verify_sealed(world.shard).scope == "full"


@then(parsers.parse('{count:d} audit failures are counted and narrated at level "{level}"'))
def failures_are_counted(world: World, count: int, level: str) -> None:
    told = [each for each in world.here.story.events if each.action == "audit_failed"]
    assert world.here.manager.audit_failures == len(told) == count
    assert {each.level for each in told} == {level}
    assert told[0].human == "Audit event 'vram_allocated' could not be recorded: BufferFullError"


@then(parsers.parse("it fails with {name}"))
def it_fails_with(world: World, name: str) -> None:
    assert world.error is not None
    assert type(world.error).__name__.removesuffix("Error") == name.removesuffix("Error"), repr(world.error)


@then("nothing is left behind")
def nothing_is_left(world: World) -> None:
    # A traceback may keep frames, and frames keep buffers: they are the caller's, and end with the error.
    world.error = None
    world.here.require_untouched()
    assert (memfds(), mapped_memfds()) == world.before


@then("the id can be used once the buffer has room")
@then("the id can be used again")
def the_id_is_free(world: World) -> None:
    world.here.log.fail_with(None)
    here = world.here
    if isinstance(here.device, FaultDevice):
        here.manager.verify_sealed(here.manager.seal_model(raw_bytes(1000), shard_id="the-shard"))
    else:
        # Nothing can ever be sealed there: the id is not what stands in the way.
        with pytest.raises(PolicyViolationError, match="not_locked"):
            here.manager.seal_model(raw_bytes(1000), shard_id="the-shard")


@then(parsers.parse('the failure is audited with reason "{reason}" and action "{action}"'))
def the_failure_is_audited(world: World, reason: str, action: str) -> None:
    fields = world.here.only("seal_verification_failed")
    assert (fields["reason"], fields["action_taken"], fields["severity"]) == (reason, action, "HIGH")
    assert world.here.story.events[-1].action == "verify_failed"


@then("the shard is not quarantined and still verifies")
@then("the first shard still verifies")
def still_verifies(world: World) -> None:
    assert world.here.manager.describe(world.shard).state == "sealed"
    assert "shard_quarantined" not in world.here.events
    world.here.manager.verify_sealed(world.shard)


@then(parsers.parse('the narration has an event with action "{action}"'))
def it_is_narrated(world: World, action: str) -> None:
    assert world.here.story.events[-1].action == action


@then(
    parsers.parse(
        'the audit event "vram_allocation_failed" says that {size:d} bytes were requested for want of room'
    )
)
def the_figures(world: World, size: int) -> None:
    fields = world.here.only("vram_allocation_failed")
    available = 16 * MIB - 1000
    assert isinstance(world.error, InsufficientMemoryError)
    assert (world.error.requested_bytes, world.error.available_bytes) == (size, available)
    assert (fields["requested_bytes"], fields["available_bytes"]) == (size, available)
    assert fields["reason"] == "insufficient_vram"


@then(parsers.parse("exactly {count:d} of them succeed"))
def so_many_succeed(world: World, race: dict[str, list[SealedShard]], count: int) -> None:
    assert len(race["won"]) == count == len(world.here.manager.shards())


@then("the others fail with InsufficientMemoryError")
def the_others_fail(world: World, race: dict[str, list[Any]]) -> None:
    assert len(race["lost"]) == 7 == len(world.here.log.of_type("vram_allocation_failed"))


@then("no moment had more than 16 MB in use")
def no_overshoot(world: World) -> None:
    allocated = world.here.log.of_type("vram_allocated")
    assert all(each["used_bytes"] + each["available_bytes"] == 16 * MIB for each in allocated)
    assert world.here.manager.used_vram() == 15 * MIB


@then(parsers.re(r'the audit log ends with "(?P<events>.*)"'))
def the_log_ends_with(world: World, events: str) -> None:
    assert world.events == (events.split(", ") if events else [])
    if "vram_deallocated" in world.events:
        last = world.here.log.of_type("vram_deallocated")[-1]
        assert (last["shard_id"], last["remaining_used"]) == ("the-shard", 0)


def _seal_bytes(world: World, **choices: Any) -> Callable[[], Any]:
    return lambda: world.here.manager.seal_model(raw_bytes(3 * MIB), shard_id="the-shard", **choices)


def _seal_file(world: World, path: Path, **choices: Any) -> Callable[[], Any]:
    return lambda: world.here.manager.seal_file(path, shard_id="the-shard", **choices)


def _changed_file(change: Callable[[Path], object]) -> Any:
    def prepare(world: World, folder: Path, _patch: pytest.MonkeyPatch) -> Callable[[], Any]:
        path = write_model(folder, 3 * MIB)

        def on_progress(done: int, total: int) -> None:
            if done < total:
                change(path)

        return _seal_file(world, path, on_progress=on_progress)

    return prepare


def _touch(path: Path) -> None:
    with path.open("r+b") as file:
        file.seek(-1, os.SEEK_END)
        file.write(b"!")
    os.utime(path, ns=(1, 1))


def _with(**choices: Any) -> Any:
    return lambda world, _folder, _patch: _seal_bytes(world, **choices)


def _file_of(data: bytes | None, name: str) -> Any:
    def prepare(world: World, folder: Path, _patch: pytest.MonkeyPatch) -> Callable[[], Any]:
        path = folder / name
        if data is not None:
            path.write_bytes(data)
        return _seal_file(world, path)

    return prepare


def _raising(error_type: type[BaseException]) -> Any:
    def on_progress(done: int, _total: int) -> None:
        if done >= MIB:
            raise error_type

    return _with(on_progress=on_progress)


def _interrupted_digest(world: World, _folder: Path, patch: pytest.MonkeyPatch) -> Callable[[], Any]:
    def interrupted(*_arguments: object) -> str:
        raise KeyboardInterrupt

    patch.setattr(OwnedContent, "digest", interrupted)
    return _seal_bytes(world)


def _failing(operation: Any, error_type: type[Exception], *data: object) -> Any:
    def prepare(world: World, _folder: Path, _patch: pytest.MonkeyPatch) -> Callable[[], Any]:
        # Made anew each time: an error that lives on keeps its traceback, and that keeps memory.
        world.here.device.fail_next(operation, error_type(*data))
        return _seal_bytes(world)

    return prepare


def _out_of_memory(world: World, _folder: Path, _patch: pytest.MonkeyPatch) -> Callable[[], Any]:
    def act() -> Any:
        world.here.device.run_out_of_memory()
        try:
            return _seal_bytes(world)()
        finally:
            world.here.device.recover()

    return act


def _unlocked(world: World, _folder: Path, _patch: pytest.MonkeyPatch) -> Callable[[], Any]:
    device = HostDevice(capacity_bytes=16 * MIB, lock=False)
    world.replace_place(world.stack.enter_context(place(device, limits=Limits(require_lock=True))))
    return _seal_bytes(world)


FAULTS: dict[str, Any] = {
    "file changed while read": _changed_file(_touch),
    "file truncated while read": _changed_file(lambda path: os.truncate(path, 2 * MIB)),
    "another blake3 expected": _with(expect="blake3:" + "00" * 32),
    "another sha256 expected": _with(expect="sha256:" + "00" * 32),
    "malformed header": _file_of(b"\xff" * 100, "model.safetensors"),
    "empty file": _file_of(b"", "model.bin"),
    "no such file": _file_of(None, "model.bin"),
    "unsound digest expected": _with(expect="blake3:short"),
    "unknown algorithm": _with(algorithm="md5"),
    "progress callback cancels": _raising(CancelledError),
    "interrupt while filling": _raising(KeyboardInterrupt),
    "interrupt while digesting": _interrupted_digest,
    "out of memory": _out_of_memory,
    "allocate: driver error": _failing("allocate", AllocationError, "cuMemCreate", "out of memory"),
    "allocate: system error": _failing("allocate", OSError, 12, "Cannot allocate memory"),
    "fill: driver error": _failing("fill", AllocationError, "cuMemcpy", "refused"),
    "fill: device lost": _failing("fill", DeviceLostError, "cuda:0", "it fell off the bus"),
    "seal: driver error": _failing("seal", AllocationError, "cuMemSetAccess", "refused"),
    "seal: system error": _failing("seal", OSError, 5, "Input/output error"),
    "view: device lost": _failing("view", DeviceLostError, "cuda:0", "it fell off the bus"),
    "view: system error": _failing("view", OSError, 5, "Input/output error"),
    "facts: system error": _failing("facts", OSError, 5, "Input/output error"),
    "memory that must be locked": _unlocked,
}
