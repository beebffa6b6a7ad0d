"""Whoever counts what a manager does: told of each operation beside its evidence and its sentence."""

from __future__ import annotations

from vram_residency.core.errors import RefusedError, RetriableError
from vram_residency.residency.shard import Verification


class Observer:
    """Told nothing that could not be counted; override what you want to know.

    Called in the thread that did the work, after it is recorded: it must neither wait nor raise.
    """

    def sealed(self, duration_s: float) -> None:
        """A shard was sealed."""

    def seal_failed(self, result: str) -> None:
        """A seal came to nothing: ``refused`` (the input is at fault), ``no_room`` or ``failed``."""

    def verified(self, result: Verification) -> None:
        """A shard is what was sealed."""

    def damage_found(self, result: Verification) -> None:
        """A shard is not what was sealed."""

    def handle_refused(self) -> None:
        """Somebody asked for a shard that is not here, not sealed, or not as the handle says."""

    def allocation_failed(self, reason: str) -> None:
        """Memory was refused: ``insufficient_vram`` or ``driver_error``."""

    def policy_violated(self) -> None:
        """The policy was broken, whatever followed."""


#: Counts nothing.
NOBODY = Observer()


def result_of(error: BaseException) -> str:
    """The word for a seal that ended with an error."""
    if isinstance(error, RefusedError):
        return "refused"
    return "no_room" if isinstance(error, RetriableError) else "failed"
