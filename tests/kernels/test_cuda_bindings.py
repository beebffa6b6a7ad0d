"""The real driver's calls, made of a module without a card; names and arguments checked against the wheel."""

from __future__ import annotations

import ctypes
import gc
import os
import re
from importlib.util import find_spec
from typing import Any

import pytest
from tests.cuda_bindings import Bindings
from tests.kernels.cpu import CpuRunner
from tests.shards import GROUP, TOKEN, raw_bytes

from vram_residency import VramManager
from vram_residency.core.errors import AllocationError, DeviceLostError, InvalidInputError
from vram_residency.device.cuda.bindings import BoundDriver
from vram_residency.device.cuda.calls import Calls
from vram_residency.device.cuda.device import CudaDevice
from vram_residency.device.cuda.driver import Driver, DriverError
from vram_residency.device.cuda.simulated import SimulatedDriver
from vram_residency.digest.launches import Launch
from vram_residency.residency import FAST

UNIT = 64 << 10


class Watching:
    """What NVML would add."""

    def __init__(self, uuid: str) -> None:
        self.uuid = uuid

    def facts(self) -> dict[str, Any]:
        return {"virtual_gpu": False, "ecc_uncorrected": 0}


class Rig:
    """A bound driver, its module, and the card behind it."""

    def __init__(self, library: ctypes.CDLL, real: Any = None) -> None:
        self.kernels = CpuRunner(library)
        self.card = SimulatedDriver(total_bytes=4 << 30, granularity_bytes=UNIT)
        self.module: Any = Bindings(self.card, self.kernels, real)
        self.driver = BoundDriver(self.module, 0)
        self.device = CudaDevice(self.driver, monitor_of=Watching, is_shareable=True)


@pytest.fixture
def rig(library: ctypes.CDLL, monkeypatch: pytest.MonkeyPatch) -> Rig:
    name = "vram_residency.digest.kernels.cached_kernels"
    monkeypatch.setattr(name, lambda architecture: f"cubin {architecture[3]} {architecture[4]}".encode())
    return Rig(library)


def life(rig: Rig) -> None:
    """Sealed, verified at all scopes, lent, freed."""
    with VramManager.new_with_token(TOKEN, device=rig.device) as manager:
        shard = manager.seal_model(raw_bytes(2 * GROUP + 3))
        for scope in ("full", FAST, "sample"):
            manager.verify_sealed(shard, scope=scope)
        report = manager.describe(shard)
        assert report.residency["policy"]["holds"] is True
        memory = rig.device.allocate(10, label="x")
        memory.fill(b"0123456789")
        sealed = memory.seal()
        descriptor = sealed.descriptor()
        borrowed = rig.device.borrow(descriptor, size_bytes=10, label="y")
        os.close(descriptor)
        borrowed.free()
        assert sealed.free()


def test_the_whole_life_goes_through_the_bindings(rig: Rig) -> None:
    """And leaves nothing, neither memory nor a context on this thread's stack."""
    driver: Driver = rig.driver
    assert driver.granularity_bytes == UNIT
    life(rig)
    assert (rig.card.held, rig.kernels.reserved, rig.module.depth) == ((0, 0, 0), {}, 0)
    made = [name for name, _ in rig.module.made]
    assert made.count("cuDevicePrimaryCtxRetain") == 1
    assert "cuDevicePrimaryCtxRelease" not in made


def test_the_context_goes_with_the_last_that_needs_it(rig: Rig) -> None:
    """The memory keeps the driver, and the driver the context."""
    memory = rig.device.allocate(10, label="x")
    module = rig.module
    rig.device.close()
    del rig.driver, rig.device
    gc.collect()
    assert "cuDevicePrimaryCtxRelease" not in [name for name, _ in module.made]
    memory.discard()
    del memory
    gc.collect()
    assert module.made[-1][0] == "cuDevicePrimaryCtxRelease"


def test_the_facts_that_the_specification_lists_are_read(rig: Rig) -> None:
    """Of the device and of each allocation, by the names that the policy asks for; no address among them."""
    facts = rig.device.facts()
    assert (facts["name"], facts["compute_capability"]) == ("NVIDIA Pretend", "9.0")
    assert facts["device_uuid"] == "GPU-00010203-0405-0607-0809-0a0b0c0d0e0f" == rig.device.info.uuid
    asked = ("integrated", "mps", "wsl", "virtual_gpu", "ecc", "pageable_memory_access")
    assert [facts[name] for name in asked] == [False, False, False, False, True, True]
    memory = rig.device.allocate(10, label="x")
    memory.fill(b"0123456789")
    sealed = memory.seal()
    found = sealed.facts()
    wanted = {
        "memory_type": "device",
        "managed": False,
        "device_ordinal": 0,
        "access": "read",
        "pointer_access": "read",
        "host_access": "none",
        "peer_access": "none",
        "allocation_type": "pinned",
        "location_type": "device",
        "location_ordinal": 0,
        "mapping_begins_here": True,
        "mapped_bytes": UNIT,
        "buffer_id": 5,
    }
    assert {name: found[name] for name in wanted} == wanted
    sealed.free()


