"""What computes: an engine is given read-only views of a verified shard, not the shard (worker.md)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Protocol, runtime_checkable

from vram_residency.residency import Views


@runtime_checkable
class Engine(Protocol):
    """Found by the entry point group ``vram_residency.engines``; one for each shard, one execution at a time.

    ``load`` is called once, inside the gate's block of the first execution. Arrays made from the views there
    may be kept until ``close``: every later execution passes the gate, which verifies the same memory, before
    ``execute`` is called. The shard cannot be freed while an engine keeps arrays of it.
    """

    def load(self, views: Views, metadata: Mapping[str, Any]) -> None:
        """Make ready to execute on these views. Raises InvalidInputError where the model does not fit.

        ``metadata``: shard_id, format, model_ref, and directory: where files that lie beside the model can be
        read during this call, or None.
        """

    def execute(self, request: Mapping[str, Any]) -> Iterator[Any]:
        """Outputs, as JSON values, one by one; closing the iterator cancels."""

    def close(self) -> None:
        """Let go of all views."""
