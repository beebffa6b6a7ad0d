"""The worker's states (worker.md): derived from what holds, never set by hand. Pure, without clock or lock.

::

    starting ─> loading ─> ready <─> executing ─> draining ─> stopped
        └──────────┴─────────┴──────────┴────────────────────────┘ damage, policy, a lost device

Ready takes at least one verified shard, or the explicit wish to start empty. Stopped is final: the process
stays up for forensics and hands nothing out.
"""

from __future__ import annotations

from enum import StrEnum

import msgspec


class State(StrEnum):
    """What the worker can do now."""

    STARTING = "starting"
    LOADING = "loading"
    READY = "ready"
    EXECUTING = "executing"
    DRAINING = "draining"
    STOPPED = "stopped"


class Change(msgspec.Struct, frozen=True):
    """One step from a state to another, and why: what is audited and narrated."""

    from_state: State
    to_state: State
    reason: str


class Conditions(msgspec.Struct, frozen=True, kw_only=True):
    """What holds at one moment.

    ``stopped_by`` is the reason why the worker must not go on, ``has_ended`` that draining is over.
    """

    has_begun: bool = False
    may_be_empty: bool = False
    usable_shards: int = 0
    executions: int = 0
    is_draining: bool = False
    has_ended: bool = False
    stopped_by: str | None = None

    @property
    def state(self) -> State:
        """The first that applies, gravest first."""
        if self.stopped_by is not None or self.has_ended:
            return State.STOPPED
        if self.is_draining:
            return State.DRAINING
        if self.executions:
            return State.EXECUTING
        if self.usable_shards or (self.may_be_empty and self.has_begun):
            return State.READY
        return State.LOADING if self.has_begun else State.STARTING

    @property
    def admits(self) -> bool:
        """Whether new work is taken."""
        return self.state in {State.READY, State.EXECUTING, State.LOADING}

    @property
    def is_ready(self) -> bool:
        """Whether a model can be executed."""
        return self.state in {State.READY, State.EXECUTING}


def step(before: Conditions, after: Conditions, reason: str) -> Change | None:
    """The change of state between two moments, if there is one."""
    if before.state is after.state:
        return None
    return Change(before.state, after.state, after.stopped_by or reason)
