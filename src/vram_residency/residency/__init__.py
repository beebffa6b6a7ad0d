"""The manager of sealed shards: it joins effect, audit and narration."""

from vram_residency.residency.budget import Capacity
from vram_residency.residency.manager import VramManager
from vram_residency.residency.options import ManagerOptions
from vram_residency.residency.scope import FAST, FULL, Scope, sample
from vram_residency.residency.scrub import Scrubber
from vram_residency.residency.shard import SealedModel, SealedShard, ShardReport, Verification
from vram_residency.residency.views import TensorView, Views

__all__ = [
    "FAST",
    "FULL",
    "Capacity",
    "ManagerOptions",
    "Scope",
    "Scrubber",
    "SealedModel",
    "SealedShard",
    "ShardReport",
    "TensorView",
    "Verification",
    "Views",
    "VramManager",
    "sample",
]
