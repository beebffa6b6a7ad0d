"""What NVML says of a card: versions, counters, modes (gpu.md, "Residency facts"). Imported when first asked.

**Nothing here has been run on a GPU yet.** A machine without NVML is a fact, not a failure: what cannot
be read is None, and None passes no rule of the policy.
"""

from __future__ import annotations

from collections.abc import Callable
from types import ModuleType
from typing import Any, Final

from vram_residency.device.base import Facts

#: NVML_GPU_VIRTUALIZATION_MODE_*: whether somebody else may move the memory.
_VIRTUAL: Final = {0: False, 1: False, 2: True, 3: False, 4: False}
_ADDRESSING: Final = {0: "none", 1: "hmm", 2: "ats"}


class NvmlMonitor:
    """See ``device.cuda.device.Monitor``. ``module`` is `pynvml`, or one that has its functions."""

    def __init__(self, uuid: str, module: ModuleType | None = None) -> None:
        self._uuid = uuid
        self._module = module
        self._handle: Any = None

    def facts(self) -> Facts:
        """All that NVML knows of the card now. Never raises."""
        try:
            nvml, card = self._opened()
        except Exception as error:  # noqa: BLE001 - not installed, no driver, no such card: all are one fact
            return {"nvml": f"unreadable: {type(error).__name__}", "virtual_gpu": None}
        return {
            "nvml": "read",
            "mig_slice": self._uuid.startswith("MIG-"),
            **{name: _asked(ask, nvml, card) for name, ask in _QUESTIONS.items()},
        }

    def _opened(self) -> tuple[Any, Any]:
        if self._module is None:
            import pynvml

            self._module = pynvml
        if self._handle is None:
            self._module.nvmlInit()
            handle = self._module.nvmlDeviceGetHandleByUUID(self._uuid)
            # Counters and modes are those of the whole card.
            if self._uuid.startswith("MIG-"):
                handle = self._module.nvmlDeviceGetDeviceHandleFromMigDeviceHandle(handle)
            self._handle = handle
        return self._module, self._handle


def _asked(ask: Callable[[Any, Any], Any], nvml: Any, card: Any) -> str | int | bool | None:
    try:
        answer = ask(nvml, card)
    except Exception:  # noqa: BLE001 - "not supported" and its like: the question has no answer here
        return None
    if isinstance(answer, bytes):
        return answer.decode("utf-8", "replace")
    return answer if isinstance(answer, str | bool) or answer is None else int(answer)


def _ecc(nvml: Any, card: Any, kind: str) -> int:
    error = getattr(nvml, f"NVML_MEMORY_ERROR_TYPE_{kind}")
    return int(nvml.nvmlDeviceGetTotalEccErrors(card, error, nvml.NVML_AGGREGATE_ECC))


def _remapped(nvml: Any, card: Any, index: int) -> int:
    # Rows remapped for correctable and for uncorrectable errors, a remap pending, a remap that failed.
    return int(nvml.nvmlDeviceGetRemappedRows(card)[index])


_QUESTIONS: Final[dict[str, Callable[[Any, Any], Any]]] = {
    "driver_version": lambda nvml, _card: nvml.nvmlSystemGetDriverVersion(),
    "vbios_version": lambda nvml, card: nvml.nvmlDeviceGetVbiosVersion(card),
    "virtual_gpu": lambda nvml, card: _VIRTUAL[nvml.nvmlDeviceGetVirtualizationMode(card)],
    "addressing_mode": lambda nvml, card: _ADDRESSING.get(nvml.nvmlDeviceGetAddressingMode(card)),
    "ecc_corrected": lambda nvml, card: _ecc(nvml, card, "CORRECTED"),
    "ecc_uncorrected": lambda nvml, card: _ecc(nvml, card, "UNCORRECTED"),
    "remapped_rows_corrected": lambda nvml, card: _remapped(nvml, card, 0),
    "remapped_rows_uncorrected": lambda nvml, card: _remapped(nvml, card, 1),
    "remap_pending": lambda nvml, card: bool(_remapped(nvml, card, 2)),
    "remap_failed": lambda nvml, card: bool(_remapped(nvml, card, 3)),
    "bar1_total_bytes": lambda nvml, card: nvml.nvmlDeviceGetBAR1MemoryInfo(card).bar1Total,
    "bar1_used_bytes": lambda nvml, card: nvml.nvmlDeviceGetBAR1MemoryInfo(card).bar1Used,
    "compute_processes": lambda nvml, card: len(nvml.nvmlDeviceGetComputeRunningProcesses(card)),
    "confidential_computing": lambda nvml, _card: bool(nvml.nvmlSystemGetConfComputeState().ccFeature),
}
