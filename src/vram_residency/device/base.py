"""The protocol of a device: memory that is allocated, filled once, made immutable, read, and freed.

The way of one shard: ``Device.allocate`` -> ``OpenMemory.fill`` -> ``OpenMemory.seal`` -> ``SealedMemory``.
No address ever leaves a device except as a memoryview (residency.md section 1).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, Protocol, runtime_checkable

from msgspec import Struct

#: Facts are read from a kernel or a driver; they can be written as JSON and hold no address.
Facts = dict[str, str | int | bool | None]
#: Called with (bytes done, bytes in all). What it raises cancels the work and undoes it.
Progress = Callable[[int, int], None]
#: Called with each run of bytes as it has arrived, see ``OpenMemory.fill``.
Observer = Callable[[memoryview], None]
#: Called once, with whether the memory was wiped.
OnFreed = Callable[[bool], None]

#: Runs handed to an observer are whole multiples of this, but for the last.
RUN_BYTES = 1 << 20


class DeviceInfo(Struct, frozen=True, kw_only=True):
    """Who the device is. ``boot_id`` changes with every boot of the machine, and seals end with it."""

    kind: Literal["host", "cuda"]
    index: int
    name: str
    uuid: str
    boot_id: str


class ResidencyFault(Struct, frozen=True):
    """Why memory is no longer what was sealed; ``finding`` is a sentence without addresses.

    ``tensors`` names those concerned, where they lie apart.
    """

    reason: Literal["not_resident", "read_error"]
    finding: str
    tensors: tuple[str, ...] = ()


@runtime_checkable
class ByteSource(Protocol):
    """Bytes of a known number that can be read from any offset.

    A source that also has ``read_into(offset, view)`` is read without a copy in between.
    """

    @property
    def size_bytes(self) -> int:
        """How many there are."""

    def read(self, offset: int, length: int, /) -> bytes:
        """Exactly ``length`` bytes from ``offset`` on; fewer mean that the source has shrunk."""


#: What memory can be filled from: a source, or any C-contiguous object with the buffer protocol.
Source = ByteSource | bytes | bytearray | memoryview


class SealedMemory(Protocol):
    """Immutable memory of the device. Safe to use from several threads."""

    @property
    def size_bytes(self) -> int:
        """Its length."""

    @property
    def path(self) -> str | None:
        """A path by which other code can open the very same memory, or None."""

    def descriptor(self) -> int:
        """A new read-only descriptor of the same memory, for another process; the caller closes it.

        Raises AllocationError, and InvalidInputError where this kind of memory has none.
        """

    def view(self) -> memoryview:
        """Read-only bytes of the whole mapping; an export for as long as it or a slice of it lives."""

    def facts(self) -> Facts:
        """What the kernel or the driver says of this memory now. Never raises."""

    def check(self) -> ResidencyFault | None:
        """Whether the mapping that is handed out is still the memory that was sealed."""

    def free(self) -> bool:
        """Give the memory back and say whether it was wiped. May be called again.

        Raises DeviceBusyError while views live; nothing has changed then.
        """

    def free_when_unused(self, on_freed: OnFreed) -> None:
        """Free now or, where views live, when the last of them dies; then call ``on_freed``.

        Never raises. Only the first of several requests counts, and none after ``free()``.
        ``on_freed`` may run inside a garbage collection, in any thread, with any lock held: it must take
        no lock and raise nothing. Appending to a ``collections.deque`` is fine.
        """


class OpenMemory(Protocol):
    """Memory that is being filled. Used by one thread."""

    @property
    def size_bytes(self) -> int:
        """Its length."""

    def fill(
        self, source: Source, *, on_progress: Progress | None = None, observer: Observer | None = None
    ) -> None:
        """Copy all of ``source`` into the memory, which must have the same size.

        ``observer`` gets every byte once, in order, in runs of a multiple of RUN_BYTES (but for the last),
        each a read-only view and valid during the call: on the host of the final mapping, on cuda of what is
        copied there. On the host it runs in another thread while later bytes are still being copied.

        Whatever is raised (by the source, by ``on_progress``, by ``observer``), the memory is discarded
        first. Raises MalformedModelError where the source shrinks, AllocationError where memory runs out,
        InvalidInputError where the sizes differ.
        """

    def seal(self) -> SealedMemory:
        """Make the memory immutable, for good. Raises AllocationError; the memory is discarded then."""

    def discard(self) -> None:
        """Give the memory back. May be called again, and does nothing once the memory is sealed."""


class Device(Protocol):
    """A place with a fixed amount of memory. Safe to use from several threads.

    It does not count what it has given out: the budget of the manager does (residency.md section 1).
    """

    @property
    def info(self) -> DeviceInfo:
        """Who it is."""

    @property
    def total_bytes(self) -> int:
        """How much memory it offers in all."""

    @property
    def headroom_bytes(self) -> int:
        """How much of that stays free by default."""

    def facts(self) -> Facts:
        """What the kernel or the driver says of the device now."""

    def footprint_bytes(self, size_bytes: int) -> int:
        """How much memory a shard of that size really takes here."""

    def allocate(self, size_bytes: int, *, label: str) -> OpenMemory:
        """Memory for one shard. ``label`` names it in errors.

        Raises AllocationError, InvalidInputError for no bytes, DeviceLostError once closed.
        """

    def borrow(self, descriptor: int, *, size_bytes: int, label: str) -> SealedMemory:
        """Map memory that another process sealed; ``descriptor`` stays the caller's.

        Raises InvalidInputError where it is not sealed memory of that size, AllocationError.
        """

    def close(self) -> None:
        """End the device's own resources; sealed memory that is still held stays. May be called again."""
