"""The host device: one memfd per shard, filled, sealed by the kernel, mapped read-only, freed once."""

from __future__ import annotations

import contextlib
import gc
import json
import mmap
import os
import re
import resource
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.shards import memfds

from vram_residency.core.errors import (
    AllocationError,
    ConfigurationError,
    DeviceBusyError,
    DeviceLostError,
    InsufficientMemoryError,
    InvalidInputError,
    NotSealedError,
)
from vram_residency.device import kernel, memfd
from vram_residency.device.base import SealedMemory
from vram_residency.device.descriptors import Occupant
from vram_residency.device.host import HostDevice

MIB = 1 << 20
PAGE = mmap.PAGESIZE


@pytest.fixture
def device() -> Iterator[HostDevice]:
    device = HostDevice(capacity_bytes=64 * MIB)
    yield device
    device.close()


def sealed(device: HostDevice, data: bytes, label: str = "shard") -> SealedMemory:
    memory = device.allocate(len(data), label=label)
    memory.fill(data)
    return memory.seal()


def path_of(memory: SealedMemory) -> str:
    assert memory.path is not None
    return memory.path


def descriptor_of(memory: SealedMemory) -> int:
    return int(path_of(memory).rpartition("/")[2])


def descriptors() -> dict[int, str]:
    found = {}
    for path in Path("/proc/self/fd").iterdir():
        if path.is_symlink():
            found[int(path.name)] = str(path.readlink())
    return {number: target for number, target in found.items() if "/proc/" not in target}


def smaps_flags(memory: SealedMemory) -> set[str]:
    with memory.view() as view:
        address = kernel.address_of(view)
    text = Path("/proc/self/smaps").read_text()
    block = text[text.index(f"{address:x}-") :]
    found = re.search(r"VmFlags: (.*)", block)
    assert found is not None
    return set(found[1].split())


@pytest.mark.parametrize("size", [1, PAGE - 1, PAGE, PAGE + 1, 3 * MIB + 7])
def test_what_was_filled_is_what_the_view_and_the_path_show(device: HostDevice, size: int) -> None:
    """At any size, on a page edge or not."""
    data = os.urandom(size)
    memory = sealed(device, data)
    with memory.view() as view:
        assert bytes(view) == data
        assert view.readonly
    assert Path(path_of(memory)).read_bytes() == data
    assert memory.size_bytes == size
    assert memory.check() is None
    assert memory.free() is False


def test_the_facts_are_read_from_the_kernel(device: HostDevice) -> None:
    """Each of them, and no address among them."""
    memory = sealed(device, bytes(3 * PAGE))
    facts = memory.facts()
    status = os.stat(descriptor_of(memory))
    seals = str(facts.pop("seals")).split(",")
    assert set(seals) >= {"seal", "shrink", "grow", "write"}
    assert isinstance(facts.pop("locked"), bool)
    assert facts == {
        "kind": "memfd",
        "weaker": False,
        "device_uuid": device.info.uuid,
        "boot_id": device.info.boot_id,
        "inode": status.st_ino,
        "device_number": f"{os.major(status.st_dev):02x}:{os.minor(status.st_dev):02x}",
        "size_bytes": 3 * PAGE,
        "descriptor": "read_only",
        "mapping": "whole",
        "permissions": "r--s",
        "excluded_from_core_dumps": True,
    }
    with memory.view() as view:
        address = kernel.address_of(view)
    shown = json.dumps(memory.facts()) + repr(memory) + repr(device)
    assert f"{address:x}" not in shown
    assert str(address) not in shown


def test_the_lock_state_is_the_one_that_smaps_shows(device: HostDevice) -> None:
    """The cheap question and the exact list agree, locked and unlocked."""
    memory = sealed(device, bytes(4 * PAGE))
    assert memory.facts()["locked"] is ("lo" in smaps_flags(memory))
    unlocked = sealed(HostDevice(capacity_bytes=MIB, lock=False), bytes(4 * PAGE))
    assert unlocked.facts()["locked"] is False
    assert "lo" not in smaps_flags(unlocked)


def test_a_later_lock_is_a_change_too(device: HostDevice) -> None:
    """The lock state must be as at sealing, one way or the other."""
    memory = sealed(HostDevice(capacity_bytes=MIB, lock=False), bytes(PAGE))
    with memory.view() as view:
        kernel.lock(view.obj)  # type: ignore[arg-type]
    fault = memory.check()
    assert fault is not None
    assert "lock state" in fault.finding


