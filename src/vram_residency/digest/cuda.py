"""Digests and tags of memory on a device, computed there (spec: gpu.md). What launches the kernels is given.

The value of a group is the chaining value of its subtree in the shard's own BLAKE3 tree; the only group of a
small shard has the digest itself as its value.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from msgspec import Struct

from vram_residency.digest.launches import Plan, Span, plan_digest
from vram_residency.digest.runner import KernelRunner
from vram_residency.digest.tag import KEY_BYTES, SPREAD_KEY_BYTES, TagKey, wipe
from vram_residency.digest.value import VALUE_BYTES, Measurement


class TaggedMeasurement(Struct, frozen=True):
    """A measurement, and the tag's sums of the same loaded words."""

    measurement: Measurement
    sums: bytearray

    def __repr__(self) -> str:
        return f"TaggedMeasurement({self.measurement.digest})"


class DeviceKey:
    """A pass's key in the device's memory, in the two orders in which kernels read it."""

    def __init__(self, runner: KernelRunner, key: TagKey) -> None:
        self._runner = runner
        self._address = runner.reserve(KEY_BYTES + SPREAD_KEY_BYTES)
        try:
            self._write(0, key.universal())
            self._write(KEY_BYTES, key.spread())
        except BaseException:
            self.wipe()
            raise

    @property
    def plain(self) -> int:
        """The address of the key for the fast pass."""
        return self._address

    @property
    def spread(self) -> int:
        """The address of the key for the full pass."""
        return self._address + KEY_BYTES

    def wipe(self) -> None:
        """Wipe it and give its memory back. May be called again."""
        address, self._address = self._address, 0
        if address:
            self._runner.release(address)

    def _write(self, offset: int, secret: bytearray) -> None:
        self._runner.write(self._address + offset, secret)
        wipe(secret)


def measure(runner: KernelRunner, spans: Sequence[Span]) -> list[Measurement]:
    """Digest and group values of whole shards, all in the same launches. Raises InvalidInputError."""
    plan = plan_digest(spans)
    with _scratch(runner, plan) as base:
        for launch in plan.digest_launches(base):
            runner.launch(launch)
        return [_measurement(runner, plan, base, index) for index in range(len(spans))]


def measure_tagged(runner: KernelRunner, spans: Sequence[Span], key: DeviceKey) -> list[TaggedMeasurement]:
    """The full pass: digest, group values and the tag's sums, made of the same loaded words."""
    plan = plan_digest(spans)
    with _scratch(runner, plan) as base:
        for launch in plan.digest_launches(base, key.spread):
            runner.launch(launch)
        return [
            TaggedMeasurement(_measurement(runner, plan, base, index), _sums(runner, plan, base, index))
            for index in range(len(spans))
        ]


def fast_sums(runner: KernelRunner, spans: Sequence[Span], key: DeviceKey) -> list[bytearray]:
    """The fast pass: the tag's sums alone."""
    plan = plan_digest(spans)
    with _scratch(runner, plan) as base:
        runner.launch(plan.tag_launch(base, key.plain))
        return [_sums(runner, plan, base, index) for index in range(len(spans))]


def values_of(runner: KernelRunner, parts: Sequence[Span]) -> list[bytes]:
    """The values of the groups of each part, to compare with those kept: sampling, and placing of damage."""
    plan = plan_digest(parts)
    with _scratch(runner, plan) as base:
        runner.launch(plan.digest_launches(base)[0])
        return [_values(runner, plan, base, index) for index in range(len(parts))]


@contextmanager
def _scratch(runner: KernelRunner, plan: Plan) -> Iterator[int]:
    base = runner.reserve(plan.size_bytes)
    try:
        runner.write(base, plan.tables(base))
        yield base
    finally:
        runner.release(base)


def _measurement(runner: KernelRunner, plan: Plan, base: int, index: int) -> Measurement:
    digest = runner.read(base + plan.digest_offsets[index], VALUE_BYTES)
    return Measurement(f"blake3:{digest.hex()}", _values(runner, plan, base, index))


def _values(runner: KernelRunner, plan: Plan, base: int, index: int) -> bytes:
    offset, size_bytes = plan.values_range(index)
    return bytes(runner.read(base + offset, size_bytes))


def _sums(runner: KernelRunner, plan: Plan, base: int, index: int) -> bytearray:
    offset, size_bytes = plan.tags_range(index)
    return runner.read(base + offset, size_bytes)
