"""What the tests of sealed shards share: managers on devices of which everything is known."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
from tests.model_files import entry, safetensors_file

from vram_residency import SealedShard, VramManager
from vram_residency.device.base import DeviceInfo, Facts
from vram_residency.device.host import HostDevice
from vram_residency.policy.rules import GIB
from vram_residency.residency import ManagerOptions
from vram_residency.testing import FaultDevice, MemoryLog, Story, capture_narration

TOKEN = "a seal token of the tests, of no use elsewhere"
WORKER = "worker-gpu-0"
GROUP = 128 * 1024
MIB = 1 << 20
CAPACITY = 16 * MIB


@dataclass
class Place:
    """A manager, and all that can be seen of what it does."""

    manager: VramManager
    device: Any
    log: MemoryLog
    story: Story

    @property
    def events(self) -> list[str]:
        """The types of all audit events, in order."""
        return [each.event_type for each in self.log.recorded]

    @property
    def actions(self) -> list[str]:
        """The actions of all that was narrated, in order."""
        return [each.action for each in self.story.events]

    def only(self, event_type: str) -> dict[str, Any]:
        """The fields of the one event of a type."""
        (fields,) = self.log.of_type(event_type)
        return fields

    def record(self, shard: SealedShard) -> Any:
        """The manager's own record: for tests that damage it."""
        return self.manager._parts.registry.find(shard.shard_id)

    def require_untouched(self) -> None:
        """Nothing is held and nothing is in use."""
        assert self.manager.shards() == []
        capacity = self.manager.capacity()
        assert (capacity.used_bytes, capacity.available_bytes) == (0, capacity.total_bytes)


@contextmanager
def place(device: Any = None, *, policy: Any = None, gpu_device: int = 0, **options: Any) -> Iterator[Place]:
    """A manager on a device that can be damaged, with a log in memory; closed at the end, leaving nothing."""
    before = memfds()
    device = device or FaultDevice(capacity_bytes=CAPACITY)
    log = MemoryLog()
    with capture_narration() as story:
        manager = VramManager.new_with_token(
            TOKEN, gpu_device, log, WORKER, device=device, policy=policy, options=ManagerOptions(**options)
        )
        with manager:
            yield Place(manager, device, log, story)
    assert memfds() <= before


class PretendCard(HostDevice):
    """A host device that says it is a GPU with memory of its own: for what is told of GPUs."""

    def __init__(self, **changes: Any) -> None:
        super().__init__(capacity_bytes=CAPACITY)
        self.info = DeviceInfo(
            kind="cuda", index=0, name="Pretend H1", uuid="GPU-0000", boot_id=self.info.boot_id
        )
        self.changes = changes
        self.memory_changes: Facts = {}

    def facts(self) -> Facts:
        return {
            **super().facts(),
            "kind": "cuda",
            "integrated": False,
            "compute_capability": "9.0",
            "total_bytes": 80 * GIB,
            "mps": False,
            "wsl": False,
            "virtual_gpu": False,
            **self.changes,
        }

    @property
    def _constants(self) -> Facts:
        memory = {"kind": "vmm", "memory_type": "device", "managed": False, "device_ordinal": 0}
        return {**super()._constants, **memory, **self.memory_changes}


def model_bytes(*sizes: int, seed: int = 0) -> bytes:
    """A safetensors file with one U8 tensor of each size, named t0, t1, …, of random bytes."""
    header, start = {}, 0
    for number, size in enumerate(sizes):
        header[f"t{number}"] = entry(start, start + size)
        start += size
    return safetensors_file(header, random.Random(seed).randbytes(start))


def write_model(directory: Path, *sizes: int, name: str = "model.safetensors", seed: int = 0) -> Path:
    """``model_bytes`` in a file."""
    path = directory / name
    path.write_bytes(model_bytes(*sizes, seed=seed))
    return path


def raw_bytes(size: int, seed: int = 0) -> bytes:
    """Random bytes that are no model of any format."""
    return b"raw!" + random.Random(seed).randbytes(size - 4)


def memfds() -> set[tuple[int, str]]:
    """The memfds of this process: (descriptor, what it names)."""
    found = set()
    for link in Path("/proc/self/fd").iterdir():
        try:
            target = str(link.readlink())
        except OSError:
            continue
        if "memfd:" in target:
            found.add((int(link.name), target))
    return found


def mapped_memfds() -> int:
    """How many memfds are mapped into this process."""
    return Path("/proc/self/maps").read_text().count("/memfd:vram:")


def altered(shard: SealedShard, **fields: Any) -> SealedShard:
    """A handle that says something else."""
    return msgspec.structs.replace(shard, **fields)
