"""Capturing: per context, nestable, safe in threads and tasks, and helpful when an assertion fails."""

from __future__ import annotations

import asyncio
import contextvars
import io
import subprocess
import sys
import textwrap
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from tests.narration_calls import CALLS, EVERY_CALL, call

from vram_residency.narration import Story, capture_narration, configure, narrate
from vram_residency.narration.gate import gate


def seal(number: int) -> None:
    call("seal", shard_id=f"shard-{number}")


def shards(story: Story) -> list[str]:
    return [event.target for event in story.events]


def test_every_level_is_captured_and_in_order() -> None:
    """Whatever the outputs' level, mute included."""
    configure(level="mute", form="json", stream=io.StringIO())
    try:
        with capture_narration() as story:
            for make in EVERY_CALL.values():
                make()
    finally:
        configure(form="logging")
    assert [event.action for event in story.events] == list(CALLS)


def test_what_is_outside_the_block_is_not_captured() -> None:
    """Before, after, and from a context that outlives the block."""
    call("seal", shard_id="before")
    with capture_narration() as story:
        seal(1)
        kept = contextvars.copy_context()
    call("seal", shard_id="after")
    kept.run(seal, 2)
    assert shards(story) == ["shard-1"]


def test_the_gate_closes_when_the_last_capture_ends() -> None:
    """Also when the block is left by an error."""

    def interrupted() -> None:
        with capture_narration(), capture_narration():
            assert gate.floor < before
            raise RuntimeError("boom")

    before = gate.floor
    with pytest.raises(RuntimeError, match="boom"):
        interrupted()
    assert gate.floor == before


def test_captures_nest() -> None:
    """The outer one sees the inner one's events too."""
    with capture_narration() as outer:
        seal(1)
        with capture_narration() as inner:
            seal(2)
        seal(3)
    assert shards(outer) == ["shard-1", "shard-2", "shard-3"]
    assert shards(inner) == ["shard-2"]


def test_threads_with_captures_of_their_own_do_not_mix() -> None:
    """Sixteen at once."""
    barrier = threading.Barrier(16)

    def one(number: int) -> list[str]:
        with capture_narration() as story:
            barrier.wait()
            for _ in range(20):
                seal(number)
        return shards(story)

    with ThreadPoolExecutor(16) as pool:
        for number, seen in enumerate(pool.map(one, range(16))):
            assert seen == [f"shard-{number}"] * 20


def test_threads_that_share_a_capture_lose_nothing() -> None:
    """A context taken along is captured."""
    with capture_narration() as story, ThreadPoolExecutor(8) as pool:
        for number in range(200):
            pool.submit(contextvars.copy_context().run, seal, number)
    assert sorted(shards(story)) == sorted(f"shard-{number}" for number in range(200))


def test_tasks_do_not_mix_and_share_the_outer_capture() -> None:
    """Each task has its own context; to_thread takes it along."""

    async def one(number: int) -> list[str]:
        with capture_narration() as story:
            for _ in range(5):
                await asyncio.sleep(0)
                seal(number)
            await asyncio.to_thread(seal, number)
        return shards(story)

    async def all_of_them() -> list[list[str]]:
        return await asyncio.gather(*(one(number) for number in range(10)))

    with capture_narration() as outer:
        seen = asyncio.run(all_of_them())
    assert seen == [[f"shard-{number}"] * 6 for number in range(10)]
    assert len(outer.events) == 60


def test_the_assertions_return_what_they_found() -> None:
    """So that a test can look closer."""
    with capture_narration() as story:
        seal(1)
        call("verify", shard_id="shard-1", correlation_id="req-9")
        call("verify", shard_id="shard-2")
    assert story.includes("Sealed model").action == "seal"
    assert story.field("shard_id", "shard-2") is story.events[2]
    assert story.correlation_id_present() is story.events[1]
    assert story.in_order("seal", "verify") == story.events[:2]
    assert story.one(action="verify", correlation_id="req-9") is story.events[1]


@pytest.mark.parametrize(
    ("check", "finding"),
    [
        (lambda story: story.one(action="sign"), "0 events have action='sign'"),
        (lambda story: story.one(action="verify"), "2 events have action='verify'"),
        (lambda story: story.one(), "3 events have any fields"),
        (lambda story: story.includes("nonsense"), "no sentence includes 'nonsense'"),
        (lambda story: story.field("shard_id", "x"), "no event has shard_id='x'"),
        (lambda story: story.correlation_id_present(), "no event has a correlation_id"),
        (
            lambda story: story.in_order("verify", "seal"),
            "'seal' did not happen after 'verify'; expected in order: verify, seal",
        ),
    ],
)
def test_a_failed_assertion_shows_what_was_captured(check: object, finding: str) -> None:
    """Each event with its level, action, target, sentence and fields."""
    with capture_narration() as story:
        seal(1)
        call("verify", shard_id="shard-1")
        call("verify", shard_id="shard-2")
    with pytest.raises(AssertionError) as failure:
        check(story)
    message = str(failure.value)
    assert finding in message
    assert (
        "info seal shard-1: Sealed model shard 'shard-1' in 1 MB VRAM on GPU 0 (2 ms) [device=GPU0" in message
    )
    assert message.count("\n  info ") == 3


def test_a_failed_assertion_on_nothing_says_so() -> None:
    """An empty story is the most frequent mistake."""
    with capture_narration() as story:
        pass
    with pytest.raises(AssertionError, match="captured narration: nothing"):
        story.includes("anything")


def test_outputs_go_on_while_something_is_captured() -> None:
    """At their own level."""
    stream = io.StringIO()
    configure(level="warn", form="json", stream=stream)
    try:
        with capture_narration():
            call("seal")
            call("validate_failed")
            narrate(action="seal", target="t", human="Captured alone", level="mute")
    finally:
        configure(form="logging")
    assert stream.getvalue().count("\n") == 1
    assert '"action":"validate_failed"' in stream.getvalue()


def test_the_fixture_captures_the_test(narration: Story) -> None:
    """It comes with the package's pytest plugin."""
    seal(1)
    assert narration.one(action="seal").target == "shard-1"


def test_the_plugin_costs_other_test_suites_nothing(tmp_path: Path) -> None:
    """With warnings as errors, and without loading the library until a test asks for the fixture."""
    (tmp_path / "test_user.py").write_text(
        textwrap.dedent(
            """
            import sys

            def test_nothing_is_loaded():
                heavy = {"structlog", "cryptography", "msgspec", "vram_residency.narration"}
                assert not heavy & set(sys.modules)

            def test_the_fixture_works(narration):
                from vram_residency.narration import narrate_model_sealed
                narrate_model_sealed(shard_id="s", vram_bytes=1)
                narration.includes("'s'")
            """
        )
    )
    options = [
        "-q",
        "-W",
        "error",
        "-p",
        "no:randomly",
        "-p",
        "no:cacheprovider",
        "-p",
        "no:hypothesispytest",
    ]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", *options, str(tmp_path)],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        check=False,
    )
    assert "2 passed" in done.stdout, done.stdout + done.stderr
