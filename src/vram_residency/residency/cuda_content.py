"""Content in a card's memory: measured there by kernels, never copied out but for headers (gpu.md)."""

from __future__ import annotations

import contextlib
import secrets
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import ClassVar

from vram_residency.core.errors import ConfigurationError, ResidencyError
from vram_residency.device.base import Facts, OnFreed, Progress, ResidencyFault
from vram_residency.device.cuda.memory import CudaSealedMemory, DeviceBytes
from vram_residency.digest import cuda
from vram_residency.digest.hashing import new_hasher
from vram_residency.digest.kernels import Kernels
from vram_residency.digest.launches import Span
from vram_residency.digest.passes import FullPass, Verdict
from vram_residency.digest.tag import SEED_BYTES, TagKey, taken
from vram_residency.digest.value import GROUP_BYTES, VALUE_BYTES, Algorithm, Measurement, group_count
from vram_residency.formats import Layout, TensorSpec, parse
from vram_residency.residency.content import Part, SealedContent
from vram_residency.residency.device_view import DeviceTensorView
from vram_residency.residency.order import Order
from vram_residency.residency.views import TensorView
from vram_residency.seal.statement import Access

#: Host memory through which bytes are read back.
_PIECE_BYTES = 8 << 20


class CudaContent(SealedContent):
    """Sealed device memory. Its last full pass, if it ended well, is what fast passes are compared with."""

    access: ClassVar[Access] = "read_only"

    def __init__(self, memory: CudaSealedMemory, kernels: Kernels, *, algorithm: Algorithm) -> None:
        self._memory = memory
        self._kernels = kernels
        self._algorithm = algorithm
        self._pass: FullPass | None = None  # under the kernels' lock
        self.size_bytes = self.charged_bytes = memory.size_bytes

    def descriptor(self) -> int:
        return self._memory.descriptor()

    def parts(self) -> Iterator[Part]:
        raise ConfigurationError("parts", "the bytes lie on the GPU")

    def measure(self, on_progress: Progress | None = None) -> Measurement:
        with self._kernels.runner() as runner, self._span() as span:
            (measured,) = cuda.measure(runner, [span])
        if self._algorithm == "blake3":
            return measured
        return Measurement(self._streamed(self._algorithm, on_progress), measured.group_values)

    def digest(self, on_progress: Progress | None = None) -> str:
        if self._algorithm != "blake3":
            return self._streamed(self._algorithm, on_progress)
        return self.measure().digest

    def digest_by(self, algorithm: Algorithm) -> str:
        """Of the memory as it is, also where that means to read all of it back."""
        if algorithm != "blake3":
            return self._streamed(algorithm)
        with self._kernels.runner() as runner, self._span() as span:
            return cuda.measure(runner, [span])[0].digest

    def full_pass(self, seal_id: str, expected: str) -> str:
        """BLAKE3 and, of the same loaded words, the tag that fast passes are compared with.

        1. A key of its own, of fresh randomness, on the device for as long as the pass counts.
        2. Digest and tag in the same launches.
        3. The tag counts if the digest is the seal's; an earlier pass ends either way.
        """
        if self._algorithm != "blake3":
            return self.digest()
        with self._kernels.runner() as runner, self._span() as span:
            # 1
            key = TagKey.derive(taken(secrets.token_bytes(SEED_BYTES)))
            try:
                device_key = cuda.DeviceKey(runner, key)
            except BaseException:
                key.wipe()
                raise
            new = FullPass(self._kernels.next_pass(), key, _never_raising(device_key.wipe))
            # 2
            try:
                (tagged,) = cuda.measure_tagged(runner, [span], device_key)
            except BaseException:
                new.end()
                raise
            # 3
            digest = tagged.measurement.digest
            new.admit(
                seal_id, size_bytes=self.size_bytes, sums=tagged.sums, is_digest_right=digest == expected
            )
            self._end_pass()
            self._pass, self._pass_key = new, device_key
            return digest

    def fast_pass(self, seal_id: str) -> Verdict:
        with self._kernels.runner() as runner, self._span() as span:
            if self._pass is None or self._pass.is_over:
                return "unknown"
            (sums,) = cuda.fast_sums(runner, [span], self._pass_key)
            return self._pass.check(seal_id, size_bytes=self.size_bytes, sums=sums)

    def damage(self, group_values: bytes) -> list[tuple[int, int]]:
        return self.sampled_damage(group_values, range(group_count(self.size_bytes)))[0]

    def sampled_damage(
        self, group_values: bytes, indices: Sequence[int]
    ) -> tuple[list[tuple[int, int]], int]:
        with self._kernels.runner() as runner, self._span() as whole:
            parts = [_part(whole, run) for run in _runs(indices)]
            found = b"".join(cuda.values_of(runner, parts)) if parts else b""
        ranges: list[tuple[int, int]] = []
        for position, index in enumerate(indices):
            if _value(found, position) != _value(group_values, index):
                start = index * GROUP_BYTES
                ranges.append((start, min(start + GROUP_BYTES, self.size_bytes)))
        return ranges, sum(part.size_bytes for part in parts)

    def parse(self, order: Order) -> Layout:
        return parse(_DeviceSource(self._memory), name=order.name, format=order.format)

    def facts(self) -> Facts:
        return self._memory.facts()

    def misplaced(self) -> ResidencyFault | None:
        return self._memory.check()

    def view_of(self, spec: TensorSpec) -> memoryview:
        raise ConfigurationError(
            "view",
            f"the bytes of {spec.name!r} lie on the GPU, where the machine cannot read them",
            hint="Take views[name], or views.raw for all of them: .torch(), .cupy() or __dlpack__.",
        )

    def tensor_of(self, spec: TensorSpec, require_open: Callable[[], None]) -> TensorView:
        def open_bytes() -> DeviceBytes:
            require_open()
            return self._memory.open(spec.start, spec.end)

        return DeviceTensorView(spec, open_bytes)

    def free(self) -> bool:
        is_wiped = self._memory.free()
        self._end_pass()
        return is_wiped

    def free_when_unused(self, on_freed: OnFreed) -> None:
        self._memory.free_when_unused(on_freed)
        with contextlib.suppress(ResidencyError):
            self._end_pass()

    @contextmanager
    def _span(self) -> Iterator[Span]:
        """Where the bytes lie, kept there while the block lasts."""
        export = self._memory.open()
        yield Span(export.address, self.size_bytes)
        del export

    def _end_pass(self) -> None:
        if self._pass is not None:
            with self._kernels.runner():
                self._pass.end()

    def _streamed(self, algorithm: Algorithm, on_progress: Progress | None = None) -> str:
        """A digest that no kernel makes: the memory is read back, piece after piece."""
        hasher = new_hasher(algorithm)
        buffer = memoryview(bytearray(min(_PIECE_BYTES, self.size_bytes)))
        for start in range(0, self.size_bytes, _PIECE_BYTES):
            piece = buffer[: min(_PIECE_BYTES, self.size_bytes - start)]
            self._memory.read_into(start, piece)
            hasher.update(piece)
            if on_progress is not None:
                on_progress(start + piece.nbytes, self.size_bytes)
        return f"{algorithm}:{hasher.hexdigest()}"


