"""The closed vocabularies of narration: levels, actors, actions; extended by registration alone."""

from __future__ import annotations

import re
import threading
from typing import Final

from vram_residency.core.errors import InvalidInputError

# The numbers of standard logging where it has the level.
TRACE: Final = 5
DEBUG: Final = 10
INFO: Final = 20
WARN: Final = 30
ERROR: Final = 40
FATAL: Final = 50
#: As a threshold it silences everything; an event of this level is captured and never put out.
MUTE: Final = 100

LEVELS: Final = {
    "trace": TRACE,
    "debug": DEBUG,
    "info": INFO,
    "warn": WARN,
    "error": ERROR,
    "fatal": FATAL,
    "mute": MUTE,
}
LEVEL_NAMES: Final = {number: name for name, number in LEVELS.items()}

OURSELVES: Final = "vram-residency"

# Both are replaced whole under _lock, so that readers need none.
_lock = threading.Lock()
_actors: frozenset[str] = frozenset(
    {"orchestratord", "pool-managerd", "worker-orcd", "inference-engine", OURSELVES}
)
_actions: dict[str, int] = {
    "init": INFO,
    "seal": INFO,
    "verify": INFO,
    "verify_failed": FATAL,
    "allocate": INFO,
    "allocate_failed": ERROR,
    "deallocate": INFO,
    "policy_violation": FATAL,
    "digest": DEBUG,
    "sign": DEBUG,
    "cuda_init": INFO,
    "validate_failed": WARN,
    "capacity_query": DEBUG,
    # Beyond the thirteen functions:
    "audit_failed": ERROR,
    "correlation_replaced": WARN,
    "request_failed": ERROR,
    "shards_lost": WARN,
    "worker_state": INFO,
}
_ACTOR = re.compile(r"[a-z][a-z0-9-]{0,63}\Z")
_ACTION = re.compile(r"[a-z][a-z0-9_]{0,63}\Z")


def actors() -> frozenset[str]:
    """The names that may act in an event."""
    return _actors


def actions() -> dict[str, str]:
    """The names of what may be done, each with its usual level."""
    return {action: LEVEL_NAMES[level] for action, level in _actions.items()}


def register_actor(name: str) -> None:
    """Add an actor: lower-case letters, digits and dashes. Raises InvalidInputError for any other name."""
    global _actors  # noqa: PLW0603 - one vocabulary per process
    if not _ACTOR.match(name):
        raise InvalidInputError("actor", "must be 1 to 64 of a-z 0-9 - and begin with a letter")
    with _lock:
        _actors |= {name}


def register_action(name: str, *, level: str = "info") -> None:
    """Add an action with its usual level: lower-case letters, digits and underscores.

    Raises InvalidInputError for any other name, and where the action exists with another level.
    """
    global _actions  # noqa: PLW0603 - one vocabulary per process
    if not _ACTION.match(name):
        raise InvalidInputError("action", "must be 1 to 64 of a-z 0-9 _ and begin with a letter")
    number = level_number(level)
    with _lock:
        if _actions.get(name, number) != number:
            raise InvalidInputError(
                "action", f"'{name}' is registered at level {LEVEL_NAMES[_actions[name]]}"
            )
        _actions = {**_actions, name: number}


def level_number(name: str) -> int:
    """The number of a level's name. Raises InvalidInputError for an unknown one."""
    if name not in LEVELS:
        raise InvalidInputError("level", f"must be one of {', '.join(LEVELS)}")
    return LEVELS[name]


def usual_level(action: str) -> int:
    """The level that an action has unless the caller names another.

    Raises InvalidInputError for an action that is not registered: that is a mistake in the program.
    """
    if action not in _actions:
        raise InvalidInputError(
            "action", f"'{action}' is not registered", hint="Call register_action() first."
        )
    return _actions[action]


def require_actor(name: str) -> str:
    """``name``, if it is a registered actor, else InvalidInputError."""
    if name not in _actors:
        raise InvalidInputError("actor", f"'{name}' is not registered", hint="Call register_actor() first.")
    return name
