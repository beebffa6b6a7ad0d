"""The context of a request: set once, read everywhere, gone afterwards."""

from __future__ import annotations

import threading
from contextlib import suppress

from vram_residency.core import context
from vram_residency.core.identifiers import CorrelationId


def worker_seen_by_a_failing_operation() -> str | None:
    with suppress(RuntimeError), context.operation("inner"):
        seen = context.worker_id.get()
        raise RuntimeError(seen)
    return seen


def test_an_operation_makes_an_id_that_ends_with_it() -> None:
    """Without a caller's id one is made, and nothing stays behind."""
    with context.operation() as made:
        assert context.correlation_id.get() == made
    assert context.correlation_id.get() is None


def test_an_operation_keeps_the_callers_id() -> None:
    """Audit and narration of nested operations carry the id of the outermost."""
    with context.operation() as outer, context.operation() as inner:
        assert inner == outer
    token = context.correlation_id.set(CorrelationId("req-xyz"))
    with context.operation() as kept:
        assert kept == "req-xyz"
    context.correlation_id.reset(token)


def test_an_operation_restores_the_worker_even_after_an_error() -> None:
    """The worker of an inner operation does not leak into the outer one."""
    with context.operation("outer"):
        assert worker_seen_by_a_failing_operation() == "inner"
        assert context.worker_id.get() == "outer"
    assert context.worker_id.get() is None


def test_an_inner_operation_without_worker_inherits_it() -> None:
    """Only a named worker replaces the one that is set."""
    with context.operation("outer"), context.operation():
        assert context.worker_id.get() == "outer"


def test_another_thread_does_not_see_the_id() -> None:
    """Context is per thread, so requests side by side do not mix."""
    seen: list[object] = []
    with context.operation():
        thread = threading.Thread(target=lambda: seen.append(context.correlation_id.get()))
        thread.start()
        thread.join()
    assert seen == [None]
