"""How bytes come into memory: in runs of 1 MiB through one page-aligned buffer, watched as they arrive.

Measured (benchmarks/fill.py): plain writes of 1 MiB to a memfd are as fast as sendfile or two threads and
twice as fast as reading into a mapping, whose page faults cost more than the copy. Host memory beside the
shard is one buffer.
"""

from __future__ import annotations

import mmap
import threading
from collections.abc import Callable, Iterator
from queue import SimpleQueue
from types import TracebackType
from typing import TYPE_CHECKING, Any

from vram_residency.core.errors import AllocationError, InvalidInputError, MalformedModelError
from vram_residency.device.base import RUN_BYTES, Observer, Progress, Source

if TYPE_CHECKING:
    from typing import Self

# Below this a thread costs more than it saves.
_ALONE_BYTES = 4 * RUN_BYTES


def runs(source: Source, size_bytes: int) -> Iterator[memoryview]:
    """All bytes of ``source`` in order, RUN_BYTES at a time; each run is valid until the next is taken.

    Raises InvalidInputError where the source has not ``size_bytes``, MalformedModelError where it shrinks.
    """
    actual_bytes = source.size_bytes if hasattr(source, "size_bytes") else _bytes_of(source).nbytes
    if actual_bytes != size_bytes:
        raise InvalidInputError("source", f"has {actual_bytes} bytes where {size_bytes} were allocated")
    if hasattr(source, "read_into"):
        return _read_into(source, size_bytes)
    if hasattr(source, "read"):
        return _read(source, size_bytes)
    return _slices(_bytes_of(source), size_bytes)


def _spans(size_bytes: int) -> Iterator[tuple[int, int]]:
    return ((start, min(RUN_BYTES, size_bytes - start)) for start in range(0, size_bytes, RUN_BYTES))


def _bytes_of(source: Any) -> memoryview:
    try:
        view = memoryview(source)
    except TypeError:
        raise InvalidInputError("source", "must be a source of bytes or offer the buffer protocol") from None
    if not view.c_contiguous:
        raise InvalidInputError("source", "must be contiguous in C order")
    return view.cast("B") if view.nbytes else memoryview(b"")


def _slices(view: memoryview, size_bytes: int) -> Iterator[memoryview]:
    return (view[start : start + length] for start, length in _spans(size_bytes))


def _read_into(source: Any, size_bytes: int) -> Iterator[memoryview]:
    # An anonymous mapping begins on a page, which direct reading needs and copying likes. It goes with its
    # last view: the traceback of whatever ends the filling may still look at a run.
    whole = memoryview(mmap.mmap(-1, RUN_BYTES))
    for start, length in _spans(size_bytes):
        with whole[:length] as run:
            source.read_into(start, run)
            yield run


def _read(source: Any, size_bytes: int) -> Iterator[memoryview]:
    for start, length in _spans(size_bytes):
        run = source.read(start, length)
        if len(run) != length:
            name = str(getattr(source, "path", "source"))
            raise MalformedModelError(name, start + len(run), "changed while it was read")
        yield memoryview(run)


def pour(
    source: Source,
    view: memoryview,
    *,
    write: Callable[[int, memoryview], None],
    on_progress: Progress | None,
    observer: Observer | None,
) -> None:
    """Bring all bytes of ``source`` into memory by ``write(offset, run)``; see ``OpenMemory.fill``.

    ``view`` is the final mapping of that memory; it is released at the end.
    """
    done, size_bytes = 0, len(view)
    with Watch(view, observer) as watch:
        for run in runs(source, size_bytes):
            write(done, run)
            done += len(run)
            watch.arrived(done)
            if on_progress is not None:
                on_progress(done, size_bytes)


class Watch:
    """Shows memory to an observer as it fills, in order, in a thread of its own.

    ``view`` is the final mapping, read-only: what the observer sees is what the memory holds. The observer's
    error ends the filling at the next ``arrived()`` or at the end of the block.
    """

    def __init__(self, view: memoryview, observer: Observer | None) -> None:
        self._view = view
        self._observer = observer
        self._ends: SimpleQueue[int | None] = SimpleQueue()
        self._shown = 0
        self._error: BaseException | None = None
        self._is_cancelled = False
        self._thread: threading.Thread | None = None

    def __enter__(self) -> Self:
        if self._observer is not None and len(self._view) > _ALONE_BYTES:
            self._thread = threading.Thread(target=self._run, name="vram-observer", daemon=True)
            try:
                self._thread.start()
            except RuntimeError as error:
                raise AllocationError("start a thread", str(error)) from error
        return self

    def arrived(self, end: int) -> None:
        """Everything before ``end`` is in the memory now."""
        if self._error is not None:
            raise self._error
        if self._thread is not None:
            self._ends.put(end)
        else:
            self._show(end)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._is_cancelled = error is not None
        if self._thread is not None:
            self._ends.put(None)
            self._thread.join()
        self._view.release()
        if error is None and self._error is not None:
            raise self._error

    def _run(self) -> None:
        try:
            while (end := self._ends.get()) is not None:
                self._show(end)
        except BaseException as error:  # noqa: BLE001 - it is raised again in the thread that fills
            self._error = error

    def _show(self, end: int) -> None:
        if self._observer is None or self._is_cancelled:
            return
        with self._view[self._shown : end] as run:
            self._observer(run)
        self._shown = end
