"""Digests over memory and files: slices, progress, refusals."""

from __future__ import annotations

import hashlib
import os
import threading
from pathlib import Path

import pytest
from blake3 import blake3

from vram_residency.core.errors import InvalidInputError
from vram_residency.digest import groups, hashing, host

MIB = 1 << 20


@pytest.mark.parametrize("algorithm", ["blake3", "sha256"])
def test_slices_do_not_change_the_digest(algorithm: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A digest taken in slices is the digest of the whole."""
    data = os.urandom(5 * MIB + 17)
    whole = host.digest(memoryview(data), algorithm)  # type: ignore[arg-type]
    monkeypatch.setattr(hashing, "SLICE_BYTES", MIB)
    assert host.digest(memoryview(data), algorithm) == whole  # type: ignore[arg-type]


def test_progress_counts_bytes_up_to_all(monkeypatch: pytest.MonkeyPatch) -> None:
    """The last report says that everything is done."""
    monkeypatch.setattr(hashing, "SLICE_BYTES", MIB)
    seen: list[tuple[int, int]] = []
    host.digest(memoryview(bytes(2 * MIB + 1)), "blake3", lambda done, total: seen.append((done, total)))
    assert seen == [(MIB, 2 * MIB + 1), (2 * MIB, 2 * MIB + 1), (2 * MIB + 1, 2 * MIB + 1)]


def test_progress_may_cancel(tmp_path: Path) -> None:
    """What progress raises comes out of memory and file digests alike."""

    def cancel(_done: int, _total: int) -> None:
        raise KeyboardInterrupt

    path = tmp_path / "file"
    path.write_bytes(bytes(9 * MIB))
    with pytest.raises(KeyboardInterrupt):
        host.digest(memoryview(bytes(MIB)), "blake3", cancel)
    with pytest.raises(KeyboardInterrupt):
        host.digest_file(path, "blake3", cancel)


def test_an_unknown_algorithm_is_refused(tmp_path: Path) -> None:
    """Names are not passed on to hashlib."""
    path = tmp_path / "file"
    path.write_bytes(b"x")
    with pytest.raises(InvalidInputError, match="must be blake3 or sha256, not 'md5'"):
        host.digest(memoryview(b"x"), "md5")  # type: ignore[arg-type]
    with pytest.raises(InvalidInputError, match="must be blake3 or sha256, not 'md5'"):
        host.digest_file(path, "md5")  # type: ignore[arg-type]


def test_parts_are_digested_as_one() -> None:
    """The digest of parts is that of their concatenation, whatever their kinds."""
    parts = [b"a" * 3, memoryview(b"b" * 70_000), b"", memoryview(bytearray(b"c"))]
    joined = b"".join(bytes(part) for part in parts)
    assert host.digest_parts(parts) == f"blake3:{blake3(joined).hexdigest()}"
    assert host.digest_parts(parts, "sha256") == f"sha256:{hashlib.sha256(joined).hexdigest()}"


def test_measuring_gives_the_digest_and_the_group_values() -> None:
    """Both are those of the separate functions."""
    data = memoryview(os.urandom(3 * MIB + 5))
    measured = host.measure(data)
    assert measured.digest == host.digest(data)
    assert measured.group_values == groups.group_values(data)


@pytest.mark.parametrize("size", [4 * MIB - 1, 4 * MIB, 4 * MIB + 1, 8 * MIB, 13 * MIB + 7])
def test_files_around_the_read_ahead_edge(size: int, tmp_path: Path) -> None:
    """Read at once or ahead in blocks, a file has the digest of its bytes."""
    data = os.urandom(size)
    path = tmp_path / "file"
    path.write_bytes(data)
    assert host.digest_file(path) == f"blake3:{blake3(data).hexdigest()}"
    assert host.digest_file(path, "sha256") == f"sha256:{hashlib.sha256(data).hexdigest()}"


def test_file_progress_ends_with_all_bytes(tmp_path: Path) -> None:
    """Read in blocks of 4 MiB."""
    path = tmp_path / "file"
    path.write_bytes(bytes(9 * MIB))
    seen: list[tuple[int, int]] = []
    host.digest_file(path, "blake3", lambda done, total: seen.append((done, total)))
    assert seen == [(4 * MIB, 9 * MIB), (8 * MIB, 9 * MIB), (9 * MIB, 9 * MIB)]


def test_what_is_no_regular_file_is_refused(tmp_path: Path) -> None:
    """A pipe does not hang, a directory, a device and a missing path are named."""
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    for path, rule in [
        (pipe, "a named pipe, not a regular file"),
        (tmp_path, "a directory, not a regular file"),
        (Path("/dev/null"), "a character device, not a regular file"),
        (tmp_path / "missing", "missing does not exist"),
        (Path("nul\0"), "cannot be read: "),
    ]:
        with pytest.raises(InvalidInputError, match=rule):
            host.digest_file(path)


def test_a_name_that_is_no_text_can_be_digested_and_named(tmp_path: Path) -> None:
    """Names are bytes; errors show them as text."""
    name = os.fsencode(tmp_path) + b"/\xff"
    Path(os.fsdecode(name)).write_bytes(b"abc")
    assert host.digest_file(os.fsdecode(name)) == host.digest(memoryview(b"abc"))
    Path(os.fsdecode(name)).unlink()
    with pytest.raises(InvalidInputError, match=r"\\udcff does not exist"):
        host.digest_file(os.fsdecode(name))


def test_digesting_files_leaves_no_descriptor_and_no_thread(tmp_path: Path) -> None:
    """Neither after success nor after an error."""
    path = tmp_path / "file"
    path.write_bytes(bytes(9 * MIB))

    def fail(_done: int, _total: int) -> None:
        raise RuntimeError("enough")

    host.digest_file(path)
    before = set(Path("/proc/self/fd").iterdir()), threading.active_count()
    host.digest_file(path)
    with pytest.raises(RuntimeError, match="enough"):
        host.digest_file(path, "blake3", fail)
    assert (set(Path("/proc/self/fd").iterdir()), threading.active_count()) == before
