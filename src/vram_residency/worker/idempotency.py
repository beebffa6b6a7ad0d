"""Calls that may be made twice and are done once: the header Idempotency-Key, per actor and route.

Kept in memory, for as long as the worker lives and there is room. What failed for a reason that may pass is
not kept, so that the same call can succeed later.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from copy import copy
from typing import Any, Final, NamedTuple

from vram_residency.core.errors import InvalidInputError
from vram_residency.worker import deadline, problem
from vram_residency.worker.problem import Refused, problem_of

HEADER: Final = "Idempotency-Key"
KEY_CHARACTERS_MAX: Final = 255
#: What the OpenAPI document says of it.
HEADERS: Final = {HEADER: {"type": "string", "pattern": "^[!-~]{1,255}$"}}
#: Answers kept for one actor; the oldest goes first, so that nobody can push out another's.
ANSWERS_MAX: Final = 256
ACTORS_MAX: Final = 256


class Key(NamedTuple):
    """Whose call, of which route, under which name of the caller's own."""

    actor: str
    route: str
    name: str


class Call:
    """One call: under way until ``done``, then its answer or the error that it ended with."""

    def __init__(self, fingerprint: str) -> None:
        self.fingerprint = fingerprint
        self.done = asyncio.Event()
        self.answer: Any = None
        self.error: Exception | None = None


class Idempotency:
    """The calls of one worker. For one event loop; no lock is needed there."""

    def __init__(self, *, answers_max: int = ANSWERS_MAX, actors_max: int = ACTORS_MAX) -> None:
        self._answers_max = answers_max
        self._actors_max = actors_max
        self._calls: OrderedDict[str, OrderedDict[Key, Call]] = OrderedDict()

    async def once(
        self,
        key: Key,
        fingerprint: str,
        work: Callable[[], Awaitable[Any]],
        *,
        keeps_errors: bool = True,
    ) -> tuple[Any, bool]:
        """The answer of ``work``, and whether it was done now and not before.

        ``fingerprint`` stands for the body. A call under the same key that is under way is waited for.
        ``keeps_errors``: False where ``fingerprint`` does not stand for all of the body.
        Raises Refused where the key came with another body, and what ``work`` raised.
        """
        while (call := self._find(key)) is not None:
            if call.fingerprint != fingerprint:
                raise other_body()
            await deadline.within(call.done.wait())
            if self._find(key) is call:
                return _answer(call), False
        call = Call(fingerprint)
        self._keep(key, call)
        try:
            call.answer = await work()
        except BaseException as error:
            if keeps_errors and isinstance(error, Exception) and _is_final(error):
                call.error = error.with_traceback(None)
            else:
                self._forget(key)
            raise
        finally:
            call.done.set()
        return call.answer, True

    def _find(self, key: Key) -> Call | None:
        return self._calls.get(key.actor, OrderedDict[Key, Call]()).get(key)

    def _keep(self, key: Key, call: Call) -> None:
        mine = self._calls.setdefault(key.actor, OrderedDict())
        self._calls.move_to_end(key.actor)
        mine[key] = call
        _drop_oldest(mine, self._answers_max)
        if len(self._calls) > self._actors_max:
            idle = (
                name for name, calls in self._calls.items() if all(c.done.is_set() for c in calls.values())
            )
            self._calls.pop(next(idle, ""), None)

    def _forget(self, key: Key) -> None:
        mine = self._calls.get(key.actor, OrderedDict[Key, Call]())
        mine.pop(key, None)
        if not mine:
            self._calls.pop(key.actor, None)


def parse_name(unverified: str) -> str:
    """The caller's own name of a call: 1 to 255 visible ASCII characters. Raises InvalidInputError."""
    is_visible = all("!" <= character <= "~" for character in unverified)
    if not 1 <= len(unverified) <= KEY_CHARACTERS_MAX or not is_visible:
        raise InvalidInputError(HEADER, f"must be 1 to {KEY_CHARACTERS_MAX} visible ASCII characters")
    return unverified


def other_body() -> Refused:
    """The refusal of a key that came before with something else."""
    return Refused(
        problem.UNPROCESSABLE,
        f"this {HEADER} was used before with another body",
        hint="Make a new key for every new call.",
    )


def _is_final(error: Exception) -> bool:
    """Whether the request itself is at fault, so that the same one fails again."""
    found = problem_of(error, correlation_id=None)
    return found.status < problem.INTERNAL.status and not found.retriable


def _answer(call: Call) -> Any:
    if call.error is not None:
        raise copy(call.error)  # a copy: one that is raised again and again would keep every traceback
    return call.answer


def _drop_oldest(calls: OrderedDict[Key, Call], count_max: int) -> None:
    """Those under way stay: each holds a thread, so that they are few."""
    finished = [key for key, call in calls.items() if call.done.is_set()]
    for key in finished[: max(0, len(calls) - count_max)]:
        del calls[key]
