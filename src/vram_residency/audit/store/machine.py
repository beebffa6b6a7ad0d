"""Which machine and which boot of it writes the log (log_opened's host_id and boot_id)."""

from __future__ import annotations

import hmac
import os
from pathlib import Path
from typing import Final

UNKNOWN: Final = "unknown"
_HOST_DIGITS: Final = 16


def host_id(machine_id: Path = Path("/etc/machine-id")) -> str:
    """16 hex digits that stay the same for this installation, or ``unknown``.

    Derived, since machine-id(5) asks that the id itself be kept from untrusted eyes. A host name is no
    substitute: containers change theirs at every start.
    """
    text = _read(machine_id)
    if not text:
        return UNKNOWN
    return hmac.digest(text.encode(), b"vram-residency/audit/host-id", "sha256").hex()[:_HOST_DIGITS]


def boot_id(path: Path = Path("/proc/sys/kernel/random/boot_id")) -> str:
    """The kernel's UUID of this boot, or ``unknown``."""
    return _read(path) or UNKNOWN


def writer() -> str:
    """How this process names itself as a holder of the log."""
    return f"pid {os.getpid()} (uid {os.getuid()})"


def user() -> str:
    """The account that this process runs as, by its name where it has one."""
    try:
        import pwd

        return pwd.getpwuid(os.geteuid()).pw_name
    except (ImportError, KeyError):
        return f"uid {os.geteuid()}"


def _read(path: Path) -> str:
    try:
        return path.read_text("utf-8").strip()
    except (OSError, UnicodeDecodeError):
        return ""
