"""Making, breaking and checking audit logs in tests.

``reference_check`` is written from audit-log.md with json, hashlib and hmac alone: it shares no code with
the product, and is as slow as it is plain.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from vram_residency.audit.events.vram import VramSealed
from vram_residency.audit.log import AuditLogger
from vram_residency.audit.store.files import Files
from vram_residency.audit.writing.creation import NewLog, create_log
from vram_residency.audit.writing.options import LogOptions

SERVICE = "worker-gpu-0"
SECOND_NS = 1_000_000_000


class ManualClock:
    """Time that moves only when a test says so: both clocks by ``advance``, the wall clock by ``step``."""

    def __init__(self) -> None:
        self.wall_ns = 1_760_000_000 * SECOND_NS
        self.steady_ns = 0

    def now_ns(self) -> int:
        return self.wall_ns

    def monotonic_ns(self) -> int:
        return self.steady_ns

    def advance(self, seconds: float) -> None:
        self.wall_ns += int(seconds * SECOND_NS)
        self.steady_ns += int(seconds * SECOND_NS)

    def step(self, seconds: float) -> None:
        self.wall_ns += int(seconds * SECOND_NS)


class PowerCutError(BaseException):
    """The machine stopped here. No handler of the product may catch it."""


class FaultyFiles(Files):
    """Calls ``on_call(name, number)`` before every system call; it may raise. Writes can be made short."""

    def __init__(self, on_call: Callable[[str, int], None] | None = None) -> None:
        self.on_call = on_call
        self.calls: list[str] = []
        self.short_writes = 0
        self.free: int | None = None

    def _call(self, name: str) -> None:
        self.calls.append(name)
        if self.on_call is not None:
            self.on_call(name, len(self.calls))

    def create(self, path: Path) -> int:
        self._call("create")
        return super().create(path)

    def write(self, descriptor: int, data: bytes | memoryview) -> int:
        self._call("write")
        if self.short_writes > 0 and len(data) > 1:
            self.short_writes -= 1
            return super().write(descriptor, memoryview(data)[: len(data) // 2])
        return super().write(descriptor, data)

    def write_at(self, descriptor: int, data: bytes, offset: int) -> int:
        self._call("write_at")
        return super().write_at(descriptor, data, offset)

    def sync_data(self, descriptor: int) -> None:
        self._call("sync_data")  # nothing more: no test here takes the power from the real disk

    def truncate(self, descriptor: int, length: int) -> None:
        self._call("truncate")
        super().truncate(descriptor, length)

    def replace(self, source: Path, target: Path) -> None:
        self._call("replace")
        super().replace(source, target)

    def protect(self, path: Path) -> None:
        self._call("protect")
        super().protect(path)

    def remove(self, path: Path) -> None:
        self._call("remove")
        super().remove(path)

    def sync_directory(self, path: Path) -> None:
        self._call("sync_directory")

    def free_bytes(self, descriptor: int) -> int:
        return super().free_bytes(descriptor) if self.free is None else self.free


def failing(name: str, error: OSError, *, times: int = 1) -> Callable[[str, int], None]:
    """An ``on_call`` that makes the next ``times`` calls of one kind fail."""
    left = [times]

    def on_call(called: str, _number: int) -> None:
        if called == name and left[0] > 0:
            left[0] -= 1
            raise error

    return on_call


def make_log(folder: Path, **options: Any) -> NewLog:
    """An empty log in ``folder/log`` with keys, K0 included, in ``folder/keys``."""
    return create_log(
        folder / "log",
        service_id=SERVICE,
        keys=folder / "keys",
        keep_genesis=True,
        options=LogOptions(**options),
    )


def open_log(folder: Path, *, anchor: Any = None, **options: Any) -> AuditLogger:
    """The log of make_log(), without a background thread unless asked for; made if it is not there."""
    options.setdefault("background", False)
    if not (folder / "log" / "log.json").exists():
        make_log(folder, clock=options.get("clock", LogOptions().clock))
    return AuditLogger.open(
        folder / "log", service_id=SERVICE, keys=folder / "keys", anchor=anchor, options=LogOptions(**options)
    )


def abandon(logger: AuditLogger) -> None:
    """What the death of a process does to its log, within this one: descriptors and lock go, nothing else."""
    from vram_residency.audit import log as log_module

    log_module._open_logs.discard(logger)
    logger._abandon()


def sealed(number: int = 0, **fields: Any) -> VramSealed:
    """An ordinary event."""
    values = {
        "shard_id": f"shard-{number}",
        "gpu_device": 0,
        "vram_bytes": 1_048_576,
        "digest": "blake3:" + "ab" * 32,
        "worker_id": SERVICE,
    }
    return VramSealed(**{**values, **fields})


def segments(folder: Path) -> list[Path]:
    return sorted((folder / "log" / "entries").glob("*.jsonl"))


def read_lines(folder: Path) -> list[bytes]:
    data = b"".join(path.read_bytes() for path in segments(folder))
    assert data.endswith(b"\n") or not data
    return data.split(b"\n")[:-1]


def read_entries(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in read_lines(folder)]


def event_types(folder: Path) -> list[str]:
    return [entry["event_type"] for entry in read_entries(folder)]


def reference_root(leaves: list[bytes]) -> bytes:
    """RFC 6962 section 2.1, word for word."""
    if not leaves:
        return hashlib.sha256(b"").digest()
    if len(leaves) == 1:
        return hashlib.sha256(b"\x00" + leaves[0]).digest()
    split = 1
    while split * 2 < len(leaves):
        split *= 2
    left, right = reference_root(leaves[:split]), reference_root(leaves[split:])
    return hashlib.sha256(b"\x01" + left + right).digest()


def reference_check(folder: Path) -> list[dict[str, Any]]:
    """Check every entry from K0, and the checkpoint's root; the entries."""
    lines = read_lines(folder)
    config = json.loads((folder / "log" / "log.json").read_bytes())
    key = bytes.fromhex((folder / "keys" / "genesis.key").read_text())
    mac = hashlib.sha256(b"vram-residency/audit/v1\n" + config["origin"].encode()).digest()
    entries = []
    for index, line in enumerate(lines):
        body, suffix = line[:-74], line[-74:]
        mac = hmac.new(key, mac + body, hashlib.sha256).digest()
        assert suffix == b',"mac":"' + mac.hex().encode() + b'"}', f"entry {index}: mac"
        entry = json.loads(line)
        assert entry["index"] == index
        assert json.dumps(entry, separators=(",", ":"), ensure_ascii=False).encode() == line
        if entry["event_type"] == "epoch_closed":
            assert entry["tree_size"] == index
            assert entry["root_hash"] == reference_root(lines[:index]).hex()
            key = hmac.new(key, b"vram-residency/audit/next-epoch", hashlib.sha256).digest()
        entries.append(entry)
    origin, size, root = (folder / "log" / "checkpoint").read_text().split("\n")[:3]
    assert origin == config["origin"]
    assert base64.b64decode(root) == reference_root(lines[: int(size)])
    assert int(size) <= len(lines)
    return entries


def copy_tree(source: Path, target: Path) -> Path:
    """A copy with its modes."""
    import shutil

    shutil.copytree(source, target, copy_function=shutil.copy2)
    target.chmod(0o700)
    return target
