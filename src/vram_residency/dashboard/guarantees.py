"""What is not guaranteed on this host, in words, and what would mend it. Pure: facts are arguments."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

import msgspec

from vram_residency.worker.host_check import HostFinding

#: Findings of `vram doctor` that are no loss of a guarantee, or are said of the very shards below.
_LEFT_TO_DOCTOR: Final = frozenset({"no_gpu", "memlock", "runtime_directory"})


class Caveat(msgspec.Struct, frozen=True, kw_only=True):
    """One thing that nobody should rely on here. ``mend``: what to do about it, where there is something."""

    says: str
    mend: str | None = None


class Host(msgspec.Struct, frozen=True, kw_only=True):
    """What is known of this worker. residencies: the residency record of every shard (residency.md)."""

    device_kind: str
    residencies: Sequence[Mapping[str, Any]]
    findings: Sequence[HostFinding]
    has_log: bool
    has_genesis_key: bool


def caveats(host: Host) -> list[Caveat]:
    """All that apply, gravest first; never empty, since some things hold on every host."""
    found = (each for each in host.findings if each.code not in _LEFT_TO_DOCTOR)
    of_host = [Caveat(says=each.text, mend=f"{each.mend.rstrip('.')}.") for each in found]
    return [*_of_device(host), *_of_log(host), *of_host, *_of_every_host()]


def _of_device(host: Host) -> Iterator[Caveat]:
    records = host.residencies
    if any(record["device"].get("fault_injection") for record in records):
        yield Caveat(
            says="This is a test device: whoever runs it can change sealed memory at will.",
            mend="Never serve from it.",
        )
    if host.device_kind == "host":
        yield Caveat(
            says="Shards lie in the machine's own memory, not in VRAM. The VRAM-only policy is relaxed to "
            "“development” here, and every seal says so.",
            mend="Run on a GPU for the full promise.",
        )
    if any(record["facts"].get("weaker") for record in records):
        yield Caveat(
            says="The kernel does not make these shards immutable: code of this process can undo it.",
            mend="Use a kernel with memfd_create and F_SEAL_WRITE.",
        )
    unlocked = sum(record["facts"].get("locked") is False for record in records)
    if unlocked:
        yield Caveat(
            says=f"{_shards(unlocked)} not locked into memory: the weights may be written to swap.",
            mend="Raise the memlock limit (LimitMEMLOCK in the unit).",
        )
    blocked = {name for record in records for name in record["policy"].get("violations", ())} - {
        "host_memory"
    }
    if blocked:
        yield Caveat(says=f"The policy is broken and was told to go on: {', '.join(sorted(blocked))}.")


def _of_log(host: Host) -> Iterator[Caveat]:
    if not host.has_log:
        yield Caveat(says="Nothing is recorded: there is no audit log.", mend="Start with audit = required.")
        return
    if host.has_genesis_key:
        yield Caveat(
            says="K_0 lies beside the log: whoever reads it can forge every entry.",
            mend="Move genesis.key to where only auditors are.",
        )
    yield Caveat(
        says="Entries after the last checkpoint that somebody else keeps can be removed by whoever owns this "
        "machine, and the worker cannot see whether anybody keeps one.",
        mend="Have a witness or another machine keep checkpoints (vram audit witness).",
    )


def _of_every_host() -> Iterator[Caveat]:
    yield Caveat(
        says="A verification speaks of the moment in which it read; later damage is found by the next one."
    )
    yield Caveat(
        says="This page and the story are told by the worker itself. Evidence is the audit log alone."
    )


def _shards(count: int) -> str:
    return "One shard is" if count == 1 else f"{count} shards are"
