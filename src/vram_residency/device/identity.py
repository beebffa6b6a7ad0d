"""Which machine this is and which of its boots: names that seals are bound to (residency.md section 4)."""

from __future__ import annotations

import functools
import hashlib
import uuid
from pathlib import Path

_MACHINE_IDS = (Path("/etc/machine-id"), Path("/var/lib/dbus/machine-id"))
_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
_LABEL = b"vram-residency/host-device/v1\n"


def host_uuid(*, machine_ids: tuple[Path, ...] = _MACHINE_IDS, boot_id: str | None = None) -> str:
    """A UUID of the host device, the same as long as the machine keeps its id (machine-id(5)).

    Derived by SHA-256, for that id itself is not meant to be published. Without one it holds for a boot.
    """
    for path in machine_ids:
        if text := _text(path):
            return _derived(text)
    return _derived(boot_id or current_boot_id())


def current_boot_id(path: Path = _BOOT_ID) -> str:
    """The kernel's id of this boot; where there is none, one that ends with this process."""
    return _text(path) or _process_id()


@functools.cache
def _process_id() -> str:
    return str(uuid.uuid4())


def _derived(text: str) -> str:
    digest = bytearray(hashlib.sha256(_LABEL + text.encode()).digest()[:16])
    # RFC 9562 section 5.8: version 8, "custom", and the variant bits.
    digest[6] = digest[6] & 0x0F | 0x80
    digest[8] = digest[8] & 0x3F | 0x80
    return str(uuid.UUID(bytes=bytes(digest)))


def _text(path: Path) -> str:
    try:
        return path.read_text("ascii", "replace").strip()
    except OSError:
        return ""
