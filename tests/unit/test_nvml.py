"""What NVML says of a card, and that a machine without it is a fact."""

from __future__ import annotations

import os
import sys
from importlib.util import find_spec
from types import SimpleNamespace
from typing import Any

import pytest

from vram_residency.device.cuda.device import NoMonitor
from vram_residency.device.cuda.nvml import NvmlMonitor


class NvmlError(Exception):
    pass


class Nvml:
    """As `pynvml` names and answers, with one card."""

    NVML_MEMORY_ERROR_TYPE_CORRECTED = 0
    NVML_MEMORY_ERROR_TYPE_UNCORRECTED = 1
    NVML_AGGREGATE_ECC = 1

    def __init__(self) -> None:
        self.opened = 0
        self.mode = 0
        self.asked: set[str] = set()

    def nvmlInit(self) -> None:  # noqa: N802
        self.opened += 1

    def nvmlDeviceGetHandleByUUID(self, uuid: str) -> str:  # noqa: N802
        if not uuid.endswith("-1"):
            raise NvmlError
        return "slice" if uuid.startswith("MIG") else "card"

    def nvmlDeviceGetDeviceHandleFromMigDeviceHandle(self, handle: str) -> str:  # noqa: N802
        assert handle == "slice"
        return "card"

    def __getattr__(self, name: str) -> Any:
        answers = {
            "nvmlSystemGetDriverVersion": "580.95.05",
            "nvmlDeviceGetVbiosVersion": b"96.00",
            "nvmlDeviceGetVirtualizationMode": self.mode,
            "nvmlDeviceGetAddressingMode": 1,
            "nvmlDeviceGetRemappedRows": (1, 2, 0, 1),
            "nvmlDeviceGetBAR1MemoryInfo": SimpleNamespace(bar1Total=100, bar1Used=7),
            "nvmlDeviceGetComputeRunningProcesses": ["one"],
        }
        self.asked.add(name)
        if name == "nvmlDeviceGetTotalEccErrors":
            return lambda card, kind, counter: {("card", 0, 1): 5, ("card", 1, 1): 6}[card, kind, counter]
        if name not in answers:
            raise NvmlError(name)
        return lambda *_: answers[name]


def test_everything_the_specification_lists_is_asked() -> None:
    """What this card does not answer, here its confidential computing, is None."""
    assert NvmlMonitor("GPU-1", Nvml()).facts() == {  # type: ignore[arg-type]
        "nvml": "read",
        "mig_slice": False,
        "driver_version": "580.95.05",
        "vbios_version": "96.00",
        "virtual_gpu": False,
        "addressing_mode": "hmm",
        "ecc_corrected": 5,
        "ecc_uncorrected": 6,
        "remapped_rows_corrected": 1,
        "remapped_rows_uncorrected": 2,
        "remap_pending": False,
        "remap_failed": True,
        "bar1_total_bytes": 100,
        "bar1_used_bytes": 7,
        "compute_processes": 1,
        "confidential_computing": None,
    }


@pytest.mark.parametrize(("mode", "is_virtual"), [(0, False), (1, False), (2, True), (9, None)])
def test_a_virtual_gpu_is_told_from_one_that_was_passed_through(mode: int, is_virtual: Any) -> None:
    """A mode that nobody knows is no answer."""
    nvml: Any = Nvml()
    nvml.mode = mode
    assert NvmlMonitor("GPU-1", nvml).facts()["virtual_gpu"] is is_virtual


def test_a_slice_is_asked_of_its_whole_card_and_opened_once() -> None:
    """Counters and modes are the card's."""
    nvml: Any = Nvml()
    monitor = NvmlMonitor("MIG-1", nvml)
    first, second = monitor.facts(), monitor.facts()
    assert (first, first["mig_slice"], first["ecc_corrected"], nvml.opened) == (second, True, 5, 1)


def test_without_nvml_nothing_is_known_and_nothing_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    """Not installed, or no such card: a fact each."""
    monkeypatch.setitem(sys.modules, "pynvml", None)
    unread = {"nvml": "unreadable: ModuleNotFoundError", "virtual_gpu": None}
    assert NvmlMonitor("GPU-1").facts() == unread
    assert NvmlMonitor("GPU-2", Nvml()).facts()["nvml"] == "unreadable: NvmlError"  # type: ignore[arg-type]
    assert NoMonitor().facts() == {"nvml": "absent", "virtual_gpu": None}


@pytest.mark.nvrtc
@pytest.mark.skipif(
    find_spec("pynvml") is None and "VRAM_TESTS_NEED_TOOLS" not in os.environ,
    reason="NVIDIA's binding of NVML is missing: `pip install --group kernels`",
)
def test_every_name_is_one_of_the_wheel() -> None:
    """Functions and constants; where there is no NVML to load, that is what it says."""
    import pynvml

    nvml: Any = Nvml()
    NvmlMonitor("MIG-1", nvml).facts()
    named = {name for name in vars(Nvml) if name.lower().startswith("nvml")} | nvml.asked
    assert [name for name in sorted(named) if not hasattr(pynvml, name)] == []
    assert len(nvml.asked) == 9
    constants = [name for name in named if name.startswith("NVML_")]
    assert {name: getattr(pynvml, name) for name in constants} == {
        name: getattr(Nvml, name) for name in constants
    }
    assert str(NvmlMonitor("GPU-1").facts()["nvml"]).startswith("unreadable: NVMLError")
