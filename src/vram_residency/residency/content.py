"""The bytes of one shard, wherever they lie: how they are measured and how damage in them is placed.

Owned memory is one part; adopted tensors are one part each. Group values (residency.md section 3) are kept
part after part, so that placing damage and sampling are the same for both.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from typing import ClassVar, NamedTuple

from vram_residency.core.errors import InvalidInputError
from vram_residency.device.base import Facts, OnFreed, Progress, ResidencyFault
from vram_residency.digest import groups
from vram_residency.digest.passes import Verdict
from vram_residency.digest.value import GROUP_BYTES, Algorithm, Measurement
from vram_residency.formats.layout import Layout, TensorSpec
from vram_residency.residency.order import Order
from vram_residency.residency.views import TensorView
from vram_residency.seal.statement import Access

_VALUE_BYTES = 32

#: Says why a loan has ended, or None while it lasts.
Ended = Callable[[], str | None]


class Part(NamedTuple):
    """A run of the shard's bytes that lies in one piece: ``start`` is its offset in the shard."""

    start: int
    view: memoryview


class Content(ABC):
    """What a record measures, now and at every verification."""

    access: ClassVar[Access]
    size_bytes: int
    #: What it takes of the device's budget: nothing, where somebody else allocated it.
    charged_bytes: int = 0
    #: Of memory on loan: it ends to be resident when the loan does.
    ended: Ended | None = None

    @property
    def path(self) -> str | None:
        """Where other code can open the very same memory, or None."""
        return None

    def descriptor(self) -> int:
        """A read-only descriptor of this memory for another process; the caller closes it.

        Raises InvalidInputError where there is none to give.
        """
        hint = "Share a shard that was sealed from a file."
        raise InvalidInputError("shard", "is adopted memory, which cannot be shared", hint=hint)

    @abstractmethod
    def measure(self, on_progress: Progress | None = None) -> Measurement:
        """Digest and group values of the bytes as they are now."""

    def full_pass(self, seal_id: str, expected: str) -> str:  # noqa: ARG002 - what a later fast pass needs
        """The digest of all bytes as they are now; where it is ``expected``, fast passes may follow."""
        return self.digest()

    def fast_pass(self, seal_id: str) -> Verdict:  # noqa: ARG002
        """Compare all bytes with the last full pass; ``unknown`` where none can be had or there was none."""
        return "unknown"

    @abstractmethod
    def parts(self) -> Iterator[Part]:
        """The shard's bytes in order, each part resolved again and live only while it is looked at."""

    @abstractmethod
    def digest(self, on_progress: Progress | None = None) -> str:
        """The digest of the bytes as they are now, in the algorithm of the seal."""

    @abstractmethod
    def digest_by(self, algorithm: Algorithm) -> str:
        """The digest in another algorithm than the seal's, for a comparison with what a publisher says."""

    @abstractmethod
    def facts(self) -> Facts:
        """What the kernel or the driver says of this memory now."""

    def fault(self) -> ResidencyFault | None:
        """What is wrong with where the bytes lie, if anything is; the end of a loan comes first."""
        why = self.ended() if self.ended is not None else None
        return self.misplaced() if why is None else ResidencyFault("not_resident", why)

    @abstractmethod
    def misplaced(self) -> ResidencyFault | None:
        """What the kernel or the driver says is wrong with where the bytes lie."""

    @abstractmethod
    def view_of(self, spec: TensorSpec) -> memoryview:
        """Read-only bytes of one tensor. Raises ConfigurationError where the machine cannot read them."""

    def tensor_of(self, spec: TensorSpec, require_open: Callable[[], None]) -> TensorView:
        """One tensor, looked at only after ``require_open`` has raised nothing."""

        def read() -> memoryview:
            require_open()
            return self.view_of(spec)

        return TensorView(spec, read)

    @abstractmethod
    def free(self) -> bool:
        """Give the memory back and say whether it was wiped. Raises DeviceBusyError while views live."""

    @abstractmethod
    def free_when_unused(self, on_freed: OnFreed) -> None:
        """Free now, or when the last view dies. Never raises."""

    def damage(self, group_values: bytes) -> list[tuple[int, int]]:
        """Byte ranges (end exclusive) of the groups that differ from ``group_values``."""
        ranges: list[tuple[int, int]] = []
        for part, values in self._with_values(group_values):
            found = groups.damaged_ranges(part.view, values)
            ranges += [(part.start + start, part.start + end) for start, end in found]
        return ranges

    def sampled_damage(
        self, group_values: bytes, indices: Sequence[int]
    ) -> tuple[list[tuple[int, int]], int]:
        """Ranges of the sampled groups that differ, and the number of bytes read.

        ``indices`` count groups over all parts, ascending.
        """
        ranges: list[tuple[int, int]] = []
        bytes_read, first = 0, 0
        for part, values in self._with_values(group_values):
            count = len(values) // _VALUE_BYTES
            local = [index - first for index in indices if first <= index < first + count]
            bytes_read += sum(_group_size(part.view, index) for index in local)
            for index in groups.bad_groups(part.view, values, local):
                start = part.start + index * GROUP_BYTES
                ranges.append((start, start + _group_size(part.view, index)))
            first += count
        return ranges, bytes_read

    def _with_values(self, group_values: bytes) -> Iterator[tuple[Part, bytes]]:
        position = 0
        for part in self.parts():
            size = _VALUE_BYTES * -(-part.view.nbytes // GROUP_BYTES)
            yield part, group_values[position : position + size]
            position += size


class SealedContent(Content):
    """Content in memory of the device, which says itself what it is."""

    @abstractmethod
    def parse(self, order: Order) -> Layout:
        """What the bytes say they are, read from the memory itself. Raises MalformedModelError."""


def _group_size(view: memoryview, index: int) -> int:
    return min(GROUP_BYTES, view.nbytes - index * GROUP_BYTES)


def merged(ranges: list[tuple[int, int]]) -> list[tuple[int, int]]:
    """Adjacent ranges made one."""
    result: list[tuple[int, int]] = []
    for start, end in sorted(ranges):
        if result and result[-1][1] == start:
            result[-1] = (result[-1][0], end)
        else:
            result.append((start, end))
    return result


def group_count(group_values: bytes) -> int:
    """How many groups a shard has."""
    return len(group_values) // _VALUE_BYTES
