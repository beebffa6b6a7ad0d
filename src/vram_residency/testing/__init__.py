"""For tests of code that uses this library; the pytest fixtures come with ``testing.plugin``.

The names are imported when they are first used: pytest imports this package at every start.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from vram_residency.core.lazy_names import lazy_names

if TYPE_CHECKING:
    from vram_residency.device.fault import FaultDevice
    from vram_residency.narration import Story, capture_narration
    from vram_residency.testing.memory_log import MemoryLog

__all__ = ["FaultDevice", "MemoryLog", "Story", "capture_narration"]

__getattr__, __dir__ = lazy_names(
    __name__,
    {
        "FaultDevice": "vram_residency.device.fault",
        "MemoryLog": "vram_residency.testing.memory_log",
        "Story": "vram_residency.narration",
        "capture_narration": "vram_residency.narration",
    },
)
