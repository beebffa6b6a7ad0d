"""Deliberate damage: what tests and the demo do to sealed memory, and that the record shows it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from vram_residency.core.errors import AllocationError, InvalidInputError, UnknownShardError
from vram_residency.device.base import ResidencyFault, SealedMemory
from vram_residency.device.fault import FaultDevice

SIZE = 10_000


@pytest.fixture
def device() -> Iterator[FaultDevice]:
    device = FaultDevice(capacity_bytes=1 << 20)
    yield device
    device.close()


def sealed(device: FaultDevice, label: str = "a") -> SealedMemory:
    memory = device.allocate(SIZE, label=label)
    memory.fill(bytes(SIZE))
    return memory.seal()


def test_a_flipped_bit_shows_in_the_view_and_only_there(device: FaultDevice) -> None:
    """The residency of the memory is as it was; only the content changed, and can be changed back."""
    memory, other = sealed(device), sealed(device, "b")
    device.flip_bit("a", 7777, 3)
    expected = bytearray(SIZE)
    expected[7777] = 8
    assert bytes(memory.view()) == expected
    assert bytes(other.view()) == bytes(SIZE)
    assert memory.check() is None
    device.flip_bit("a", 7777, 3)
    assert bytes(memory.view()) == bytes(SIZE)


def test_bytes_can_be_written(device: FaultDevice) -> None:
    """Anywhere inside."""
    memory = sealed(device)
    device.write("a", SIZE - 3, b"end")
    assert bytes(memory.view()[-4:]) == b"\0end"


@pytest.mark.parametrize(("offset", "data"), [(-1, b"x"), (SIZE, b"x"), (SIZE - 1, b"xy")])
def test_damage_stays_inside(device: FaultDevice, offset: int, data: bytes) -> None:
    """Of the shard that was named."""
    memory = sealed(device)
    with pytest.raises(InvalidInputError, match="must lie inside the 10000 bytes of 'a'"):
        device.write("a", offset, data)
    with pytest.raises(InvalidInputError, match="must be in 0 to 7"):
        device.flip_bit("a", 0, 8)
    assert memory.check() is None


def test_unknown_memory_cannot_be_damaged(device: FaultDevice) -> None:
    """Nor memory that was freed and forgotten."""
    memory = sealed(device)
    memory.free()
    del memory
    with pytest.raises(UnknownShardError):
        device.flip_bit("a", 0)


def test_the_record_shows_what_kind_of_device_it_is(device: FaultDevice) -> None:
    """fault_injection in both facts, and no write seal."""
    facts = sealed(device).facts()
    assert (facts["fault_injection"], device.facts()["fault_injection"]) == (True, True)
    assert "write" not in str(facts["seals"]).split(",")


def test_the_next_of_each_operation_can_fail(device: FaultDevice) -> None:
    """Once; the one after succeeds."""
    memory = sealed(device)
    for operation, act in [("view", memory.view), ("facts", memory.facts), ("free", memory.free)]:
        device.fail_next(operation, OSError(5, "Input/output error"))  # type: ignore[arg-type]
        with pytest.raises(OSError, match="Input/output error"):
            act()
    assert memory.view().nbytes == SIZE


@pytest.mark.parametrize("operation", ["allocate", "fill", "seal"])
def test_making_memory_can_fail_and_leaves_nothing(device: FaultDevice, operation: str) -> None:
    """At each step."""
    device.fail_next(operation, AllocationError(operation, "planned"))  # type: ignore[arg-type]
    with pytest.raises(AllocationError, match="planned"):
        sealed(device)
    assert sealed(device).check() is None


def test_a_planned_fault_is_what_the_check_finds(device: FaultDevice) -> None:
    """Returned as the real ones are."""
    memory = sealed(device)
    fault = ResidencyFault("read_error", "the page could not be read")
    device.fail_next("check", fault)
    assert memory.check() == fault
    assert memory.check() is None


def test_it_can_run_out_of_memory_and_recover(device: FaultDevice) -> None:
    """What was sealed before stays."""
    memory = sealed(device)
    device.run_out_of_memory()
    for _ in range(2):
        with pytest.raises(AllocationError, match="Cannot allocate memory"):
            device.allocate(SIZE, label="b")
    assert memory.check() is None
    device.recover()
    assert sealed(device, "b").check() is None


def test_freeing_is_as_on_the_host(device: FaultDevice) -> None:
    """The twin goes with the memory."""
    memory = sealed(device)
    freed: list[bool] = []
    view = memory.view()
    memory.free_when_unused(freed.append)
    assert freed == []
    view.release()
    del view
    assert freed == [False]
