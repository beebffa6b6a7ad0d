"""The file of a proof bundle: a ZIP archive of the one form that is written here. Pure.

Any tool opens it: members stand one after the other, stored as they are, without date, comment or extra
field. Reading takes the members out and writes the archive again: whatever is not the same file to the byte
is refused, so there is nothing in it that two programs could read in two ways.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Mapping
from typing import Final
from zlib import crc32

#: A bundle is read into memory whole.
FILE_BYTES_MAX: Final = 64 << 20
MEMBERS_MAX: Final = 25_000

_NAME = re.compile(r"[a-z0-9]+(/[0-9]{20})?(\.[a-z-]+)?\Z")
_NAME_BYTES_MAX: Final = 64
# APPNOTE.TXT 6.3.10, sections 4.3.7, 4.3.12, 4.3.16.
_LOCAL: Final = struct.Struct("<4s5H3I2H")
_CENTRAL: Final = struct.Struct("<4s6H3I5H2I")
_END: Final = struct.Struct("<4s4H2IH")
_LOCAL_SIGNATURE: Final = b"PK\x03\x04"
_VERSION: Final = 10  # stored members alone
_MADE_BY_UNIX: Final = (3 << 8) | _VERSION
_NO_TIME: Final = 0
_FIRST_DAY: Final = (1 << 5) | 1  # 1 January 1980
_REGULAR_FILE: Final = 0o100644 << 16


class ContainerFormatError(ValueError):
    """Bytes are not an archive of the one form that is written here."""


def join_members(members: Mapping[str, bytes]) -> bytes:
    """The archive of these members, in their order. Raises ContainerFormatError for a name or size."""
    parts, directory = [], []
    offset = 0
    for name, data in members.items():
        _require_name(name)
        encoded = name.encode("ascii")
        # version, flags, method, time, date, CRC, size packed and unpacked, length of the name
        common = (_VERSION, 0, 0, _NO_TIME, _FIRST_DAY, crc32(data), len(data), len(data), len(encoded))
        head = _LOCAL.pack(_LOCAL_SIGNATURE, *common, 0) + encoded
        entry = (*common, 0, 0, 0, 0, _REGULAR_FILE, offset)
        directory.append(_CENTRAL.pack(b"PK\x01\x02", _MADE_BY_UNIX, *entry) + encoded)
        parts += [head, data]
        offset += len(head) + len(data)
    central = b"".join(directory)
    size = offset + len(central) + _END.size
    if len(directory) > MEMBERS_MAX or size > FILE_BYTES_MAX:
        raise ContainerFormatError(f"over {MEMBERS_MAX} members or {FILE_BYTES_MAX} bytes")
    counts = (0, 0, len(directory), len(directory), len(central), offset, 0)
    return b"".join([*parts, central, _END.pack(b"PK\x05\x06", *counts)])


def split_members(unverified: bytes) -> dict[str, bytes]:
    """The inverse of join_members(), and of nothing else. Raises ContainerFormatError."""
    if len(unverified) > FILE_BYTES_MAX:
        raise ContainerFormatError(f"over {FILE_BYTES_MAX} bytes")
    # 1. The members, one after the other.
    members: dict[str, bytes] = {}
    offset = 0
    while unverified.startswith(_LOCAL_SIGNATURE, offset):
        name, data, offset = _read_member(unverified, offset)
        if name in members or len(members) >= MEMBERS_MAX:
            raise ContainerFormatError("a member comes twice, or there are too many")
        members[name] = data
    # 2. Everything else about the archive follows from them.
    if join_members(members) != unverified:
        raise ContainerFormatError("the archive is not in the one form of a bundle, or was changed")
    return members


def begins_with(unverified: bytes, name: str) -> bool:
    """Whether this is meant to be such an archive, with a first member of this name."""
    return unverified.startswith(_LOCAL_SIGNATURE) and unverified.startswith(name.encode(), _LOCAL.size)


def _read_member(data: bytes, offset: int) -> tuple[str, bytes, int]:
    """Name and content of the member at ``offset``, and where it ends; its other fields are unverified."""
    if len(data) - offset < _LOCAL.size:
        raise ContainerFormatError("the archive ends inside a member")
    fields = _LOCAL.unpack_from(data, offset)
    size, name_bytes = fields[8], fields[9]
    start = offset + _LOCAL.size + name_bytes
    if fields[0] != _LOCAL_SIGNATURE or name_bytes > _NAME_BYTES_MAX or start + size > len(data):
        raise ContainerFormatError("a member's name or content does not fit the archive")
    try:
        name = data[offset + _LOCAL.size : start].decode("ascii")
    except UnicodeDecodeError:
        raise ContainerFormatError("a member's name is not ASCII") from None
    return name, data[start : start + size], start + size


def _require_name(name: str) -> None:
    if len(name) > _NAME_BYTES_MAX or _NAME.match(name) is None:
        raise ContainerFormatError("a member has a name that no bundle uses")
