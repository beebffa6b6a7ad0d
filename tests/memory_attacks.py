"""What code of the same process can try on sealed memory. Each attack runs in a process of its own.

``python -m tests.memory_attacks NAME`` seals a little memory, attacks it, and prints as JSON what was raised,
whether the bytes are still the same, and what the device's check says.
"""

from __future__ import annotations

import ctypes
import fcntl
import json
import mmap
import os
import sys
from collections.abc import Callable
from pathlib import Path

from vram_residency.device import kernel
from vram_residency.device.base import SealedMemory
from vram_residency.device.host import HostDevice

PAGE = mmap.PAGESIZE
# Eight pages can be locked under any limit in use.
SIZE = 8 * PAGE
DATA = bytes(range(256)) * (SIZE // 256)

MAP_FIXED, MAP_SHARED, MAP_PRIVATE, MAP_ANONYMOUS = 0x10, 0x01, 0x02, 0x20
READ, WRITE = mmap.PROT_READ, mmap.PROT_WRITE

LIBC = ctypes.CDLL(None, use_errno=True)
LIBC.mmap.restype = ctypes.c_void_p
LIBC.mmap.argtypes = (ctypes.c_void_p, ctypes.c_size_t, *[ctypes.c_int] * 3, ctypes.c_long)
LIBC.mremap.restype = ctypes.c_void_p


def call(name: str, *arguments: int) -> None:
    """Call the C library; raise OSError where it fails."""
    result = getattr(LIBC, name)(*[ctypes.c_size_t(value) for value in arguments])
    if result in (-1, ctypes.c_size_t(-1).value):
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))


def address_of(memory: SealedMemory) -> int:
    with memory.view() as view:
        return kernel.address_of(view)


def path_of(memory: SealedMemory) -> str:
    assert memory.path is not None
    return memory.path


# Writes: each must fail, or leave the bytes as they are.


def write_through_the_path(memory: SealedMemory) -> None:
    fd = os.open(path_of(memory), os.O_RDWR)
    os.pwrite(fd, b"!", 0)


def write_after_chmod(memory: SealedMemory) -> None:
    Path(path_of(memory)).chmod(0o777)
    write_through_the_path(memory)


def map_the_path_writable(memory: SealedMemory) -> None:
    fd = os.open(path_of(memory), os.O_RDWR)
    mmap.mmap(fd, SIZE, flags=MAP_SHARED, prot=READ | WRITE)[0] = 33


def map_the_path_privately(memory: SealedMemory) -> None:
    fd = os.open(path_of(memory), os.O_RDWR)
    mmap.mmap(fd, SIZE, flags=MAP_PRIVATE, prot=READ | WRITE)[0] = 33


def write_to_the_descriptor(memory: SealedMemory) -> None:
    os.pwrite(descriptor_of(memory), b"!", 0)


def copy_into_the_path(memory: SealedMemory) -> None:
    target = os.open(path_of(memory), os.O_RDWR)
    source = os.open(__file__, os.O_RDONLY)
    os.sendfile(target, source, 0, 64)


def write_to_proc_self_mem(memory: SealedMemory) -> None:
    fd = os.open("/proc/self/mem", os.O_RDWR)
    os.pwrite(fd, b"!", address_of(memory))


def write_by_process_vm_writev(memory: SealedMemory) -> None:
    class Vector(ctypes.Structure):
        _fields_ = (("base", ctypes.c_void_p), ("length", ctypes.c_size_t))

    byte = ctypes.c_char(b"!")
    local = Vector(ctypes.addressof(byte), 1)
    remote = Vector(address_of(memory), 1)
    call("process_vm_writev", os.getpid(), ctypes.addressof(local), 1, ctypes.addressof(remote), 1, 0)


def write_to_the_view(memory: SealedMemory) -> None:
    memory.view()[0] = 33  # type: ignore[index]


def write_to_the_mapping_object(memory: SealedMemory) -> None:
    memory.view().obj[0] = 33  # type: ignore[index]


