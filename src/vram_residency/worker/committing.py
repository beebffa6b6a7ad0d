"""One commit as HTTP sees it: JSON or a body, waited for or followed, once or again (worker.md)."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from hashlib import sha256
from typing import Any, Final

import msgspec

from vram_residency.core import context
from vram_residency.device.base import Progress
from vram_residency.digest.hashing import new_hasher
from vram_residency.worker import deadline, wire
from vram_residency.worker.body import BodySource
from vram_residency.worker.idempotency import Idempotency, Key, other_body, parse_name
from vram_residency.worker.service import WorkerService
from vram_residency.worker.threads import CallerGoneError, Pair, Threads
from vram_residency.worker.upload import Upload

ROUTE: Final = "POST /v1/commit"
PROGRESS_INTERVAL_S: Final = 0.1

Handles = list[wire.Handle]
#: Seals, telling of its progress; blocks.
Seal = Callable[[Progress], Handles]
Commit = Callable[[Progress], Awaitable[Handles]]


class Committing:
    """Makes the commits of one application."""

    def __init__(self, service: WorkerService, threads: Threads) -> None:
        self._service = service
        self._threads = threads
        self._idempotency = Idempotency()

    def of_path(self, request: wire.CommitRequest, key: str | None) -> Commit:
        """The commit of a path."""
        fingerprint = _fingerprint(request)

        async def commit(on_progress: Progress) -> Handles:
            handles, _ = await self._once(
                key,
                fingerprint,
                lambda: self._seal(lambda told: self._service.commit_path(request, told), on_progress),
            )
            return handles

        return commit

    def of_body(self, query: wire.BodyCommit, upload: Upload, key: str | None) -> Commit:
        """The commit of a request's body. One that was committed before is read again, and compared."""
        fingerprint = _fingerprint(query, upload.size_bytes)
        source = BodySource(upload.pull, size_bytes=upload.size_bytes, name=query.name)

        async def commit(on_progress: Progress) -> Handles:
            handles, is_new = await self._once(
                key,
                fingerprint,
                lambda: self._seal(
                    lambda told: self._service.commit_source(source, query.as_request(), told), on_progress
                ),
                keeps_errors=False,
            )
            if not is_new and await self._threads.call_to_its_end(_digest_of, upload) != handles[0].digest:
                raise other_body()
            return handles

        return commit

    async def _seal(self, seal: Seal, on_progress: Progress) -> Handles:
        def go_on(done_bytes: int, all_bytes: int) -> None:
            deadline.check()
            on_progress(done_bytes, all_bytes)

        return await self._threads.call_to_its_end(seal, go_on)

    async def _once(
        self,
        key: str | None,
        fingerprint: str,
        work: Callable[[], Awaitable[Handles]],
        *,
        keeps_errors: bool = True,
    ) -> tuple[Handles, bool]:
        if key is None:
            return await work(), True
        named = Key(_actor(), ROUTE, parse_name(key))
        return await self._idempotency.once(named, fingerprint, work, keeps_errors=keeps_errors)


class CommitFlow:
    """A commit under way as pairs: ``progress`` now and then, then ``end`` with the handles.

    Closing it undoes the commit, unless it is done.
    """

    def __init__(self, commit: Commit) -> None:
        self._loop = asyncio.get_running_loop()
        self._told: asyncio.Queue[Any] = asyncio.Queue()
        self._is_closed = False
        self._next_s = 0.0
        self._task = asyncio.create_task(self._run(commit))  # kept: a task that nobody holds may vanish

    async def take(self) -> Pair | None:
        """The next pair, None at the end. Raises what the commit raised."""
        told = await self._told.get()
        if isinstance(told, Exception):
            raise told
        return told  # type: ignore[no-any-return] # a pair or None

    def close(self) -> None:
        """Nobody takes the answer any more."""
        self._is_closed = True

    async def _run(self, commit: Commit) -> None:
        try:
            handles = await commit(self._progress)
        except Exception as error:  # noqa: BLE001 - it is raised again where the pairs are taken
            self._told.put_nowait(error)
            return
        self._told.put_nowait(("end", {"handles": handles}))
        self._told.put_nowait(None)

    def _progress(self, done_bytes: int, all_bytes: int) -> None:
        """In the thread that seals: tell of the progress, but not too often and not to nobody."""
        if self._is_closed:
            raise CallerGoneError
        now_s = time.monotonic()
        if now_s < self._next_s or self._told.qsize():
            return
        self._next_s = now_s + PROGRESS_INTERVAL_S
        pair = ("progress", {"done_bytes": done_bytes, "all_bytes": all_bytes})
        with suppress(RuntimeError):  # the loop has ended
            self._loop.call_soon_threadsafe(self._told.put_nowait, pair)


def _fingerprint(*parts: Any) -> str:
    return sha256(msgspec.json.encode([type(parts[0]).__name__, *parts])).hexdigest()


def _actor() -> str:
    found = context.actor.get() or {}
    return f"{found.get('auth_method', '')}:{found.get('user_id', '')}"


def _digest_of(upload: Upload) -> str:
    hasher = new_hasher("blake3")
    while data := upload.pull():
        hasher.update(data)
        deadline.check()
    return f"blake3:{hasher.hexdigest()}"
