"""What the driver says, made into the errors that callers know (residency.md section 7)."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from vram_residency.core.errors import (
    AllocationError,
    DeviceLostError,
    InsufficientMemoryError,
    ResidencyError,
)
from vram_residency.device.cuda.driver import Driver, DriverError

_OUT_OF_MEMORY = "CUDA_ERROR_OUT_OF_MEMORY"
_CREATE = "cuMemCreate"
_LOST_HINT = (
    "This process cannot use the GPU any more: end it, look for Xid lines in `dmesg`, start a new one."
)
_REFUSED_HINT = "Look at `nvidia-smi` for what else uses the device, then try again."


@contextmanager
def driver_errors(operation: str, driver: Driver, *, size_bytes: int = 0) -> Iterator[None]:
    """Translate what the driver raises inside the block, where ``size_bytes`` were asked for.

    Raises InsufficientMemoryError, AllocationError, DeviceLostError.
    """
    try:
        yield
    except DriverError as error:
        raise _translated(error, operation, driver, size_bytes) from error


@contextmanager
def device_required(driver: Driver) -> Iterator[None]:
    """What fails inside the block leaves no device to work with. Raises DeviceLostError."""
    try:
        yield
    except DriverError as error:
        raise DeviceLostError(f"cuda:{driver.ordinal}", str(error)) from error


def _translated(error: DriverError, operation: str, driver: Driver, size_bytes: int) -> ResidencyError:
    if error.is_lost:
        return DeviceLostError(f"cuda:{driver.ordinal}", f"{operation}: {error}", hint=_LOST_HINT)
    if (error.call, error.code) == (_CREATE, _OUT_OF_MEMORY):
        return InsufficientMemoryError(size_bytes, _free_bytes(driver))
    return AllocationError(operation, str(error), hint=_REFUSED_HINT)


def _free_bytes(driver: Driver) -> int:
    try:
        return driver.free_and_total_bytes()[0]
    except DriverError:
        return 0
