"""One shard in a card's memory, over a driver without a card: filled, sealed, wiped, never leaked."""

from __future__ import annotations

import gc
import os
import pickle

import pytest

from vram_residency.core.errors import (
    AllocationError,
    ConfigurationError,
    DeviceBusyError,
    DeviceLostError,
    InsufficientMemoryError,
    InvalidInputError,
    MalformedModelError,
    NotSealedError,
    ResidencyError,
)
from vram_residency.device.base import RUN_BYTES, Device, SealedMemory
from vram_residency.device.cuda.device import CudaDevice
from vram_residency.device.cuda.memory import CudaSealedMemory
from vram_residency.device.cuda.simulated import SimulatedDriver

UNIT = 64 << 10
DATA = os.urandom(3 * UNIT + 5)
MAPPED = 4 * UNIT


class Source:
    """Bytes that can run out."""

    def __init__(self, data: bytes, size_bytes: int) -> None:
        self.data = data
        self.size_bytes = size_bytes

    def read(self, offset: int, length: int) -> bytes:
        return self.data[offset : offset + length]


@pytest.fixture
def driver() -> SimulatedDriver:
    return SimulatedDriver(granularity_bytes=UNIT, total_bytes=64 << 20)


@pytest.fixture
def device(driver: SimulatedDriver) -> CudaDevice:
    return CudaDevice(driver)


def sealed(device: CudaDevice, data: bytes = DATA) -> CudaSealedMemory:
    memory = device.allocate(len(data), label="s")
    memory.fill(data)
    found = memory.seal()
    assert isinstance(found, CudaSealedMemory)
    return found


def contents(memory: CudaSealedMemory) -> bytes:
    data = bytearray(memory.size_bytes)
    memory.read_into(0, memoryview(data))
    return bytes(data)


def test_it_keeps_the_protocols(device: CudaDevice) -> None:
    as_device: Device = device
    memory: SealedMemory = sealed(device)
    assert (as_device.info.kind, as_device.info.uuid) == ("cuda", device.facts()["device_uuid"])
    assert (memory.path, memory.size_bytes) == (None, len(DATA))
    assert memory.free()


def test_headroom_is_a_tenth_and_at_least_two_gib() -> None:
    assert CudaDevice(SimulatedDriver(total_bytes=80 << 30)).headroom_bytes == 8 << 30
    assert CudaDevice(SimulatedDriver(total_bytes=8 << 30)).headroom_bytes == 2 << 30
    assert CudaDevice(SimulatedDriver(total_bytes=1 << 30)).headroom_bytes == 1 << 30


def test_bytes_arrive_and_are_read_only_and_wiped(device: CudaDevice, driver: SimulatedDriver) -> None:
    told: list[tuple[int, int]] = []
    seen = bytearray()
    memory = device.allocate(len(DATA), label="s")
    memory.fill(DATA, on_progress=lambda *done: told.append(done), observer=seen.extend)
    found = memory.seal()
    assert isinstance(found, CudaSealedMemory)
    assert (contents(found), bytes(seen), told[-1]) == (DATA, DATA, (len(DATA), len(DATA)))
    assert found.facts()["access"] == "read"
    assert found.check() is None
    memory.discard()
    assert driver.held == (MAPPED, 0, 1)
    assert found.free()
    assert not found.free()
    assert driver.held == (0, 0, 0)


def test_what_is_really_taken_is_whole_units(device: CudaDevice) -> None:
    assert [device.footprint_bytes(size) for size in (1, UNIT, UNIT + 1)] == [UNIT, UNIT, 2 * UNIT]


def test_many_runs_go_through_one_bounded_buffer(device: CudaDevice, driver: SimulatedDriver) -> None:
    data = os.urandom(3 * RUN_BYTES + 1)
    memory = device.allocate(len(data), label="s")
    memory.fill(Source(data, len(data)))
    found = memory.seal()
    assert isinstance(found, CudaSealedMemory)
    assert driver.calls.count("cuMemcpyHtoD") == 4
    assert contents(found) == data
    found.free()


