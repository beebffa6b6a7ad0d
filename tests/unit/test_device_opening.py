"""Devices by name."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from vram_residency.core.errors import ConfigurationError, DeviceLostError
from vram_residency.device import has_nvidia_device, open_device
from vram_residency.device.host import HostDevice


@pytest.mark.parametrize("name", ["host", "auto"])
def test_without_an_nvidia_device_it_is_the_host(name: str, tmp_path: Path) -> None:
    """Named, or found to be all there is."""
    device = open_device(name, capacity_bytes=4096, nodes=tmp_path)
    assert isinstance(device, HostDevice)
    assert (device.info.kind, device.info.index, device.total_bytes) == ("host", 0, 4096)
    device.close()


@pytest.mark.parametrize("node", ["nvidia0", "nvidiactl", "nvidia-uvm", "nvhost-gpu"])
def test_auto_never_falls_to_the_host_beside_an_nvidia_device(node: str, tmp_path: Path) -> None:
    """A machine with a broken driver says so."""
    (tmp_path / node).touch()
    assert has_nvidia_device(tmp_path)
    with pytest.raises(DeviceLostError, match="device 'auto' is not usable") as caught:
        open_device("auto", nodes=tmp_path)
    assert "--device host" in caught.value.hint
    open_device("host", capacity_bytes=1, nodes=tmp_path).close()


@pytest.mark.parametrize("name", ["cuda:0", "cuda:7"])
def test_a_card_that_cannot_be_used_is_named(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without NVIDIA's packages: what to install, and that the host would do."""
    monkeypatch.setitem(sys.modules, "cuda.bindings", None)
    with pytest.raises(DeviceLostError, match=f"device '{name}' is not usable: NVIDIA's Python") as caught:
        open_device(name)
    assert "vram-residency[cuda]" in caught.value.hint
    assert "--device host" in caught.value.hint


@pytest.mark.parametrize(
    "name", ["", "gpu", "cuda", "cuda:", "cuda:-1", "cuda:01", "cuda:0\n", "Host", "host "]
)
def test_other_names_mean_nothing(name: str) -> None:
    """One spelling each."""
    with pytest.raises(ConfigurationError, match="must be host, auto or cuda:N"):
        open_device(name)
