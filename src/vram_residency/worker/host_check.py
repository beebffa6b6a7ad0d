"""What on this host is weaker than it could be, and how to mend it: facts read once, judged purely."""

from __future__ import annotations

import ctypes
import os
import resource
import stat
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Final

import msgspec

from vram_residency.core.keys import SEAL_TOKEN_VARIABLE
from vram_residency.device import has_nvidia_device

_CAP_IPC_LOCK: Final = 14
_TIME_ERROR: Final = 5
_TIMEX_BYTES: Final = 512  # struct timex is smaller; its first field, modes = 0, only reads


class HostFacts(msgspec.Struct, frozen=True, kw_only=True):
    """What was read. None: it could not be.

    memlock_bytes: what may be locked, None without limit. runtime_mode: of XDG_RUNTIME_DIR, None where it is
    missing. ptrace_scope: Yama's. keys_beside: the key folder where it lies beside its log.
    """

    has_gpu: bool
    memlock_bytes: int | None
    capacity_bytes: int | None
    has_swap: bool
    umask: int
    is_clock_synchronised: bool | None
    is_token_in_environment: bool
    runtime_directory: str | None
    runtime_mode: int | None
    ptrace_scope: int | None
    is_root: bool
    keys_beside: str | None


class HostFinding(msgspec.Struct, frozen=True):
    """One thing that could be stronger: ``text`` says what follows from it, ``mend`` what to do."""

    code: str
    text: str
    mend: str


def read_facts(
    *,
    capacity_bytes: int | None = None,
    log: Path | None = None,
    keys: Path | None = None,
    environ: Mapping[str, str] = os.environ,
) -> HostFacts:
    """Read the host. ``log`` and ``keys`` are those of the worker that is meant, where one is."""
    runtime = environ.get("XDG_RUNTIME_DIR")
    return HostFacts(
        has_gpu=has_nvidia_device(),
        memlock_bytes=_memlock(),
        capacity_bytes=capacity_bytes,
        has_swap=len(_lines("/proc/swaps")) > 1,
        umask=_umask(),
        is_clock_synchronised=_is_clock_synchronised(),
        is_token_in_environment=bool(environ.get(SEAL_TOKEN_VARIABLE)),
        runtime_directory=runtime,
        runtime_mode=_mode(runtime),
        ptrace_scope=_number("/proc/sys/kernel/yama/ptrace_scope"),
        is_root=os.geteuid() == 0,
        keys_beside=_keys_beside(log, keys),
    )


def judge_host(facts: HostFacts) -> tuple[HostFinding, ...]:
    """The findings, in the order of their rules."""
    return tuple(HostFinding(code, *found) for code, rule in RULES.items() for found in rule(facts))


Rule = Callable[[HostFacts], Iterator[tuple[str, str]]]


def _gpu(facts: HostFacts) -> Iterator[tuple[str, str]]:
    if not facts.has_gpu:
        yield (
            "There is no NVIDIA device: weights lie in the machine's own memory, which is no VRAM.",
            'Use a host with one; until then worker.policy = "development" goes on, and records it.',
        )


def _locking(facts: HostFacts) -> Iterator[tuple[str, str]]:
    if facts.memlock_bytes is None:
        return
    if facts.capacity_bytes is None or facts.memlock_bytes < facts.capacity_bytes:
        yield (
            f"Only {facts.memlock_bytes} bytes may be locked into memory: the rest can be swapped out.",
            "ulimit -l unlimited (in a systemd unit: LimitMEMLOCK=infinity)",
        )


def _swap(facts: HostFacts) -> Iterator[tuple[str, str]]:
    if facts.has_swap and facts.memlock_bytes is not None:
        yield "Swap is on: weights that are not locked can reach the disk.", "swapoff -a"


def _umask_rule(facts: HostFacts) -> Iterator[tuple[str, str]]:
    if ~facts.umask & 0o077:
        yield (
            f"The umask {facts.umask:03o} lets others read files that are made here: keys, tokens, exports.",
            "umask 077",
        )


def _clock(facts: HostFacts) -> Iterator[tuple[str, str]]:
    if facts.is_clock_synchronised is False:
        yield (
            "The clock is not synchronised: the times in the log are this machine's own opinion.",
            "timedatectl set-ntp true",
        )