def test_it_stays_out_of_core_dumps_and_cannot_become_writable(device: HostDevice) -> None:
    """VmFlags: dd (do not dump) is there, mw (may write) is not."""
    flags = smaps_flags(sealed(device, bytes(PAGE)))
    assert "dd" in flags
    assert "mw" not in flags


def test_an_unlocked_shard_says_so_where_the_limit_forbids_locking() -> None:
    """In a process without privileges and without a limit to lock under."""
    code = """
import ctypes, os, resource
from vram_residency.device.host import HostDevice
def sealed():
    memory = HostDevice(capacity_bytes=4096).allocate(4096, label="a")
    memory.fill(bytes(4096))
    return memory.seal()
sealed()  # imports everything while it can still be read
resource.setrlimit(resource.RLIMIT_MEMLOCK, (0, 0))
if os.getuid() == 0:
    os.setgid(65534); os.setuid(65534)
    ctypes.CDLL(None).prctl(4, 1)
memory = sealed()
print(memory.facts()["locked"], memory.check(), HostDevice(capacity_bytes=1).facts()["lock_limit_bytes"])
"""
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (result.stdout, result.stderr) == ("False None 0\n", "")


def test_no_child_inherits_the_descriptors(device: HostDevice) -> None:
    """Close-on-exec, while it is filled and after it was sealed and freed."""
    memory = device.allocate(PAGE, label="a")
    code = "import os; [print(os.readlink(f'/proc/self/fd/{n}')) for n in os.listdir('/proc/self/fd')[:-1]]"

    def inherited() -> str:
        command = [sys.executable, "-c", code]
        return subprocess.run(command, capture_output=True, text=True, close_fds=False, check=False).stdout

    assert "vram" in str(descriptors())
    assert "vram" not in inherited()
    memory.fill(bytes(PAGE))
    ready = memory.seal()
    assert ready.path is not None
    assert "vram" not in inherited()
    ready.free()
    assert "vram" not in inherited()


def test_a_forked_child_reads_but_has_no_lock() -> None:
    """mlock(2): locks are not inherited, and the child's check says that; the parent's still holds."""
    code = """
import os
from vram_residency.device.host import HostDevice
memory = HostDevice(capacity_bytes=4096).allocate(4096, label="a")
memory.fill(b"x" * 4096)
sealed = memory.seal()
was_locked = sealed.facts()["locked"]
if (pid := os.fork()) == 0:
    is_same = bytes(sealed.view()) == b"x" * 4096 and sealed.facts()["locked"] is False
    sealed_says = sealed.check()
    sealed.free()
    os._exit(0 if is_same and (sealed_says is not None) is was_locked else 1)
print(os.waitpid(pid, 0)[1], sealed.check(), bytes(sealed.view()[:1]))
"""
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (result.stdout, result.stderr) == ("0 None b'x'\n", "")


def test_freeing_waits_for_live_views(device: HostDevice) -> None:
    """A slice or an array over the memory is a view as well; nothing changes meanwhile."""
    np = pytest.importorskip("numpy")
    memory = sealed(device, b"abcd" * PAGE)
    view = memory.view()
    part = np.frombuffer(view[4:8], dtype=np.uint8)
    view.release()
    with pytest.raises(DeviceBusyError, match="shard 'shard' is in use: views of its memory are alive"):
        memory.free()
    assert memory.check() is None
    assert bytes(part) == b"abcd"
    del part
    assert memory.free() is False
    assert memory.free() is False


def test_freed_memory_says_so(device: HostDevice) -> None:
    """No view, a fault from the check, and facts that raise nothing."""
    memory = sealed(device, bytes(PAGE))
    memory.free()
    with pytest.raises(NotSealedError, match="shard 'shard' is freed"):
        memory.view()
    fault = memory.check()
    assert fault is not None
    assert fault.reason == "not_resident"
    assert memory.facts()["mapping"] == "freed"


def test_freeing_can_wait_for_the_last_view(device: HostDevice) -> None:
    """Called once, after the last view died; the bytes are there until then."""
    memory = sealed(device, b"abcd" * PAGE)
    fd = descriptor_of(memory)
    view = memory.view()
    part = view[4:8]
    freed: list[bool] = []
    memory.free_when_unused(freed.append)
    memory.free_when_unused(freed.append)
    with pytest.raises(NotSealedError, match="is freed"):
        memory.view()
    view.release()
    assert freed == []
    assert bytes(part) == b"abcd"
    assert os.fstat(fd).st_size == 4 * PAGE
    part.release()
    del view, part
    gc.collect()
    assert freed == [False]
    assert os.fstat(fd).st_size == 0


