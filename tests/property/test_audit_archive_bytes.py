"""Archives under all bytes: they give exactly the segment, or an error, and never more than they announce."""

from __future__ import annotations

from pathlib import Path

import pytest
import zstandard
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from vram_residency.audit.store.archive import ArchiveFormatError, open_archive

CONTENT = b"".join(b'{"index":%d,"mac":"%064x"}\n' % (number, number**9) for number in range(60))
ARCHIVE = zstandard.ZstdCompressor(level=3, write_checksum=True).compress(CONTENT)


def _read(path: Path, data: bytes) -> bytes | None:
    path.write_bytes(data)
    try:
        with path.open("rb") as file, open_archive(file, path) as content:
            return content.read()
    except ArchiveFormatError:
        return None


@pytest.mark.parametrize("length", range(len(ARCHIVE)), ids=str)
def test_every_cut_is_refused(tmp_path: Path, length: int) -> None:
    assert _read(tmp_path / "archive", ARCHIVE[:length]) is None


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(position=st.integers(0, len(ARCHIVE) - 1), flipped=st.integers(1, 255))
def test_a_changed_byte_gives_the_segment_or_an_error(tmp_path: Path, position: int, flipped: int) -> None:
    data = bytearray(ARCHIVE)
    data[position] ^= flipped
    assert _read(tmp_path / "archive", bytes(data)) in {None, CONTENT}


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.binary(max_size=200), has_magic=st.booleans())
def test_arbitrary_bytes_raise_nothing_else(tmp_path: Path, data: bytes, has_magic: bool) -> None:
    found = _read(tmp_path / "archive", (b"\x28\xb5\x2f\xfd" if has_magic else b"") + data)
    assert found is None or len(found) < 1 << 24


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(content=st.binary(max_size=3000), level=st.integers(1, 12))
def test_every_segment_comes_back(tmp_path: Path, content: bytes, level: int) -> None:
    data = zstandard.ZstdCompressor(level=level, write_checksum=True).compress(content)
    assert _read(tmp_path / "archive", data) == content
    assert _read(tmp_path / "archive", data + b"\x00") is None