class _DeviceSource:
    """A ByteSource over device memory: what a parser asks for is copied out, and nothing else."""

    def __init__(self, memory: CudaSealedMemory) -> None:
        self._memory = memory
        self.size_bytes = memory.size_bytes

    def read(self, offset: int, length: int) -> bytes:
        data = bytearray(length)
        self._memory.read_into(offset, memoryview(data))
        return bytes(data)

    def read_into(self, offset: int, view: memoryview) -> None:
        self._memory.read_into(offset, view)


def _runs(indices: Sequence[int]) -> Iterator[tuple[int, int]]:
    """Ascending indices as runs of neighbours: first, and end exclusive."""
    first = end = -1
    for index in indices:
        if index != end:
            if end > first:
                yield first, end
            first = index
        end = index + 1
    if end > first:
        yield first, end


def _part(whole: Span, run: tuple[int, int]) -> Span:
    if group_count(whole.size_bytes) == 1:
        return whole
    start, end = run[0] * GROUP_BYTES, min(run[1] * GROUP_BYTES, whole.size_bytes)
    return Span(whole.address + start, end - start, first_group=run[0], is_whole=False)


def _value(values: bytes, index: int) -> bytes:
    return values[index * VALUE_BYTES : (index + 1) * VALUE_BYTES]


def _never_raising(step: Callable[[], None]) -> Callable[[], None]:
    """What ends a pass must not hide why it ended; a lost device has lost the key as well."""

    def quiet() -> None:
        with contextlib.suppress(ResidencyError):
            step()

    return quiet