def resize_the_mapping_object(memory: SealedMemory) -> None:
    memory.view().obj.resize(PAGE)  # type: ignore[attr-defined]


def take_the_buffer_writable(memory: SealedMemory) -> None:
    (ctypes.c_char * SIZE).from_buffer(memory.view())


def write_through_numpy(memory: SealedMemory) -> None:
    import numpy as np

    np.frombuffer(memory.view(), dtype=np.uint8)[0] = 33


def make_numpy_writable(memory: SealedMemory) -> None:
    import numpy as np

    array = np.frombuffer(memory.view(), dtype=np.uint8)
    array.flags.writeable = True
    array[0] = 33


def make_the_mapping_writable(memory: SealedMemory) -> None:
    call("mprotect", address_of(memory), SIZE, READ | WRITE)


def store_to_the_address(memory: SealedMemory) -> None:
    ctypes.memset(address_of(memory), 33, 1)


def shrink(memory: SealedMemory) -> None:
    os.truncate(path_of(memory), 0)


def grow(memory: SealedMemory) -> None:
    os.truncate(path_of(memory), 2 * SIZE)


def punch_a_hole(memory: SealedMemory) -> None:
    fd = os.open(path_of(memory), os.O_RDWR)
    call("fallocate", fd, 0x01 | 0x02, 0, PAGE)


def allocate_beyond(memory: SealedMemory) -> None:
    os.posix_fallocate(os.open(path_of(memory), os.O_RDWR), 0, 2 * SIZE)


def drop_the_pages(memory: SealedMemory) -> None:
    call("madvise", address_of(memory), SIZE, 9)  # MADV_REMOVE


def change_the_seals(memory: SealedMemory) -> None:
    fd = os.open(path_of(memory), os.O_RDWR)
    fcntl.fcntl(fd, fcntl.F_ADD_SEALS, 0)


# Swaps: the bytes may look the same, and the check must tell.


def map_over(address: int, size: int, *, fd: int = -1, offset: int = 0) -> None:
    flags = MAP_FIXED | (MAP_SHARED if fd >= 0 else MAP_PRIVATE | MAP_ANONYMOUS)
    protection = READ if fd >= 0 else READ | WRITE
    if LIBC.mmap(address, size, protection, flags, fd, offset) != address:
        raise OSError(ctypes.get_errno(), "mmap")


def swap(memory: SealedMemory, offset: int, size: int) -> None:
    """Put a copy of the same bytes over a part of the mapping."""
    address = address_of(memory) + offset
    copy = ctypes.string_at(address, size)
    map_over(address, size)
    ctypes.memmove(address, copy, size)
    call("mprotect", address, size, READ)


def swap_all_for_the_same_bytes(memory: SealedMemory) -> None:
    swap(memory, 0, SIZE)


def swap_the_first_page(memory: SealedMemory) -> None:
    swap(memory, 0, PAGE)


def swap_a_middle_page(memory: SealedMemory) -> None:
    swap(memory, 3 * PAGE, PAGE)


def swap_the_last_page(memory: SealedMemory) -> None:
    swap(memory, SIZE - PAGE, PAGE)


def swap_for_another_memfd(memory: SealedMemory) -> None:
    fd = os.memfd_create("other")
    os.write(fd, DATA)
    map_over(address_of(memory), SIZE, fd=fd)


def swap_for_another_page_of_the_same_memfd(memory: SealedMemory) -> None:
    map_over(address_of(memory) + PAGE, PAGE, fd=os.open(path_of(memory), os.O_RDONLY), offset=2 * PAGE)


def swap_for_a_private_mapping_of_the_same_memfd(memory: SealedMemory) -> None:
    fd = os.open(path_of(memory), os.O_RDONLY)
    if LIBC.mmap(address_of(memory), SIZE, READ, MAP_FIXED | MAP_PRIVATE, fd, 0) != address_of(memory):
        raise OSError(ctypes.get_errno(), "mmap")


