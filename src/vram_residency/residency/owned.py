"""Content that lies in host memory of the device's own: one read-only mapping."""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar

from vram_residency.device.base import Facts, OnFreed, Progress, ResidencyFault, SealedMemory
from vram_residency.digest import groups, host
from vram_residency.digest.groups import GroupCollector
from vram_residency.digest.value import Algorithm, Measurement
from vram_residency.formats import Layout, MemorySource, TensorSpec, parse
from vram_residency.residency.content import Part, SealedContent
from vram_residency.residency.order import Order
from vram_residency.seal.statement import Access


class OwnedContent(SealedContent):
    """Sealed memory. The digest always goes through the mapping that is handed out.

    ``collector`` took the group values from that mapping while later bytes were still being copied.
    """

    access: ClassVar[Access] = "read_only"

    def __init__(
        self, memory: SealedMemory, *, algorithm: Algorithm, collector: GroupCollector | None = None
    ) -> None:
        self._memory = memory
        self._algorithm = algorithm
        self._collector = collector
        self.size_bytes = self.charged_bytes = memory.size_bytes

    @property
    def path(self) -> str | None:
        # Asked for by who publishes it: from then on the descriptor's number stays occupied for good.
        return self._memory.path

    def descriptor(self) -> int:
        return self._memory.descriptor()

    def parts(self) -> Iterator[Part]:
        with self._memory.view() as view:
            yield Part(0, view)

    def measure(self, on_progress: Progress | None = None) -> Measurement:
        collector, self._collector = self._collector, None
        digest = self.digest(on_progress)
        if collector is not None:
            return Measurement(digest, collector.group_values())
        with self._memory.view() as view:
            return Measurement(digest, groups.group_values(view))

    def digest(self, on_progress: Progress | None = None) -> str:
        with self._memory.view() as view:
            return host.digest(view, self._algorithm, on_progress)

    def digest_by(self, algorithm: Algorithm) -> str:
        with self._memory.view() as view:
            return host.digest(view, algorithm)

    def parse(self, order: Order) -> Layout:
        with MemorySource(self._memory.view()) as source:
            return parse(source, name=order.name, format=order.format)

    def facts(self) -> Facts:
        return self._memory.facts()

    def misplaced(self) -> ResidencyFault | None:
        return self._memory.check()

    def view_of(self, spec: TensorSpec) -> memoryview:
        return self._memory.view()[spec.start : spec.end]

    def free(self) -> bool:
        return self._memory.free()

    def free_when_unused(self, on_freed: OnFreed) -> None:
        self._memory.free_when_unused(on_freed)
