"""Loading: bytes that somebody offers, brought into immutable memory of the device, or nothing at all."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

from vram_residency.core.clock import Clock
from vram_residency.core.errors import (
    AllocationError,
    DeviceLostError,
    InsufficientMemoryError,
    RetriableError,
)
from vram_residency.device.base import Device, OpenMemory, SealedMemory
from vram_residency.formats import ByteSource, FileSource
from vram_residency.residency.budget import Budget
from vram_residency.residency.content import Ended, SealedContent
from vram_residency.residency.contents import Contents
from vram_residency.residency.order import Order
from vram_residency.residency.recorder import Recorder


class Loader:
    """Reserves, allocates, fills and makes immutable; every effect is put on the caller's undo stack."""

    def __init__(self, device: Device, budget: Budget, recorder: Recorder, clock: Clock) -> None:
        self._device = device
        self._contents = Contents(device)
        self._budget = budget
        self._recorder = recorder
        self._clock = clock

    def load(self, source: ByteSource, order: Order, shard_id: str, undo: ExitStack) -> SealedContent:
        """Sealed memory that holds all of ``source``.

        On the host group values are taken from the final mapping while later bytes are still being copied;
        the digest, which decides, is taken by the caller after the memory has become immutable.
        Raises MalformedModelError where the source changes, InsufficientMemoryError, AllocationError,
        ConfigurationError where the device lacks what it is measured with.
        """
        collector = self._contents.new_collector()
        memory = self._allocate(source.size_bytes, shard_id, undo)
        with self.recording_driver_errors(source.size_bytes):
            memory.fill(source, on_progress=order.on_progress, observer=collector)
        if isinstance(source, FileSource):
            source.require_unchanged()
        with self.recording_driver_errors(source.size_bytes), system_errors_named():
            sealed = memory.seal()
        # Whatever an error's traceback still looks at, the undoing goes on.
        undo.callback(sealed.free_when_unused, lambda _wiped: None)
        content = self._contents.owned(sealed, order.algorithm, collector)
        content.charged_bytes = self._device.footprint_bytes(source.size_bytes)
        return content

    def borrowed(self, memory: SealedMemory, ended: Ended, order: Order) -> SealedContent:
        """Memory on loan: it takes nothing of the budget."""
        content = self._contents.owned(memory, order.algorithm)
        content.charged_bytes, content.ended = 0, ended
        return content

    @contextmanager
    def recording_driver_errors(self, size_bytes: int) -> Iterator[None]:
        """Record where the device fails a seal under way."""
        try:
            yield
        except (RetriableError, DeviceLostError):
            self._tell_driver_error(size_bytes)
            raise

    def _allocate(self, size_bytes: int, shard_id: str, undo: ExitStack) -> OpenMemory:
        started_ns, taken_bytes = self._clock.monotonic_ns(), self._device.footprint_bytes(size_bytes)
        try:
            self._budget.reserve(taken_bytes)
        except InsufficientMemoryError as error:
            self._recorder.allocation_failed(size_bytes, error.available_bytes, "insufficient_vram")
            raise
        try:
            with system_errors_named():
                memory = self._device.allocate(size_bytes, label=shard_id)
        except BaseException as error:
            self._budget.release(taken_bytes)
            if isinstance(error, Exception):
                self._tell_driver_error(size_bytes)
            raise
        # Undone from the last to the first, so that the event tells the figures after the release.
        undo.callback(self._tell_released, shard_id, taken_bytes)
        undo.callback(self._budget.release, taken_bytes)
        undo.callback(memory.discard)
        duration_ms = (self._clock.monotonic_ns() - started_ns) / 1e6
        self._recorder.allocated(size_bytes, taken_bytes, self._budget.capacity(), duration_ms)
        return memory

    def _tell_driver_error(self, size_bytes: int) -> None:
        available_bytes = self._budget.capacity().available_bytes
        self._recorder.allocation_failed(size_bytes, available_bytes, "driver_error")

    def _tell_released(self, shard_id: str, size_bytes: int) -> None:
        self._recorder.deallocated(shard_id, size_bytes, self._budget.capacity(), wiped=False)


@contextmanager
def system_errors_named() -> Iterator[None]:
    """Make the one kind of error that callers know of what the system says against the use of memory."""
    try:
        yield
    except OSError as error:
        raise AllocationError("use device memory", error.strerror or "refused") from error
