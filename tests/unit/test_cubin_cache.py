"""The cache of compiled kernels: private, checked at every load, and never in the way."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from vram_residency.core.errors import ConfigurationError
from vram_residency.digest import cubin_cache
from vram_residency.digest.cubin_cache import cached_kernels, cubin_name, default_directory
from vram_residency.narration import capture_narration

ARCHITECTURE = "sm_90"


class Compiler:
    """Stands in for NVRTC: another cubin for each architecture, and a count."""

    def __init__(self) -> None:
        self.runs = 0
        self.version = "13.5"

    def compile(self, source: bytes, architecture: str) -> bytes:
        self.runs += 1
        return b"\x7fELF" + architecture.encode() + bytes(1000)


@pytest.fixture
def compiler(monkeypatch: pytest.MonkeyPatch) -> Compiler:
    made = Compiler()
    monkeypatch.setattr(cubin_cache, "compile_kernels", made.compile)
    monkeypatch.setattr(cubin_cache, "compiler_version", lambda: made.version)
    return made


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "cache" / "kernels"


@pytest.fixture
def told() -> list[str]:
    return []


@pytest.fixture
def load(compiler: Compiler, folder: Path, told: list[str]) -> Callable[..., bytes]:
    """Takes the kernels through the cache, which by then holds them."""

    def take(architecture: str = ARCHITECTURE) -> bytes:
        return cached_kernels(architecture, directory=folder, on_refused=told.append)

    take()
    assert (compiler.runs, told) == (1, [])
    return take


def cubin(folder: Path) -> Path:
    return next(folder.glob(f"{ARCHITECTURE}-*.cubin"))


def test_the_second_use_compiles_nothing(
    load: Callable[..., bytes], compiler: Compiler, told: list[str]
) -> None:
    """And is the same to the byte."""
    assert load() == Compiler().compile(b"", ARCHITECTURE)
    assert (compiler.runs, told) == (1, [])


def test_everything_there_is_closed_to_others(load: Callable[..., bytes], folder: Path) -> None:
    """Directory, key and cubins, and nothing else is left."""
    modes = {path.suffix or path.name: path.stat().st_mode & 0o777 for path in folder.iterdir()}
    assert (folder.stat().st_mode & 0o777, modes) == (0o700, {"key": 0o600, ".cubin": 0o600})


def test_another_architecture_version_or_source_is_another_file(
    load: Callable[..., bytes], compiler: Compiler
) -> None:
    """A name is a digest over all of them."""
    assert load("sm_80") != load()
    compiler.version = "13.6"
    load()
    assert compiler.runs == 3
    names = {cubin_name(source, ARCHITECTURE, version) for source in (b"a", b"b") for version in ("1", "2")}
    assert len(names) == 4
    assert cubin_name(b"ab", "sm_80", "1") != cubin_name(b"a", "bsm_80", "1")


def flip(path: Path, offset: int) -> None:
    data = bytearray(path.read_bytes())
    data[offset] ^= 1
    path.write_bytes(data)


def with_fifo(path: Path) -> None:
    path.unlink()
    os.mkfifo(path, 0o600)


def with_link(path: Path) -> None:
    real = path.parent.parent / "elsewhere"
    path.rename(real)
    path.symlink_to(real)


def with_twin(path: Path) -> None:
    """A sound cubin of this cache under another name."""
    cached_kernels("sm_80", directory=path.parent, on_refused=print)
    next(path.parent.glob("sm_80-*")).rename(path)


TAMPERINGS = {
    "a bit of the mac": (lambda path: flip(path, 3), "content"),
    "a bit of the content": (lambda path: flip(path, 500), "content"),
    "the last bit": (lambda path: flip(path, -1), "content"),
    "cut short": (lambda path: path.write_bytes(path.read_bytes()[:-1]), "content"),
    "grown": (lambda path: path.write_bytes(path.read_bytes() + b"x"), "content"),
    "emptied": (lambda path: path.write_bytes(b""), "content"),
    "another's cubin": (lambda path: path.write_bytes(b"\x7fELF" * 300), "content"),
    "another file of the cache": (with_twin, "content"),
    "a symbolic link": (with_link, "symbolic links"),
    "a pipe": (with_fifo, "no regular file"),
    "open to the group": (lambda path: path.chmod(0o640), "open to others"),
    "open to others": (lambda path: path.chmod(0o602), "open to others"),
    "too large": (lambda path: os.truncate(path, 65 << 20), "too large"),
}


@pytest.mark.parametrize("tampering", TAMPERINGS)
def test_what_was_tampered_with_is_told_and_compiled_again(
    load: Callable[..., bytes], folder: Path, told: list[str], tampering: str
) -> None:
    """And the next use is sound again."""
    expected = load()
    change, reason = TAMPERINGS[tampering]
    path = cubin(folder)
    change(path)
    assert load() == expected
    assert len(told) == 1
    assert path.name in told[0]
    assert reason in told[0]
    assert load() == expected
    assert len(told) == 1
    assert path.is_file()
    assert not path.is_symlink()


def test_a_file_of_another_user_is_not_believed(
    load: Callable[..., bytes], folder: Path, told: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nor is a directory of theirs used at all."""
    monkeypatch.setattr(cubin_cache.os, "geteuid", lambda: folder.stat().st_uid + 1)
    assert load() == Compiler().compile(b"", ARCHITECTURE)
    assert told == ["the cache of kernels is not used: its directory belongs to another user"]


