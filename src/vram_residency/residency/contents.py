"""What sealed memory of a device is measured with: the machine's cores, or the card's own kernels."""

from __future__ import annotations

from vram_residency.device.base import Device, SealedMemory
from vram_residency.device.cuda.device import CudaDevice
from vram_residency.device.cuda.memory import CudaSealedMemory
from vram_residency.digest.groups import GroupCollector
from vram_residency.digest.kernels import Kernels
from vram_residency.digest.value import Algorithm
from vram_residency.residency.content import SealedContent
from vram_residency.residency.cuda_content import CudaContent
from vram_residency.residency.owned import OwnedContent


class Contents:
    """Makes content of one device's sealed memory."""

    def __init__(self, device: Device) -> None:
        self._kernels = Kernels(device.runner) if isinstance(device, CudaDevice) else None

    def new_collector(self) -> GroupCollector | None:
        """What observes memory while it fills; None on a card, whose kernels are made ready here instead.

        Raises ConfigurationError, DeviceLostError.
        """
        if self._kernels is None:
            return GroupCollector()
        self._kernels.load()
        return None

    def owned(
        self, memory: SealedMemory, algorithm: Algorithm, collector: GroupCollector | None = None
    ) -> SealedContent:
        """Content of ``memory``, which ``collector`` observed while it filled."""
        if self._kernels is not None and isinstance(memory, CudaSealedMemory):
            return CudaContent(memory, self._kernels, algorithm=algorithm)
        return OwnedContent(memory, algorithm=algorithm, collector=collector)