def test_freeing_later_is_freeing_now_without_views(device: HostDevice) -> None:
    """The callback comes at once, and only once however often it is freed."""
    memory = sealed(device, bytes(PAGE))
    freed: list[bool] = []
    memory.free_when_unused(freed.append)
    assert freed == [False]
    assert memory.free() is False


def test_nothing_is_raised_from_the_finaliser(device: HostDevice, monkeypatch: pytest.MonkeyPatch) -> None:
    """residency.md section 8; even where the callback is at fault."""
    raised: list[object] = []
    monkeypatch.setattr(sys, "unraisablehook", raised.append)
    memory = sealed(device, bytes(PAGE))
    view = memory.view()

    def fail(_wiped: bool) -> None:
        raise RuntimeError("no")

    memory.free_when_unused(fail)
    view.release()
    del view
    gc.collect()
    assert raised == []


def test_a_freed_descriptor_number_stays_occupied(device: HostDevice) -> None:
    """A stale path finds no bytes, and never another file; closing the device gives the number back."""
    memory = sealed(device, b"secret" * PAGE)
    path, fd = path_of(memory), descriptor_of(memory)
    memory.free()
    with Path("/dev/null").open("rb") as other:
        assert other.fileno() != fd
    assert Path(path).read_bytes() == b""
    with pytest.raises(PermissionError):
        os.pwrite(os.open(path, os.O_RDWR), b"x", 0)
    assert os.get_inheritable(fd) is False
    device.close()
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(fd)


def test_kept_numbers_never_use_up_what_the_process_may_open() -> None:
    """A worker that loads and frees models for months does not run out of descriptors."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    before = len(list(Path("/proc/self/fd").iterdir()))
    limit = before + 100
    resource.setrlimit(resource.RLIMIT_NOFILE, (limit, hard))
    device = HostDevice(capacity_bytes=64 * MIB)
    try:
        for _ in range(2 * limit):
            memory = sealed(device, b"x" * PAGE)
            path = path_of(memory)
            memory.free()
        assert Path(path).read_bytes() == b""
        assert len(list(Path("/proc/self/fd").iterdir())) <= before + limit // 2 + 2
    finally:
        device.close()
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_a_number_that_was_never_published_is_given_back(device: HostDevice) -> None:
    """Only a path that somebody may hold costs a descriptor for good."""
    before = descriptors()
    for _ in range(50):
        sealed(device, bytes(PAGE)).free()
    assert descriptors() == before


@pytest.mark.parametrize("size", [0, -1])
def test_nothing_is_no_shard(device: HostDevice, size: int) -> None:
    """An empty allocation is refused."""
    with pytest.raises(InvalidInputError, match="at least 1: there is nothing to seal"):
        device.allocate(size, label="a")


def test_more_than_the_device_has_is_refused(device: HostDevice) -> None:
    """Before any memory is taken."""
    with pytest.raises(InsufficientMemoryError) as caught:
        device.allocate(64 * MIB + 1, label="a")
    assert (caught.value.requested_bytes, caught.value.available_bytes) == (64 * MIB + 1, 64 * MIB)


def test_by_default_it_offers_half_of_what_is_available() -> None:
    """And says where the figure comes from."""
    device = HostDevice()
    assert device.facts()["capacity"] == "half_of_available"
    assert device.total_bytes > 0
    assert HostDevice(capacity_bytes=5).facts()["capacity"] == "configured"
    assert device.headroom_bytes == 0


def test_a_capacity_of_nothing_is_refused() -> None:
    """As a configuration."""
    with pytest.raises(ConfigurationError, match="must be at least 1, not 0"):
        HostDevice(capacity_bytes=0)


def test_a_closed_device_allocates_nothing_and_keeps_what_is_sealed(device: HostDevice) -> None:
    """Closing twice is closing once."""
    memory = sealed(device, bytes(PAGE))
    device.close()
    device.close()
    with pytest.raises(DeviceLostError, match="it was closed"):
        device.allocate(PAGE, label="a")
    assert memory.check() is None
    memory.free()


def test_memory_must_be_filled_before_it_is_sealed(device: HostDevice) -> None:
    """Zeros that nobody put there are not a model."""
    memory = device.allocate(PAGE, label="a")
    with pytest.raises(InvalidInputError, match="must be filled before"):
        memory.seal()
    memory.discard()


def test_discarded_memory_leaves_nothing_behind(device: HostDevice) -> None:
    """However often it is discarded, filled or not."""
    before = descriptors()
    memory = device.allocate(PAGE, label="a")
    memory.discard()
    memory.discard()
    filled = device.allocate(PAGE, label="a")
    filled.fill(bytes(PAGE))
    filled.discard()
    assert descriptors() == before


def test_discarding_sealed_memory_does_nothing(device: HostDevice) -> None:
    """The sealed memory has its own end."""
    memory = device.allocate(PAGE, label="a")
    memory.fill(bytes(PAGE))
    ready = memory.seal()
    memory.discard()
    assert ready.check() is None


def test_a_writable_mapping_of_somebody_stops_the_sealing(device: HostDevice) -> None:
    """The kernel says busy; the memory is discarded."""
    before = descriptors()
    memory = device.allocate(PAGE, label="busy")
    memory.fill(bytes(PAGE))
    fd = next(number for number, target in descriptors().items() if "vram:busy" in target)
    writable = os.open(f"/proc/self/fd/{fd}", os.O_RDWR)
    spy = mmap.mmap(writable, PAGE)
    os.close(writable)
    with pytest.raises(AllocationError, match="seal a memfd: Device or resource busy"):
        memory.seal()
    spy.close()
    assert descriptors() == before


@pytest.mark.parametrize("spare", [0, 1, 2])
def test_too_many_descriptors_is_an_allocation_error(device: HostDevice, spare: int) -> None:
    """Of the three that it takes, whichever is missing; what was opened until then is closed again."""
    before = descriptors()
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(before) + 8, limits[1]))
    taken: list[int] = []
    try:
        with contextlib.suppress(OSError):
            while True:
                taken.append(os.dup(0))
        for fd in taken[:spare]:
            os.close(fd)
        with pytest.raises(AllocationError, match="Too many open files"):
            device.allocate(PAGE, label="a")
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
        for fd in taken[spare:]:
            os.close(fd)
    assert descriptors() == before


@pytest.mark.parametrize("label", ["x" * 256, "ü\n\0/..", ""])
def test_any_label_will_do(device: HostDevice, label: str) -> None:
    """The kernel's name for the memory is cut and cleaned; a NUL is refused by nobody."""
    memory = device.allocate(PAGE, label=label)
    memory.discard()


