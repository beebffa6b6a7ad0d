"""Device memory behind the driver's virtual memory calls: undone at every step, read-only, wiped, no leak."""

from __future__ import annotations

import os

import pytest

from vram_residency.device.cuda.driver import Driver, DriverError
from vram_residency.device.cuda.mapping import Mapping, wiped_and_closed
from vram_residency.device.cuda.simulated import SimulatedDriver

UNIT = 2 << 20
DATA = bytes(range(256)) * 5


def sealed(driver: SimulatedDriver, **options: bool) -> Mapping:
    mapping = Mapping(driver, len(DATA), **options)
    driver.write(mapping.address, memoryview(DATA))
    mapping.make_read_only()
    return mapping


def contents(driver: SimulatedDriver, address: int, size_bytes: int) -> bytes:
    view = memoryview(bytearray(size_bytes))
    driver.read(address, view)
    return bytes(view)


def test_the_double_keeps_the_protocol():
    driver: Driver = SimulatedDriver()
    assert driver.device_facts()["simulated"] is True


def test_memory_is_made_in_whole_units_and_read_only_once_sealed():
    driver = SimulatedDriver()
    mapping = sealed(driver)
    assert (mapping.size_bytes, mapping.mapped_bytes) == (len(DATA), UNIT)
    assert driver.access(mapping.address) == "read"
    assert contents(driver, mapping.address, len(DATA)) == DATA
    with pytest.raises(DriverError, match="ILLEGAL_ADDRESS") as fault:
        driver.write(mapping.address, memoryview(b"x"))
    assert fault.value.is_lost
    # The mapping alone keeps the memory: no handle is left by which it could be mapped again.
    assert driver.held == (UNIT, 0, 1)
    mapping.close()
    mapping.close()
    assert driver.held == (0, 0, 0)


def test_the_creation_handle_lives_until_the_read_only_mapping_exists():
    """Released between the two mappings, it would have freed the memory (gpu.md)."""
    driver = SimulatedDriver()
    mapping = Mapping(driver, 1)
    del driver.calls[:]
    mapping.make_read_only()
    assert driver.calls == ["cuMemUnmap", "cuMemMap", "cuMemSetAccess", "cuMemRelease"]
    with pytest.raises(ValueError, match="read-only already"):
        mapping.make_read_only()


def test_a_failure_of_any_call_while_it_is_made_leaves_nothing():
    calls = len(made_calls())
    for failing in range(calls):
        driver = SimulatedDriver()
        driver.fail_at(failing)
        with pytest.raises(DriverError, match=made_calls()[failing]):
            Mapping(driver, UNIT + 1)
        assert driver.held == (0, 0, 0), made_calls()[failing]


def made_calls() -> list[str]:
    driver = SimulatedDriver()
    Mapping(driver, UNIT + 1)
    return driver.calls


def test_a_failure_of_any_call_while_it_is_sealed_can_be_discarded():
    for failing in range(4):
        driver = SimulatedDriver()
        mapping = Mapping(driver, 1)
        driver.fail_at(failing)
        with pytest.raises(DriverError, match="CUDA_ERROR_OUT_OF_MEMORY"):
            mapping.make_read_only()
        if failing != 3:  # a handle that the driver would not release is the driver's to keep
            mapping.close()
            assert driver.held == (0, 0, 0)


@pytest.mark.parametrize("size_bytes", [0, -1])
def test_sizes_are_checked_before_the_first_call(size_bytes: int):
    driver = SimulatedDriver()
    with pytest.raises(ValueError, match="at least one byte"):
        Mapping(driver, size_bytes)
    assert driver.calls == []


def test_memory_is_wiped_before_it_is_given_back():
    driver = SimulatedDriver()
    mapping = sealed(driver, is_exportable=True)
    descriptor = mapping.descriptor()
    assert wiped_and_closed(mapping)
    assert os.pread(descriptor, UNIT, 0) == bytes(UNIT)
    os.close(descriptor)
    assert driver.held == (0, 0, 0)


@pytest.mark.parametrize(("failing", "held"), [(0, (0, 0, 0)), (1, (0, 0, 0))])
def test_what_cannot_be_wiped_is_said_and_still_given_back(failing: int, held: tuple[int, int, int]):
    driver = SimulatedDriver()
    mapping = sealed(driver)
    driver.fail_at(failing, "CUDA_ERROR_LAUNCH_FAILED")
    assert not wiped_and_closed(mapping)
    assert driver.held == held


def test_every_step_of_closing_is_tried_whatever_another_raises():
    for failing in range(2):
        driver = SimulatedDriver()
        mapping = sealed(driver)
        before = len(driver.calls)
        driver.fail_at(failing, "CUDA_ERROR_UNKNOWN")
        with pytest.raises(DriverError):
            mapping.close()
        assert driver.calls[before:] == ["cuMemUnmap", "cuMemAddressFree"]


def test_memory_that_may_not_be_shared_has_no_descriptor():
    driver = SimulatedDriver()
    mapping = sealed(driver)
    with pytest.raises(DriverError, match="NOT_PERMITTED"):
        mapping.descriptor()
    assert driver.held == (UNIT, 0, 1)


def test_borrowed_memory_is_the_same_and_read_only():
    lender, borrower = SimulatedDriver(), SimulatedDriver(ordinal=1)
    mapping = sealed(lender, is_exportable=True)
    descriptor = mapping.descriptor()
    borrowed = Mapping.of_borrowed(borrower, descriptor, len(DATA))
    os.close(descriptor)
    assert borrower.access(borrowed.address) == "read"
    assert contents(borrower, borrowed.address, len(DATA)) == DATA
    lender.poke(mapping.address, b"\xff")
    assert contents(borrower, borrowed.address, 1) == b"\xff"
    borrowed.close()
    assert borrower.held == (0, 0, 0)


def test_a_failure_while_borrowing_leaves_nothing():
    lender = SimulatedDriver()
    descriptor = sealed(lender, is_exportable=True).descriptor()
    for failing in range(4):
        borrower = SimulatedDriver()
        borrower.fail_at(failing)
        with pytest.raises(DriverError, match="CUDA_ERROR_OUT_OF_MEMORY"):
            Mapping.of_borrowed(borrower, descriptor, len(DATA))
        assert borrower.held == (0, 0, 0)
    os.close(descriptor)


def test_more_memory_than_there_is_is_refused():
    driver = SimulatedDriver(total_bytes=2 * UNIT)
    held = [Mapping(driver, UNIT), Mapping(driver, UNIT)]
    with pytest.raises(DriverError, match="cuMemCreate: CUDA_ERROR_OUT_OF_MEMORY"):
        Mapping(driver, 1)
    held[0].close()
    Mapping(driver, 1)