def test_a_question_that_the_driver_does_not_know_is_left_open(rig: Rig) -> None:
    """None passes no rule: nobody vouches for what could not be read."""
    del rig.module.attributes[133]
    assert rig.driver.device_facts()["mps"] is None
    rig.module.failing["cuDeviceGetAttribute"] = "CUDA_ERROR_ILLEGAL_ADDRESS"
    with pytest.raises(DriverError) as caught:
        rig.driver.device_facts()
    assert caught.value.is_lost


def test_each_failure_has_the_drivers_own_name(rig: Rig) -> None:
    """Sticky errors say that the device is lost to this process."""
    memory = rig.device.allocate(10, label="x")
    rig.module.failing["cuMemcpyHtoDAsync"] = "CUDA_ERROR_LAUNCH_FAILED"
    with pytest.raises(DeviceLostError, match="cuMemcpyHtoDAsync: CUDA_ERROR_LAUNCH_FAILED") as lost:
        memory.fill(b"0123456789")
    assert "Xid" in lost.value.hint
    assert rig.card.held == (0, 0, 0)
    runner = rig.driver.runner(lambda major, minor: f"cubin {major} {minor}".encode())
    address = runner.reserve(100)
    rig.module.failing = {
        "cuLaunchKernel": "CUDA_ERROR_INVALID_VALUE",
        "cuMemsetD8Async": "CUDA_ERROR_UNKNOWN",
    }
    with pytest.raises(AllocationError, match="cuLaunchKernel"):
        runner.launch(Launch("blake3_groups", 1, (1, 2, 3)))
    with pytest.raises(InvalidInputError, match="no thread blocks"):
        runner.launch(Launch("blake3_groups", 0, ()))
    with pytest.raises(AllocationError, match="CUDA_ERROR_UNKNOWN"):
        runner.release(address)
    assert rig.kernels.reserved == {}


def test_a_library_that_is_not_there_is_said_in_one_line() -> None:
    """The bindings look for it at the first call."""

    class Nothing:
        def cuInit(self, _flags: int) -> Any:  # noqa: N802
            raise RuntimeError("the driver library was not found\nand more lines")

    with pytest.raises(DriverError, match=r"\AcuInit: the driver library was not found\Z"):
        Calls(Nothing()).checked("cuInit", 0)  # type: ignore[arg-type]


@pytest.mark.nvrtc
@pytest.mark.skipif(
    find_spec("cuda") is None and "VRAM_TESTS_NEED_TOOLS" not in os.environ,
    reason="NVIDIA's bindings are missing: `pip install --group kernels`",
)
def test_names_numbers_of_arguments_and_types_are_those_of_the_wheel(
    library: ctypes.CDLL, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every call that a whole life makes, with the wheel's own types."""
    from cuda.bindings import driver as real

    name = "vram_residency.digest.kernels.cached_kernels"
    monkeypatch.setattr(name, lambda architecture: f"cubin {architecture[3]} {architecture[4]}".encode())
    rig = Rig(library, real)
    life(rig)
    made = {name: len(arguments) for name, arguments in rig.module.made}
    made |= {"cuDevicePrimaryCtxRelease": 1, "cuModuleUnload": 1}
    assert made == {name: _arity(getattr(real, name)) for name in made}
    assert len(made) >= 30
    _require_types_accepted(real, dict(rig.module.made))
    codes = {each.name for each in real.CUresult}
    from vram_residency.device.cuda.calls import _STICKY

    assert codes >= _STICKY


def _require_types_accepted(real: Any, made: dict[str, tuple[Any, ...]]) -> None:
    """The wheel converts arguments before it looks for the driver: without one that is all it does."""
    try:
        real.cuInit(0)
    except RuntimeError:
        for name, arguments in made.items():
            with pytest.raises(RuntimeError, match="driver"):
                getattr(real, name)(*arguments)


def _arity(function: Any) -> int:
    """As its first line says: the bindings are compiled and have no signature that Python could inspect."""
    found = re.match(r"\w+\((.*)\)\n", function.__doc__)
    assert found is not None
    inside = re.sub(
        r"\[[^\]]*\]", "", found[1].replace("Optional[tuple[CUmemAccessDesc] | list[CUmemAccessDesc]]", "T")
    )
    return len(inside.split(",")) if inside else 0
