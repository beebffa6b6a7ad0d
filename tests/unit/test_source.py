"""Where bytes come from: only regular files, only while they stay the same."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest

from vram_residency.core.errors import InvalidInputError, MalformedModelError
from vram_residency.core.regular_file import printable_path
from vram_residency.formats import FileSource, MemorySource
from vram_residency.formats.source import ByteSource


@pytest.fixture
def model(tmp_path: Path) -> Path:
    path = tmp_path / "model.bin"
    path.write_bytes(bytes(range(100)))
    return path


@pytest.mark.parametrize("kind", ["file", "memory"])
def test_both_sources_give_exactly_the_bytes_that_are_asked_for(model: Path, kind: str) -> None:
    """By copy, and into a view."""
    source: ByteSource = FileSource(model) if kind == "file" else MemorySource(model.read_bytes())
    assert source.size_bytes == 100
    assert source.read(10, 5) == bytes(range(10, 15))
    assert source.read(100, 0) == b""
    target = bytearray(7)
    source.read_into(93, memoryview(target))
    assert target == bytes(range(93, 100))


@pytest.mark.parametrize("kind", ["file", "memory"])
@pytest.mark.parametrize(("offset", "length"), [(-1, 1), (0, 101), (100, 1), (5, -1)])
def test_a_read_outside_is_a_mistake_of_the_caller(model: Path, kind: str, offset: int, length: int) -> None:
    """The parsers check first; this is the net below them."""
    source: ByteSource = FileSource(model) if kind == "file" else MemorySource(model.read_bytes())
    with pytest.raises(ValueError, match="a read outside of"):
        source.read(offset, length)


def test_a_descriptor_is_given_back_once(model: Path) -> None:
    """close() may come twice, and the with statement closes."""
    with FileSource(model) as source:
        fd = source.fileno()
        assert os.fstat(fd).st_size == 100
    source.close()
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(fd)


def test_a_buffer_is_exported_until_closed() -> None:
    """A shard cannot be freed while a source reads it."""
    buffer = bytearray(10)
    source = MemorySource(buffer)
    with pytest.raises(BufferError, match="cannot be re-sized"):
        buffer.append(0)
    source.close()
    buffer.append(0)
    assert len(buffer) == 11


def test_a_buffer_with_gaps_is_refused() -> None:
    """Every other byte of something is no file."""
    with pytest.raises(InvalidInputError, match="must be contiguous"):
        MemorySource(memoryview(bytes(10))[::2])


def test_a_named_pipe_is_refused_without_waiting_for_a_writer(tmp_path: Path) -> None:
    """Opening a pipe the plain way would hang."""
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(InvalidInputError, match="is a named pipe, not a regular file"):
        FileSource(tmp_path / "pipe")


def test_what_is_no_regular_file_is_refused_by_its_kind(tmp_path: Path) -> None:
    """Directory, device, socket."""
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "s"))
        with pytest.raises(InvalidInputError, match="is a socket, not a regular file"):
            FileSource(tmp_path / "s")
    with pytest.raises(InvalidInputError, match="is a directory, not a regular file"):
        FileSource(tmp_path)
    with pytest.raises(InvalidInputError, match="is a character device, not a regular file"):
        FileSource("/dev/zero")


def test_paths_that_lead_nowhere_say_why(tmp_path: Path) -> None:
    """Missing, circular, too long, impossible."""
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    cases = {
        str(tmp_path / "absent"): "does not exist",
        str(tmp_path / "loop"): "cannot be read: Too many levels of symbolic links",
        str(tmp_path / ("x" * 300)): "cannot be read: File name too long",
        "a\0b": "it holds a character that no path may hold",
        "a\ud800": "it holds a character that no path may hold",
    }
    for path, reason in cases.items():
        with pytest.raises(InvalidInputError, match=reason) as caught:
            FileSource(path)
        assert caught.value.field == "path"


def test_an_unreadable_file_says_so(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Permission denied is the caller's to mend; simulated, since root may read everything."""

    def deny(*_: object) -> int:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(os, "open", deny)
    with pytest.raises(InvalidInputError, match="cannot be read: Permission denied"):
        FileSource(model)


def test_a_file_that_becomes_a_pipe_before_it_is_opened_is_refused(
    model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The look at the path is repeated on the descriptor, which is given back."""
    pipe = model.with_name("pipe")
    os.mkfifo(pipe)
    real_open, opened = os.open, []

    def swap(_: object, flags: int) -> int:
        opened.append(real_open(pipe, flags))
        return opened[0]

    monkeypatch.setattr(os, "open", swap)
    with pytest.raises(InvalidInputError, match="is a named pipe, not a regular file"):
        FileSource(model)
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(opened[0])


def test_a_failing_disk_is_no_traceback(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The system's reason is passed on."""

    def fail(*_: object) -> int:
        raise OSError(5, "Input/output error")

    source = FileSource(model)
    monkeypatch.setattr(os, "pread", fail)
    monkeypatch.setattr(os, "preadv", fail)
    with pytest.raises(InvalidInputError, match="cannot be read: Input/output error"):
        source.read(0, 1)
    with pytest.raises(InvalidInputError, match="cannot be read: Input/output error"):
        source.read_into(0, memoryview(bytearray(1)))


def test_a_file_cut_while_it_is_read_is_refused(model: Path) -> None:
    """The read that comes up short says so, and so does the check at the end."""
    source = FileSource(model)
    os.truncate(model, 50)
    assert source.read(0, 50) == bytes(range(50))
    for read in (lambda: source.read(40, 20), lambda: source.read_into(40, memoryview(bytearray(20)))):
        with pytest.raises(MalformedModelError, match="changed while it was read") as caught:
            read()
        assert caught.value.offset == 50
    with pytest.raises(MalformedModelError, match="changed while it was read"):
        source.require_unchanged()


def test_a_file_rewritten_while_it_is_read_is_refused(model: Path) -> None:
    """Same size, another time of modification; and growth."""
    source = FileSource(model)
    source.require_unchanged()
    status = model.stat()
    os.utime(model, ns=(status.st_atime_ns, status.st_mtime_ns + 1))
    with pytest.raises(MalformedModelError, match="changed while it was read"):
        source.require_unchanged()
    grown = FileSource(model)
    with model.open("ab") as file:
        file.write(b"x")
    with pytest.raises(MalformedModelError, match="changed while it was read") as caught:
        grown.require_unchanged()
    assert caught.value.offset == 100


def test_a_path_that_is_no_text_can_be_printed() -> None:
    """Bytes that are no UTF-8 appear as escapes."""
    assert printable_path(os.fsdecode(b"/m/\xff.gguf")) == "/m/\\udcff.gguf"


def test_a_file_edited_and_dated_back_is_still_refused(model: Path) -> None:
    """The modification time is its writer's to choose, the change time is not."""
    status = model.stat()
    with FileSource(model) as source:
        data = bytearray(model.read_bytes())
        data[-1] ^= 1
        with model.open("r+b") as file:
            file.write(data)
        os.utime(model, ns=(status.st_atime_ns, status.st_mtime_ns))
        assert model.stat().st_mtime_ns == status.st_mtime_ns
        with pytest.raises(MalformedModelError, match="changed while it was read"):
            source.require_unchanged()
