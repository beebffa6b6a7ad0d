"""How bytes come into memory: sources, progress, observers, and what happens when any of them fails."""

from __future__ import annotations

import errno
import gc
import os
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vram_residency.core.errors import AllocationError, InvalidInputError, MalformedModelError
from vram_residency.device import filling
from vram_residency.device.base import RUN_BYTES, OpenMemory
from vram_residency.device.host import HostDevice

MIB = 1 << 20


class PlainSource:
    """Bytes that can only be read."""

    path = "model.bin"

    def __init__(self, data: bytes, *, missing: int = 0) -> None:
        self.size_bytes = len(data)
        self._data = data[: len(data) - missing]

    def read(self, offset: int, length: int) -> bytes:
        return self._data[offset : offset + length]


class DirectSource(PlainSource):
    """Bytes that can be read into memory."""

    def read_into(self, offset: int, view: memoryview) -> None:
        view[:] = self._data[offset : offset + len(view)]


@pytest.fixture
def device() -> Iterator[HostDevice]:
    device = HostDevice(capacity_bytes=64 * MIB)
    yield device
    device.close()


def content(memory: OpenMemory) -> bytes:
    sealed = memory.seal()
    with sealed.view() as view:
        data = bytes(view)
    sealed.free()
    return data


def descriptor_count() -> int:
    return sum(1 for _ in Path("/proc/self/fd").iterdir())


@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview, PlainSource, DirectSource])
@pytest.mark.parametrize("size", [1, RUN_BYTES - 1, RUN_BYTES, RUN_BYTES + 1, 5 * RUN_BYTES + 3])
def test_every_kind_of_source_arrives_whole(device: HostDevice, kind: type, size: int) -> None:
    """At run edges and with a thread that watches or without."""
    data = os.urandom(size)
    memory = device.allocate(size, label="a")
    seen = bytearray()
    memory.fill(kind(data), observer=seen.extend)
    assert seen == data
    assert content(memory) == data


def test_wider_elements_are_taken_as_bytes(device: HostDevice) -> None:
    """The buffer protocol, in C order."""
    np = pytest.importorskip("numpy")
    array = np.arange(1000, dtype=np.float32).reshape(10, 100)
    memory = device.allocate(4000, label="a")
    memory.fill(array)
    assert content(memory) == array.tobytes()


def test_a_buffer_that_is_not_contiguous_is_refused(device: HostDevice) -> None:
    """Rather than read in another order."""
    with pytest.raises(InvalidInputError, match="contiguous in C order"):
        device.allocate(4, label="a").fill(memoryview(b"12345678")[::2])


@pytest.mark.parametrize("source", [3, "text", None])
def test_what_has_no_bytes_is_refused(device: HostDevice, source: object) -> None:
    """Neither a source nor a buffer."""
    with pytest.raises(InvalidInputError, match="source of bytes or offer the buffer protocol"):
        device.allocate(4, label="a").fill(source)  # type: ignore[arg-type]


@pytest.mark.parametrize("size", [3, 5, 0])
@pytest.mark.parametrize("kind", [bytes, PlainSource])
def test_another_size_is_refused(device: HostDevice, kind: type, size: int) -> None:
    """Nothing is padded, nothing is cut."""
    memory = device.allocate(4, label="a")
    with pytest.raises(InvalidInputError, match=f"has {size} bytes where 4 were allocated"):
        memory.fill(kind(bytes(size)))


def test_a_source_that_shrinks_is_malformed(device: HostDevice) -> None:
    """With the name and the offset where it ended; nothing stays behind."""
    before = descriptor_count()
    memory = device.allocate(3 * RUN_BYTES, label="a")
    with pytest.raises(MalformedModelError, match="changed while it was read") as caught:
        memory.fill(PlainSource(bytes(3 * RUN_BYTES), missing=RUN_BYTES + 5))
    assert (caught.value.path, caught.value.offset) == ("model.bin", 2 * RUN_BYTES - 5)
    assert descriptor_count() == before


def test_progress_goes_up_to_all(device: HostDevice) -> None:
    """In runs."""
    seen: list[tuple[int, int]] = []
    memory = device.allocate(2 * RUN_BYTES + 1, label="a")
    memory.fill(bytes(2 * RUN_BYTES + 1), on_progress=lambda done, total: seen.append((done, total)))
    total = 2 * RUN_BYTES + 1
    assert seen == [(RUN_BYTES, total), (2 * RUN_BYTES, total), (total, total)]
    memory.discard()