def unmap_a_page(memory: SealedMemory) -> None:
    call("munmap", address_of(memory) + PAGE, PAGE)


def unmap_the_last_page(memory: SealedMemory) -> None:
    call("munmap", address_of(memory) + SIZE - PAGE, PAGE)


def forbid_reading_a_page(memory: SealedMemory) -> None:
    call("mprotect", address_of(memory) + PAGE, PAGE, 0)


def unlock_everything(memory: SealedMemory) -> None:
    call("munlock", address_of(memory), SIZE)


def unlock_the_first_page(memory: SealedMemory) -> None:
    call("munlock", address_of(memory), PAGE)


def unlock_a_middle_page(memory: SealedMemory) -> None:
    call("munlock", address_of(memory) + 4 * PAGE, PAGE)


def unlock_the_last_page(memory: SealedMemory) -> None:
    call("munlock", address_of(memory) + SIZE - PAGE, PAGE)


def close_the_descriptor(memory: SealedMemory) -> None:
    os.close(descriptor_of(memory))


def put_another_file_under_the_path(memory: SealedMemory) -> None:
    os.dup2(os.open(__file__, os.O_RDONLY), descriptor_of(memory))


def put_another_memfd_under_the_path(memory: SealedMemory) -> None:
    fd = os.memfd_create("other", os.MFD_ALLOW_SEALING)
    os.write(fd, DATA)
    os.dup2(fd, descriptor_of(memory))


def descriptor_of(memory: SealedMemory) -> int:
    return int(path_of(memory).rpartition("/")[2])


def _named(*attacks: Callable[[SealedMemory], None]) -> dict[str, Callable[[SealedMemory], None]]:
    return {attack.__name__: attack for attack in attacks}


WRITES = _named(
    write_through_the_path,
    write_after_chmod,
    map_the_path_writable,
    map_the_path_privately,
    write_to_the_descriptor,
    copy_into_the_path,
    write_to_proc_self_mem,
    write_by_process_vm_writev,
    write_to_the_view,
    write_to_the_mapping_object,
    resize_the_mapping_object,
    take_the_buffer_writable,
    write_through_numpy,
    make_numpy_writable,
    make_the_mapping_writable,
    store_to_the_address,
    shrink,
    grow,
    punch_a_hole,
    allocate_beyond,
    drop_the_pages,
    change_the_seals,
)
SWAPS = _named(
    swap_all_for_the_same_bytes,
    swap_the_first_page,
    swap_a_middle_page,
    swap_the_last_page,
    swap_for_another_memfd,
    swap_for_another_page_of_the_same_memfd,
    swap_for_a_private_mapping_of_the_same_memfd,
    unmap_a_page,
    unmap_the_last_page,
    forbid_reading_a_page,
    unlock_everything,
    unlock_the_first_page,
    unlock_a_middle_page,
    unlock_the_last_page,
    close_the_descriptor,
    put_another_file_under_the_path,
    put_another_memfd_under_the_path,
)


def sealed_memory() -> SealedMemory:
    """Eight sealed pages of known bytes."""
    memory = HostDevice(capacity_bytes=SIZE).allocate(SIZE, label="target")
    memory.fill(DATA)
    return memory.seal()


def _content(memory: SealedMemory) -> bytes:
    fd = os.open(path_of(memory), os.O_RDONLY)
    return os.pread(fd, 2 * SIZE, 0)


def main(name: str) -> None:
    memory = sealed_memory()
    assert memory.check() is None
    raised = None
    try:
        (WRITES | SWAPS)[name](memory)
    except (OSError, TypeError, ValueError, BufferError, SystemError) as error:
        raised = type(error).__name__
    fault = memory.check()
    is_unchanged = name in SWAPS or (_content(memory) == DATA and bytes(memory.view()) == DATA)
    report = {"raised": raised, "unchanged": is_unchanged, "finding": fault and fault.finding}
    sys.stdout.write(json.dumps(report))


if __name__ == "__main__":
    main(sys.argv[1])
