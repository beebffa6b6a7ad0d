"""What a request carries along: set once by the caller, read by audit and narration alike.

The variables live below both, so that the two traces of one operation carry the same correlation id
without knowing each other.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from contextvars import ContextVar

from vram_residency.core.identifiers import CorrelationId, new_correlation_id

correlation_id: ContextVar[CorrelationId | None] = ContextVar("vram_correlation_id", default=None)
worker_id: ContextVar[str | None] = ContextVar("vram_worker_id", default=None)
#: The actor of an audit entry's envelope: the fields of events.Actor as a plain mapping.
actor: ContextVar[Mapping[str, str] | None] = ContextVar("vram_actor", default=None)


@contextmanager
def operation(worker: str | None = None) -> Iterator[CorrelationId]:
    """One operation: keeps the caller's correlation id, or makes one that ends with the block."""
    current = correlation_id.get() or new_correlation_id()
    correlation_token = correlation_id.set(current)
    worker_token = worker_id.set(worker or worker_id.get())
    try:
        yield current
    finally:
        # A block of execution() may end in another context than it began in, as when asyncio.to_thread runs
        # both ends: the variables that were set are gone then, and there is nothing to put back.
        with suppress(ValueError):
            worker_id.reset(worker_token)
        with suppress(ValueError):
            correlation_id.reset(correlation_token)
