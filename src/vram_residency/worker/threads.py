"""Where blocking work runs, so that the event loop never waits: a bounded number of threads.

Every call has a thread for as long as it lasts, and none is started without one: a call that waits for a
shard's turn can never keep the call that it waits for from running.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from contextvars import copy_context
from typing import Any, Final, TypeVar

from vram_residency.worker import deadline, problem
from vram_residency.worker.problem import Refused

PLACES: Final = 64
#: How long a request waits for a place before it is told to come again.
WAIT_S: Final = 2.0
#: How long an answer may stand still because its reader takes nothing.
PATIENCE_S: Final = 60.0

T = TypeVar("T")
Pair = tuple[str, Any]
Give = Callable[[Pair], None]
_END: Final = object()


class CallerGoneError(Exception):
    """Nobody takes the answer any more: work that is under way ends here."""


class Threads:
    """At most ``places`` calls at a time. One event loop's; close it when that ends."""

    def __init__(self, places: int = PLACES, *, wait_s: float = WAIT_S) -> None:
        self._pool = ThreadPoolExecutor(places, thread_name_prefix="vram-worker")
        self._free = asyncio.Semaphore(places)
        self._wait_s = wait_s

    async def call(self, function: Callable[..., T], *args: Any) -> T:
        """What ``function`` returns. At the deadline the caller is let go, and the function ends unheard.

        Raises Refused (BUSY, DEADLINE_EXCEEDED), and what ``function`` raises.
        """
        return await deadline.within(asyncio.shield(await self._started(function, *args)))

    async def call_to_its_end(self, function: Callable[..., T], *args: Any) -> T:
        """Like ``call``, for work that must not end unheard: it looks at the deadline itself."""
        return await asyncio.shield(await self._started(function, *args))

    async def flow(self, produce: Callable[[Give], None]) -> Flow:
        """Begin to produce pairs in a thread of their own. Raises Refused (BUSY)."""
        flow = Flow()
        await self._started(flow.run, produce)
        return flow

    def close(self) -> None:
        """Take no more calls; those under way go on."""
        self._pool.shutdown(wait=False)

    async def _started(self, function: Callable[..., T], *args: Any) -> asyncio.Future[T]:
        await self._take_place()
        loop = asyncio.get_running_loop()
        future: Future[T] = self._pool.submit(copy_context().run, function, *args)
        future.add_done_callback(lambda _: self._give_back(loop))
        started = asyncio.wrap_future(future)
        started.add_done_callback(_take_note)
        return started

    async def _take_place(self) -> None:
        try:
            async with asyncio.timeout(self._wait_s):
                await deadline.within(self._free.acquire())
        except TimeoutError:
            raise Refused(problem.BUSY, "all threads of the worker are at work") from None

    def _give_back(self, loop: asyncio.AbstractEventLoop) -> None:
        with suppress(RuntimeError):  # the loop has ended, and its places with it
            loop.call_soon_threadsafe(self._free.release)


class Flow:
    """Pairs on their way from a thread to the event loop, one at a time.

    The thread goes on only when the next pair is asked for, so that nothing is computed after ``close()``
    but what was already under way.
    """

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._arrived: asyncio.Queue[Any] = asyncio.Queue()
        self._wanted = threading.Semaphore(0)
        self._is_closed = False
        self._is_first = True

    def run(self, produce: Callable[[Give], None]) -> None:
        """Produce all pairs; in the thread. What is raised goes to who takes the pairs."""
        end: Any = _END
        try:
            produce(self._give)
        except CallerGoneError:
            pass
        except Exception as error:  # noqa: BLE001 - it is raised again where the pairs are taken
            end = error
        self._send(end)

    async def take(self) -> Pair | None:
        """The next pair, or None at the end. Raises what the thread raised, and Refused at the deadline."""
        if not self._is_first:
            self._wanted.release()
        self._is_first = False
        arrived = await deadline.within(self._arrived.get())
        if isinstance(arrived, Exception):
            raise arrived
        return None if arrived is _END else arrived

    async def __aiter__(self) -> AsyncIterator[Pair]:
        while (pair := await self.take()) is not None:
            yield pair

    def close(self) -> None:
        """Let the thread end at its next pair. Never waits; may be called again."""
        self._is_closed = True
        self._wanted.release()

    def _give(self, pair: Pair) -> None:
        self._send(pair)
        is_wanted = self._wanted.acquire(timeout=PATIENCE_S)
        if self._is_closed or not is_wanted:
            raise CallerGoneError

    def _send(self, arrived: Any) -> None:
        with suppress(RuntimeError):  # the loop has ended
            self._loop.call_soon_threadsafe(self._arrived.put_nowait, arrived)


def _take_note(future: asyncio.Future[Any]) -> None:
    """Look at an error that nobody waits for any more, so that asyncio does not complain of it."""
    if not future.cancelled():
        future.exception()
