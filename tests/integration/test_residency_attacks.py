"""Attacks on sealed memory from inside the same process: each fails, or is caught as not resident.

Each runs in a process of its own, for it damages the process that it runs in.
"""

from __future__ import annotations

import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

linux = pytest.mark.skipif(sys.platform != "linux", reason="the host device's promise is Linux's")

PRELUDE = """
import ctypes, mmap, os
from pathlib import Path
from tests.shards import TOKEN, model_bytes
from vram_residency import SealVerificationError, VramManager
from vram_residency.device.host import HostDevice
from vram_residency.device.kernel import address_of
from vram_residency.testing import MemoryLog

log = MemoryLog()
manager = VramManager.new_with_token(TOKEN, 0, log, device=HostDevice(capacity_bytes=1 << 24))
data = model_bytes(300_000, 100_000)
shard = manager.seal_model(data, format="safetensors")
libc = ctypes.CDLL(None, use_errno=True)
libc.mmap.restype = ctypes.c_void_p
libc.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t] + [ctypes.c_int] * 3 + [ctypes.c_long]
FIXED, PRIVATE, SHARED, ANONYMOUS, RW = 0x10, 2, 1, 0x20, 3

def address():
    with manager.execution(shard) as views:
        return address_of(views.whole)

def swap(size, flags, fd=-1, protection=RW, at=0):
    here = address() + at
    assert libc.mmap(here, size, protection, flags | FIXED, fd, 0) == here

def verdict(scope="full"):
    try:
        manager.verify_sealed(shard, scope=scope)
    except SealVerificationError as error:
        print(error.reason, manager.describe(shard).state, log.of_type("shard_quarantined")[0]["reason"])
    else:
        print("sound")
"""

SAME_BYTES = """
size = -(-len(data) // mmap.PAGESIZE) * mmap.PAGESIZE
copy = os.memfd_create("copy")
os.write(copy, data)
"""

SWAPS = {
    "anonymous memory": "swap(4096, PRIVATE | ANONYMOUS)",
    "one page in the middle": "swap(4096, PRIVATE | ANONYMOUS, at=8192)",
    "the same bytes from another file": SAME_BYTES + "swap(size, SHARED, copy, mmap.PROT_READ)",
    "a private copy of the very file": SAME_BYTES
    + "swap(size, PRIVATE, os.open(shard.path, os.O_RDONLY), mmap.PROT_READ)",
    "the file's pages in another order": SAME_BYTES
    + "fd = os.open(shard.path, os.O_RDONLY)\n"
    + "here = address()\n"
    + "assert libc.mmap(here, 4096, 1, SHARED | FIXED, fd, 4096) == here",
    "nothing at all": "libc.munmap(ctypes.c_void_p(address() + 4096), ctypes.c_size_t(4096))",
    "no right to read": "libc.mprotect(ctypes.c_void_p(address()), ctypes.c_size_t(4096), 0)",
}

REFUSALS = {
    "a writable mapping of its path": "mmap.mmap(os.open(shard.path, os.O_RDWR), 0)",
    "writing to its path": "os.write(os.open(shard.path, os.O_RDWR), b'x')",
    "writing past its end": "os.pwrite(os.open(shard.path, os.O_RDWR), b'x', len(data))",
    "writing through its descriptor": "os.write(int(Path(shard.path).name), b'x')",
    "truncating it": "os.truncate(shard.path, 0)",
    "punching a hole": "os.posix_fallocate(int(Path(shard.path).name), 0, 1 << 20)",
    "writing to /proc/self/mem": "os.pwrite(os.open('/proc/self/mem', os.O_RDWR), b'x', address())",
    "making the mapping writable": (
        "r = libc.mprotect(ctypes.c_void_p(address()), ctypes.c_size_t(4096), 3)\n"
        "assert r == -1; raise OSError(ctypes.get_errno(), 'refused')"
    ),
    "writing to a memoryview": "memoryview(views['t0'])[0] = 1",
    "writing to a numpy array": "views['t0'].numpy()[0] = 1",
    "casting a view": "memoryview(views['t0']).cast('B')[0] = 1",
    "the object behind a view": "memoryview(views['t0']).obj[0] = 1",
    "resizing the object behind a view": "memoryview(views['t0']).obj.resize(10)",
}


def run(body: str) -> list[str]:
    script = textwrap.dedent(PRELUDE) + body
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", script],
        capture_output=True,
        text=True,
        check=False,
        cwd=Path(__file__).parents[2],
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout.splitlines()


@linux
@pytest.mark.parametrize("swap", SWAPS)
def test_a_view_that_is_swapped_under_the_manager_is_caught(swap: str):
    # The process ends without cleaning up: its memory is no longer what it thinks.
    lines = run(SWAPS[swap] + "\nverdict()\nimport sys; sys.stdout.flush(); os._exit(0)")
    assert lines == ["not_resident quarantined not_resident"]


@linux
def test_the_gates_sample_notices_a_swap_as_well():
    lines = run(
        SWAPS["the same bytes from another file"]
        + "\nverdict('sample')\nimport sys; sys.stdout.flush(); os._exit(0)"
    )
    assert lines == ["not_resident quarantined not_resident"]


@linux
def test_every_ordinary_way_to_write_is_refused_and_changes_nothing():
    body = ["with manager.execution(shard) as views:"]
    for name, attack in REFUSALS.items():
        body += ["    try:"]
        body += [f"        {line}" for line in attack.split("\n")]
        body += ["    except (OSError, TypeError, ValueError, AttributeError):"]
        body += [f"        print({name!r}, 'refused')"]
        body += ["    else:", f"        print({name!r}, 'WRITTEN')"]
    lines = run("\n".join(body) + "\nverdict()\n")
    assert lines == [*(f"{name} refused" for name in REFUSALS), "sound"]


@linux
def test_other_libraries_run_from_the_sealed_pages():
    lines = run(
        "from safetensors import safe_open\n"
        "with safe_open(shard.path, framework='numpy') as file:\n"
        "    print(sorted(file.keys()), file.get_tensor('t1').tobytes() == data[-100_000:])\n"
        "del file\n"
        "verdict()\nmanager.close()\n"
    )
    assert lines == ["['t0', 't1'] True", "sound"]