def _token(facts: HostFacts) -> Iterator[tuple[str, str]]:
    if facts.is_token_in_environment:
        yield (
            f"The seal token is in {SEAL_TOKEN_VARIABLE}: other processes of this user can read it there.",
            "Keep it in a 0600 file and name that as seal.token_file, or use LoadCredential=vram-seal-token",
        )


def _runtime(facts: HostFacts) -> Iterator[tuple[str, str]]:
    if facts.runtime_directory is None:
        yield (
            "XDG_RUNTIME_DIR is not set: the worker's socket has no default place.",
            "Set listen.socket to a path in a 0700 directory, or log in through systemd-logind",
        )
    elif facts.runtime_mode is None:
        yield (
            f"The runtime directory {facts.runtime_directory} is not there.",
            f"mkdir -m 700 -p {facts.runtime_directory}",
        )
    elif facts.runtime_mode & 0o077:
        yield (
            f"The runtime directory {facts.runtime_directory} is open to others.",
            f"chmod 700 {facts.runtime_directory}",
        )


def _tracing(facts: HostFacts) -> Iterator[tuple[str, str]]:
    if facts.ptrace_scope == 0:
        yield (
            "Any process of this user may trace the worker, and so read the seal key in its memory.",
            "sysctl -w kernel.yama.ptrace_scope=1",
        )


def _root(facts: HostFacts) -> Iterator[tuple[str, str]]:
    if facts.is_root:
        yield (
            "This runs as root: a fault in the worker would have the whole machine.",
            "Run it as a user of its own: deploy/vram-worker.service does",
        )


def _keys(facts: HostFacts) -> Iterator[tuple[str, str]]:
    if facts.keys_beside is not None:
        yield (
            f"The log's keys lie beside it, in {facts.keys_beside}: who copies one copies the other.",
            f"Stop the worker, move {facts.keys_beside} elsewhere, and name the new place as audit.keys",
        )


RULES: Final[Mapping[str, Rule]] = {
    "no_gpu": _gpu,
    "memlock": _locking,
    "swap": _swap,
    "umask": _umask_rule,
    "clock": _clock,
    "token_in_environment": _token,
    "runtime_directory": _runtime,
    "ptrace": _tracing,
    "root": _root,
    "keys_beside_log": _keys,
}


def _memlock() -> int | None:
    """What this process may lock, None where nothing bounds it."""
    soft, _ = resource.getrlimit(resource.RLIMIT_MEMLOCK)
    capabilities = [line.split()[1] for line in _lines("/proc/self/status") if line.startswith("CapEff:")]
    may_all = bool(capabilities) and bool(int(capabilities[0], 16) >> _CAP_IPC_LOCK & 1)
    return None if may_all or soft == resource.RLIM_INFINITY else soft


def _umask() -> int:
    """The umask, from the kernel: reading it by setting it would change it for other threads."""
    words = [line.split()[1] for line in _lines("/proc/self/status") if line.startswith("Umask:")]
    return int(words[0], 8) if words else 0o022


def _is_clock_synchronised() -> bool | None:
    """What the kernel says (adjtimex), None where it does not."""
    try:
        state = ctypes.CDLL(None).adjtimex(ctypes.create_string_buffer(_TIMEX_BYTES))
    except (OSError, AttributeError):
        return None
    return None if state < 0 else state != _TIME_ERROR


def _keys_beside(log: Path | None, keys: Path | None) -> str | None:
    if log is None:
        return None
    folder = keys or log.with_name(f"{log.name}.keys")
    is_beside = folder.parent.resolve() == log.parent.resolve() or log.resolve() in folder.resolve().parents
    return str(folder) if is_beside else None


def _mode(directory: str | None) -> int | None:
    try:
        return None if directory is None else stat.S_IMODE(Path(directory).stat().st_mode)
    except OSError:
        return None


def _number(path: str) -> int | None:
    lines = _lines(path)
    return int(lines[0]) if lines and lines[0].isdigit() else None


def _lines(path: str) -> list[str]:
    try:
        return Path(path).read_text("utf-8", "replace").splitlines()
    except OSError:
        return []
