"""The weaker memory of systems without memfd, forced here."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from vram_residency.core.errors import DeviceBusyError, InvalidInputError
from vram_residency.device import host, memfd, region
from vram_residency.device.host import HostDevice

MIB = 1 << 20


@pytest.fixture
def device() -> HostDevice:
    return HostDevice(capacity_bytes=64 * MIB, backing="anonymous")


@pytest.mark.parametrize("size", [1, 4096, 9 * MIB + 5])
def test_it_holds_what_was_filled_and_says_that_it_is_weaker(device: HostDevice, size: int) -> None:
    """There is no path and no seal of the kernel."""
    data = os.urandom(size)
    memory = device.allocate(size, label="a")
    seen = bytearray()
    memory.fill(data, observer=seen.extend)
    sealed = memory.seal()
    with sealed.view() as view:
        assert bytes(view) == data == seen
        assert view.readonly
    facts = sealed.facts()
    assert (facts["kind"], facts["weaker"], facts["seals"], facts["permissions"]) == (
        "anonymous",
        True,
        "",
        "r--s",
    )
    assert sealed.path is None
    assert sealed.check() is None
    assert sealed.free() is False
    assert sealed.check() is not None


def test_the_device_says_so_too(device: HostDevice) -> None:
    """For ``vram devices``."""
    assert (device.facts()["backing"], device.facts()["weaker"]) == ("anonymous", True)
    device.close()


def test_it_is_the_default_where_memfd_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    """As on macOS."""
    monkeypatch.setattr(host.memfd, "is_supported", lambda: False)
    assert HostDevice(capacity_bytes=1).backing == "anonymous"
    assert memfd.is_supported() is False


def test_without_proc_nothing_is_known_of_the_mapping(
    device: HostDevice, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """And the facts say that, rather than that all is well."""
    monkeypatch.setattr(region, "_MAPS", tmp_path / "missing")
    memory = device.allocate(4096, label="a")
    memory.fill(bytes(4096))
    sealed = memory.seal()
    assert (sealed.facts()["mapping"], sealed.facts()["permissions"]) == ("unreadable", None)
    assert sealed.check() is None


def test_freeing_waits_for_views(device: HostDevice) -> None:
    """As with a memfd."""
    memory = device.allocate(4096, label="a")
    memory.fill(bytes(4096))
    sealed = memory.seal()
    view = sealed.view()
    with pytest.raises(DeviceBusyError, match="views of its memory are alive"):
        sealed.free()
    freed: list[bool] = []
    sealed.free_when_unused(freed.append)
    view.release()
    del view
    assert freed == [False]


def test_it_is_filled_once_and_sealed_once(device: HostDevice) -> None:
    """In that order."""
    memory = device.allocate(4096, label="a")
    with pytest.raises(InvalidInputError, match="must be filled before"):
        memory.seal()
    memory.fill(bytes(4096))
    memory.discard()
    memory.discard()
    with pytest.raises(InvalidInputError, match="was discarded or sealed"):
        memory.fill(bytes(4096))


def test_a_store_ends_the_process() -> None:
    """Mprotect holds until somebody takes it back."""
    code = """
import ctypes
from vram_residency.device.host import HostDevice
from vram_residency.device.kernel import address_of
memory = HostDevice(capacity_bytes=4096, backing="anonymous").allocate(4096, label="a")
memory.fill(bytes(4096))
ctypes.memset(address_of(memory.seal().view()), 1, 1)
"""
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, check=False)
    assert result.returncode == -signal.SIGSEGV


def test_a_protection_taken_back_is_noticed() -> None:
    """Verification is the control."""
    code = """
import ctypes
from vram_residency.device.host import HostDevice
from vram_residency.device.kernel import address_of
memory = HostDevice(capacity_bytes=4096, backing="anonymous").allocate(4096, label="a")
memory.fill(bytes(4096))
sealed = memory.seal()
address = address_of(sealed.view())
assert ctypes.CDLL(None).mprotect(ctypes.c_void_p(address), ctypes.c_size_t(4096), 3) == 0
print(sealed.check().finding)
"""
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "has changed" in result.stdout
