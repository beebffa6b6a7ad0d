"""Calls under one key are made once; what is kept is bounded for each actor."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from vram_residency import InsufficientMemoryError, InvalidInputError
from vram_residency.worker.idempotency import Idempotency, Key
from vram_residency.worker.problem import Refused


def key(name: str, actor: str = "alice") -> Key:
    """A key of the one route of these tests."""
    return Key(actor, "POST /x", name)


class Work:
    """What counts how often it was done, and can fail or be held."""

    def __init__(self, error: Exception | None = None) -> None:
        self.count = 0
        self.error = error
        self.may_end = asyncio.Event()
        self.may_end.set()

    async def __call__(self) -> int:
        self.count += 1
        await self.may_end.wait()
        if self.error is not None:
            raise self.error
        return self.count


def run(function: Any) -> Any:
    """Run a coroutine function, not for ever."""

    async def bounded() -> Any:
        return await asyncio.wait_for(function(), 20)

    return asyncio.run(bounded())


def test_ten_duplicates_at_once_wait_for_one_call():
    async def talk() -> None:
        calls, work = Idempotency(), Work()
        work.may_end.clear()
        asked = [asyncio.create_task(calls.once(key("k"), "f", work)) for _ in range(10)]
        await asyncio.sleep(0)
        work.may_end.set()
        answers = await asyncio.gather(*asked)
        assert [answer for answer, _ in answers] == [1] * 10
        assert [is_new for _, is_new in answers].count(True) == 1

    run(talk)


def test_a_duplicate_of_a_call_that_failed_for_now_makes_it_itself():
    async def talk() -> None:
        calls, failing, work = Idempotency(), Work(InsufficientMemoryError(2, 1)), Work()
        failing.may_end.clear()
        first = asyncio.create_task(calls.once(key("k"), "f", failing))
        await asyncio.sleep(0)
        second = asyncio.create_task(calls.once(key("k"), "f", work))
        await asyncio.sleep(0)
        failing.may_end.set()
        with pytest.raises(InsufficientMemoryError):
            await first
        assert await second == (1, True)

    run(talk)


def test_a_refusal_for_good_is_given_again_as_another_object():
    async def talk() -> None:
        calls, error = Idempotency(), InvalidInputError("path", "is bad")
        work = Work(error)
        for _ in range(2):
            with pytest.raises(InvalidInputError, match="is bad"):
                await calls.once(key("k"), "f", work)
        assert work.count == 1
        with pytest.raises(InvalidInputError):
            await calls.once(key("l"), "f", work, keeps_errors=False)
        with pytest.raises(InvalidInputError):
            await calls.once(key("l"), "f", work, keeps_errors=False)
        assert work.count == 3

    run(talk)


def test_a_call_that_is_cancelled_is_forgotten():
    async def talk() -> None:
        calls, held = Idempotency(), Work()
        held.may_end.clear()
        first = asyncio.create_task(calls.once(key("k"), "f", held))
        await asyncio.sleep(0)
        first.cancel()
        with pytest.raises(asyncio.CancelledError):
            await first
        assert await calls.once(key("k"), "f", Work()) == (1, True)

    run(talk)


def test_nobody_pushes_out_anothers_answer():
    async def talk() -> None:
        calls, work = Idempotency(answers_max=3), Work()
        await calls.once(key("mine", "alice"), "f", work)
        for number in range(50):
            await calls.once(key(str(number), "mallory"), "f", work)
        assert await calls.once(key("mine", "alice"), "f", work) == (1, False)
        assert not (await calls.once(key("49", "mallory"), "f", work))[1]
        assert (await calls.once(key("0", "mallory"), "f", work))[1]

    run(talk)


def test_the_number_of_actors_is_bounded():
    async def talk() -> None:
        calls, work = Idempotency(actors_max=4), Work()
        for number in range(20):
            await calls.once(key("k", f"actor-{number}"), "f", work)
        assert len(calls._calls) == 4
        assert not (await calls.once(key("k", "actor-19"), "f", work))[1]

    run(talk)


def test_another_fingerprint_is_refused():
    async def talk() -> None:
        calls, work = Idempotency(), Work()
        await calls.once(key("k"), "f", work)
        with pytest.raises(Refused, match="another body"):
            await calls.once(key("k"), "g", work)

    run(talk)