def test_many_threads_seal_and_free(device: HostDevice) -> None:
    """Each finds its own bytes."""
    before = descriptors()
    wrong: list[object] = []

    def work(index: int) -> None:
        for round_number in range(10):
            data = bytes([index, round_number]) * PAGE
            memory = sealed(device, data, label=f"{index}-{round_number}")
            with memory.view() as view:
                if bytes(view) != data or memory.check() is not None:
                    wrong.append((index, round_number))
            memory.free()

    threads = [threading.Thread(target=work, args=(index,)) for index in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []
    assert descriptors() == before


def test_two_threads_may_free_at_the_same_time(device: HostDevice) -> None:
    """One of them does it, and no descriptor is closed twice."""
    for _ in range(30):
        memory = sealed(device, bytes(PAGE))
        gate = threading.Barrier(2)
        freed: list[bool] = []

        def work(
            memory: SealedMemory = memory, gate: threading.Barrier = gate, freed: list[bool] = freed
        ) -> None:
            gate.wait()
            freed.append(memory.free())

        threads = [threading.Thread(target=work) for _ in range(2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert freed == [False, False]


def test_the_noexec_flag_is_left_out_where_the_kernel_does_not_know_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Linux before 6.3 answers EINVAL."""
    real = os.memfd_create

    def old_kernel(name: str, flags: int) -> int:
        if flags & 0x8:
            raise OSError(22, "Invalid argument")
        return real(name, flags)

    monkeypatch.setattr(os, "memfd_create", old_kernel)
    fd = memfd.create("a", PAGE)
    assert os.fstat(fd).st_size == PAGE
    assert os.get_inheritable(fd) is False
    os.close(fd)


def test_a_number_retired_while_the_device_closes_is_given_back():
    """A shard may be freed late, by another thread, at the very moment when the device ends."""
    before = memfds()
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        for _ in range(200):
            occupant = Occupant()
            numbers = [memfd.create("late", 1) for _ in range(10)]
            retiring = threading.Thread(target=lambda: [occupant.retire(each) for each in numbers])  # noqa: B023
            retiring.start()
            occupant.close()
            retiring.join()
    finally:
        sys.setswitchinterval(interval)
    assert memfds() <= before