def test_whatever_ends_the_filling_leaves_nothing(device: CudaDevice, driver: SimulatedDriver) -> None:
    def interrupted(_done: int, _total: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        device.allocate(len(DATA), label="s").fill(DATA, on_progress=interrupted)
    with pytest.raises(MalformedModelError, match="changed while it was read"):
        device.allocate(len(DATA), label="s").fill(Source(DATA[:-1], len(DATA)))
    with pytest.raises(InvalidInputError, match="where 10 were allocated"):
        device.allocate(10, label="s").fill(DATA)
    assert driver.held == (0, 0, 0)


def test_a_failure_of_any_call_on_the_way_to_a_seal_is_told_and_leaves_nothing(device: CudaDevice) -> None:
    whole = SimulatedDriver(granularity_bytes=UNIT)
    sealed(CudaDevice(whole))
    # The device's facts are the first call, and what is given back after a failed release is the driver's.
    for number, call in enumerate(whole.calls[1:]):
        driver = SimulatedDriver(granularity_bytes=UNIT)
        device = CudaDevice(driver)
        driver.fail_at(number, "CUDA_ERROR_UNKNOWN")
        with pytest.raises(ResidencyError) as caught:
            sealed(device)
        assert "0x" not in str(caught.value)
        if call != "cuMemRelease":
            assert driver.held == (0, 0, 0), call


def test_memory_of_which_the_driver_says_otherwise_is_not_sealed(
    device: CudaDevice, driver: SimulatedDriver
) -> None:
    for access in ("read_write", "none"):
        driver.memory_changes = {"access": access}
        with pytest.raises(AllocationError, match="says otherwise of access"):
            sealed(device)
    assert driver.held == (0, 0, 0)


def test_errors_say_what_to_do_and_name_no_address(device: CudaDevice, driver: SimulatedDriver) -> None:
    with pytest.raises(InsufficientMemoryError) as small:
        device.allocate((64 << 20) + 1, label="s")
    assert small.value.available_bytes == 64 << 20
    memory = sealed(device)
    with pytest.raises(InsufficientMemoryError) as full:
        device.allocate(64 << 20, label="s")
    assert full.value.available_bytes == (64 << 20) - MAPPED
    driver.fail_at(0, "CUDA_ERROR_INVALID_DEVICE")
    with pytest.raises(AllocationError, match="cuMemCreate: CUDA_ERROR_INVALID_DEVICE"):
        device.allocate(1, label="s")
    assert memory.free()
    with pytest.raises(InvalidInputError, match="nothing to seal"):
        device.allocate(0, label="s")
    device.close()
    for use in (lambda: device.allocate(1, label="s"), lambda: device.borrow(0, size_bytes=1, label="s")):
        with pytest.raises(DeviceLostError, match="was closed"):
            use()


def test_a_device_that_does_not_answer_is_lost(device: CudaDevice, driver: SimulatedDriver) -> None:
    for use in (device.facts, lambda: CudaDevice(driver), lambda: device.runner(lambda _major, _minor: b"")):
        driver.fail_at(0, "CUDA_ERROR_DEVICE_UNAVAILABLE")
        with pytest.raises(DeviceLostError, match="DEVICE_UNAVAILABLE"):
            use()


def test_memory_is_not_freed_under_those_who_use_it(device: CudaDevice, driver: SimulatedDriver) -> None:
    memory = sealed(device)
    held = memory.open(16, 32)
    assert held.size_bytes == 16
    with pytest.raises(DeviceBusyError, match="views of its memory are alive"):
        memory.free()
    freed: list[bool] = []
    memory.free_when_unused(freed.append)
    memory.free_when_unused(freed.append)
    with pytest.raises(NotSealedError):
        memory.open()
    assert (freed, driver.held[0]) == ([], MAPPED)
    del held
    gc.collect()
    assert (freed, driver.held) == ([True], (0, 0, 0))
    assert memory.facts()["mapped"] is False
    assert not memory.free()


def test_unused_memory_is_freed_at_once(device: CudaDevice, driver: SimulatedDriver) -> None:
    memory, freed = sealed(device), []
    memory.open()
    memory.free_when_unused(freed.append)
    assert (freed, driver.held) == ([True], (0, 0, 0))


def test_addresses_are_private(device: CudaDevice) -> None:
    memory = sealed(device)
    held = memory.open()
    for shown in (repr(memory), repr(held), str(memory.facts()), repr(device)):
        assert str(held.address) not in shown
        assert f"{held.address:x}" not in shown
    for one in (memory, held):
        with pytest.raises(TypeError, match="stays in its process"):
            pickle.dumps(one)
    del one
    with pytest.raises(ConfigurationError, match="on the GPU"):
        memory.view()
    del held
    memory.free()


@pytest.mark.parametrize(
    ("change", "finding"),
    [
        ({"device_uuid": "GPU-other"}, "on another device"),
        ({"memory_type": "host"}, "no device memory"),
        ({"access": "read_write"}, "access rights"),
        ({"buffer_id": 7}, "something else is mapped"),
        ({"exportable": True}, "facts changed since sealing: exportable"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_a_fact_that_changed_is_a_finding(
    device: CudaDevice, driver: SimulatedDriver, change: dict[str, object], finding: str
) -> None:
    memory = sealed(device)
    driver.memory_changes = change
    fault = memory.check()
    assert fault is not None
    assert (fault.reason, finding in fault.finding) == ("not_resident", True)
    memory.free()


def test_a_driver_that_no_longer_answers_is_a_finding(device: CudaDevice, driver: SimulatedDriver) -> None:
    memory = sealed(device)
    driver.fail_at(0, "CUDA_ERROR_LAUNCH_FAILED")
    fault = memory.check()
    assert fault is not None
    assert (fault.reason, fault.finding) == (
        "read_error",
        "the driver no longer answers: CUDA_ERROR_LAUNCH_FAILED",
    )
    memory.free()


def test_memory_goes_to_another_process_only_where_that_was_asked_for(driver: SimulatedDriver) -> None:
    private = sealed(CudaDevice(driver))
    with pytest.raises(AllocationError, match="NOT_PERMITTED"):
        private.descriptor()
    private.free()
    shared = sealed(CudaDevice(driver, is_shareable=True))
    borrower = SimulatedDriver(granularity_bytes=UNIT)
    descriptor = shared.descriptor()
    borrowed = CudaDevice(borrower).borrow(descriptor, size_bytes=len(DATA), label="b")
    os.close(descriptor)
    assert isinstance(borrowed, CudaSealedMemory)
    assert (contents(borrowed), borrowed.facts()["access"], borrowed.facts()["shared"]) == (
        DATA,
        "read",
        True,
    )
    # The lender's memory is not the borrower's to wipe.
    assert not borrowed.free()
    assert (contents(shared), borrower.held) == (DATA, (0, 0, 0))
    assert shared.free()


def test_what_is_borrowed_must_be_that_memory(driver: SimulatedDriver) -> None:
    device = CudaDevice(driver, is_shareable=True)
    shared = sealed(device)
    descriptor = shared.descriptor()
    other = SimulatedDriver(granularity_bytes=UNIT)
    with pytest.raises(InvalidInputError, match="no memory of that size"):
        CudaDevice(other).borrow(descriptor, size_bytes=10 * UNIT, label="b")
    other.memory_changes = {"access": "read_write"}
    with pytest.raises(AllocationError, match="access"):
        CudaDevice(other).borrow(descriptor, size_bytes=len(DATA), label="b")
    os.close(descriptor)
    assert other.held == (0, 0, 0)
    shared.free()
    assert driver.held == (0, 0, 0)