@pytest.mark.parametrize("size", [2 * RUN_BYTES, 9 * RUN_BYTES])
def test_progress_may_cancel_and_everything_is_undone(device: HostDevice, size: int) -> None:
    """Even by an interrupt, with an observer at work or without."""
    before = descriptor_count(), threading.active_count()

    def cancel(done: int, _total: int) -> None:
        if done >= 2 * RUN_BYTES:
            raise KeyboardInterrupt

    memory = device.allocate(size, label="a")
    with pytest.raises(KeyboardInterrupt):
        memory.fill(bytes(size), on_progress=cancel, observer=lambda _run: None)
    assert (descriptor_count(), threading.active_count()) == before


@pytest.mark.parametrize("size", [2 * RUN_BYTES, 9 * RUN_BYTES])
@pytest.mark.parametrize("failing_run", [0, 1])
def test_an_observer_s_error_comes_out_of_fill(device: HostDevice, size: int, failing_run: int) -> None:
    """Wherever it ran; everything is undone."""
    before = descriptor_count(), threading.active_count()
    shown = 0

    def observer(run: memoryview) -> None:
        nonlocal shown
        if shown == failing_run * RUN_BYTES:
            raise LookupError("seen enough")
        shown += len(run)

    memory = device.allocate(size, label="a")
    with pytest.raises(LookupError, match="seen enough"):
        memory.fill(bytes(size), observer=observer)
    assert (descriptor_count(), threading.active_count()) == before


def test_an_observer_sees_runs_of_whole_megabytes_but_for_the_last(device: HostDevice) -> None:
    """Read-only, through the mapping that will be handed out."""
    size = 9 * RUN_BYTES + 3
    lengths: list[int] = []
    writable: list[bool] = []

    def observer(run: memoryview) -> None:
        lengths.append(len(run))
        writable.append(not run.readonly)

    memory = device.allocate(size, label="a")
    memory.fill(bytes(size), observer=observer)
    memory.discard()
    assert sum(lengths) == size
    assert all(length % RUN_BYTES == 0 for length in lengths[:-1])
    assert not any(writable)


def test_no_room_is_an_allocation_error(device: HostDevice, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the kernel says while pages are being taken."""

    def full(_fd: int, _data: object, _offset: int) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    before = descriptor_count()
    memory = device.allocate(4, label="a")
    monkeypatch.setattr(os, "pwrite", full)
    with pytest.raises(AllocationError, match="write to a memfd: No space left on device"):
        memory.fill(b"1234")
    assert descriptor_count() == before


def test_short_writes_are_gone_on_with(device: HostDevice, monkeypatch: pytest.MonkeyPatch) -> None:
    """pwrite(2) may write less than it was asked to."""
    real = os.pwrite
    monkeypatch.setattr(os, "pwrite", lambda fd, data, offset: real(fd, data[:1000], offset))
    data = os.urandom(12_345)
    memory = device.allocate(len(data), label="a")
    memory.fill(data)
    assert content(memory) == data


def test_no_thread_to_watch_is_an_allocation_error(
    device: HostDevice, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The machine may refuse one."""

    class NoThread:
        def __init__(self, **_options: object) -> None:
            pass

        def start(self) -> None:
            raise RuntimeError("can't start new thread")

    monkeypatch.setattr(filling.threading, "Thread", NoThread)  # type: ignore[attr-defined]
    memory = device.allocate(9 * RUN_BYTES, label="a")
    with pytest.raises(AllocationError, match="start a thread: can't start new thread"):
        memory.fill(bytes(9 * RUN_BYTES), observer=lambda _run: None)


@given(data=st.binary(min_size=1, max_size=5000), run=st.integers(1, 700))
def test_runs_are_the_source_cut_up(data: bytes, run: int) -> None:
    """Whatever the size of a run, their concatenation is the source."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(filling, "RUN_BYTES", run)
        for source in (data, PlainSource(data), DirectSource(data)):
            parts = [bytes(part) for part in filling.runs(source, len(data))]
            assert b"".join(parts) == data
            assert {len(part) for part in parts[:-1]} <= {run}


def test_an_interrupt_that_still_holds_a_run_leaves_no_noise(monkeypatch: pytest.MonkeyPatch) -> None:
    """The traceback of what ends the filling may look at a run; giving the buffer back must wait for it."""
    raised: list[object] = []
    monkeypatch.setattr(sys, "unraisablehook", lambda hook: raised.append(hook.exc_value))
    coming = filling.runs(DirectSource(bytes(2 * RUN_BYTES)), 2 * RUN_BYTES)
    held = next(coming)[1:]
    del coming
    gc.collect()
    assert raised == []
    assert held.nbytes == RUN_BYTES - 1