@pytest.mark.parametrize("mode", [0o750, 0o701, 0o777], ids=oct)
def test_a_directory_that_is_open_to_others_is_not_used(
    load: Callable[..., bytes], folder: Path, told: list[str], mode: int
) -> None:
    """They could put anything there."""
    folder.chmod(mode)
    load()
    assert len(told) == 1
    assert "its directory is open to others" in told[0]


def test_a_symbolic_link_in_place_of_the_directory_is_not_followed(
    load: Callable[..., bytes], folder: Path, told: list[str]
) -> None:
    """Who owns the link decides where it leads."""
    folder.rename(folder.with_name("real"))
    folder.symlink_to(folder.with_name("real"))
    load()
    assert len(told) == 1
    assert "the cache of kernels is not used" in told[0]


@pytest.mark.parametrize("key", [b"", b"k" * 31, b"k" * 33], ids=["none", "short", "long"])
def test_a_damaged_key_stops_the_cache_and_says_what_to_do(
    load: Callable[..., bytes], folder: Path, told: list[str], key: bytes
) -> None:
    """A new one would make it believe nothing that is there, which is for the user to decide."""
    (folder / "key").write_bytes(key)
    load()
    assert len(told) == 1
    assert "delete the directory" in told[0]


def test_cubins_of_another_key_are_not_believed(
    load: Callable[..., bytes], folder: Path, told: list[str], compiler: Compiler
) -> None:
    """A whole directory that was copied from elsewhere, with but a key of ours."""
    (folder / "key").write_bytes(b"o" * 32)
    load()
    assert (compiler.runs, len(told)) == (2, 1)


@pytest.mark.parametrize("place", ["file", "directory"])
def test_a_place_that_cannot_be_written_costs_a_compilation(
    compiler: Compiler, folder: Path, told: list[str], place: str
) -> None:
    """Such as a read-only home; here a file or a directory is in the way."""
    if place == "file":
        folder.parent.write_bytes(b"")
    else:
        name = cubin_name(cubin_cache.kernel_source(), ARCHITECTURE, compiler.version)
        (folder / name).mkdir(parents=True)
        folder.chmod(0o700)
        (folder / name).chmod(0o700)
    assert cached_kernels(ARCHITECTURE, directory=folder, on_refused=told.append)
    assert "the cache of kernels is not used" in told[-1]
    assert compiler.runs == 1
    assert list(folder.parent.glob("*/.new-*")) == []


def test_the_compilers_own_error_comes_out(
    compiler: Compiler, folder: Path, monkeypatch: pytest.MonkeyPatch, told: list[str]
) -> None:
    """It is no matter of the cache."""

    def fail(source: bytes, architecture: str) -> bytes:
        raise ConfigurationError("kernels.cu", "cannot be compiled")

    monkeypatch.setattr(cubin_cache, "compile_kernels", fail)
    with pytest.raises(ConfigurationError, match="cannot be compiled"):
        cached_kernels(ARCHITECTURE, directory=folder, on_refused=told.append)
    assert told == []


def test_many_at_once_all_get_the_same(compiler: Compiler, folder: Path, told: list[str]) -> None:
    """They make one key, and each puts a whole file in place."""
    found: list[bytes] = []
    begin = threading.Barrier(8)

    def use() -> None:
        begin.wait()
        found.append(cached_kernels(ARCHITECTURE, directory=folder, on_refused=told.append))

    threads = [threading.Thread(target=use) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (len(found), len(set(found)), told) == (8, 1, [])
    assert sorted(path.suffix for path in folder.iterdir()) == ["", ".cubin"]
    runs = compiler.runs
    cached_kernels(ARCHITECTURE, directory=folder, on_refused=told.append)
    assert (compiler.runs, told) == (runs, [])


def test_what_is_not_believed_is_narrated(compiler: Compiler, folder: Path) -> None:
    """A warning that names the file and the reason."""
    cached_kernels(ARCHITECTURE, directory=folder)
    path = cubin(folder)
    flip(path, 40)
    with capture_narration() as story:
        cached_kernels(ARCHITECTURE, directory=folder)
    (event,) = story.events
    assert (event.action, event.level) == ("validate_failed", "warn")
    assert path.name in event.human


def test_where_the_cache_is(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The user's cache directory; a relative one counts for nothing, as its specification says."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert default_directory() == tmp_path / "vram-residency" / "kernels"
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    for value in ("", "relative"):
        monkeypatch.setenv("XDG_CACHE_HOME", value)
        assert default_directory() == tmp_path / "home" / ".cache" / "vram-residency" / "kernels"
