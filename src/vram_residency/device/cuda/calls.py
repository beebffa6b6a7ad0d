"""One call of the driver: in the device's context, its status looked at, its failure an error with a name."""

from __future__ import annotations

import contextlib
from types import ModuleType
from typing import Any, Final

from vram_residency.device.cuda.driver import DriverError

#: After these nothing works in this process any more (CUDA driver API, CUresult).
_STICKY: Final = frozenset(
    f"CUDA_ERROR_{name}"
    for name in (
        "ASSERT", "CONTAINED", "CONTEXT_IS_DESTROYED", "DEINITIALIZED", "DEVICE_UNAVAILABLE",
        "ECC_UNCORRECTABLE", "EXTERNAL_DEVICE", "HARDWARE_STACK_ERROR", "ILLEGAL_ADDRESS",
        "ILLEGAL_INSTRUCTION", "INVALID_ADDRESS_SPACE", "INVALID_PC", "LAUNCH_FAILED", "LAUNCH_TIMEOUT",
        "MISALIGNED_ADDRESS", "MPS_CLIENT_TERMINATED", "NVLINK_UNCORRECTABLE", "TENSOR_MEMORY_LEAK",
    )
)  # fmt: skip


class Calls:
    """The functions of `cuda.bindings.driver`, each of which answers its status first. Thread-safe."""

    def __init__(self, module: ModuleType, context: Any = None) -> None:
        self._module = module
        self._context = context

    def checked(self, name: str, *arguments: Any) -> Any:
        """What a call answers behind its status: nothing, one value, or several. Raises DriverError."""
        try:
            status, *answer = getattr(self._module, name)(*arguments)
        except (RuntimeError, OSError) as error:
            # The bindings find the driver's library, and each function in it, at its first use.
            raise DriverError(name, str(error).splitlines()[0] if str(error) else "not found") from error
        if int(status):
            code = getattr(status, "name", f"CUDA error {int(status)}")
            raise DriverError(name, code, is_lost=code in _STICKY)
        if not answer:
            return None
        return answer[0] if len(answer) == 1 else tuple(answer)

    def in_context(self, name: str, *arguments: Any) -> Any:
        """The same with the device's context current in this thread, and whatever was before afterwards."""
        self.checked("cuCtxPushCurrent", self._context)
        try:
            return self.checked(name, *arguments)
        finally:
            with contextlib.suppress(DriverError):
                self.checked("cuCtxPopCurrent")
