"""Levels, actors and actions are closed lists, extended by registration."""

from __future__ import annotations

import pytest

from vram_residency.core.errors import InvalidInputError
from vram_residency.narration import capture_narration, narrate, register_action, register_actor, vocabulary


@pytest.fixture(autouse=True)
def _vocabulary_as_before(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vocabulary, "_actors", vocabulary._actors)
    monkeypatch.setattr(vocabulary, "_actions", vocabulary._actions)


def test_the_levels_are_in_order() -> None:
    """From trace to fatal; mute is above them all."""
    assert [*vocabulary.LEVELS][:-1] == ["trace", "debug", "info", "warn", "error", "fatal"]
    assert list(vocabulary.LEVELS.values()) == sorted(vocabulary.LEVELS.values())


def test_the_actors_are_those_of_the_specification() -> None:
    """Five of them."""
    assert vocabulary.actors() == {
        "orchestratord",
        "pool-managerd",
        "worker-orcd",
        "inference-engine",
        "vram-residency",
    }


def test_a_registered_actor_and_action_may_be_narrated() -> None:
    """With the level that was registered."""
    register_actor("model-hub")
    register_action("model_promoted", level="warn")
    register_action("model_promoted", level="warn")
    with capture_narration() as story:
        narrate(actor="model-hub", action="model_promoted", target="llama", human="Promoted llama")
    assert story.one(actor="model-hub", action="model_promoted").level == "warn"
    assert vocabulary.actions()["model_promoted"] == "warn"


def test_an_action_keeps_its_level() -> None:
    """Two parts of a program may not disagree about it."""
    with pytest.raises(InvalidInputError, match="is registered at level info"):
        register_action("seal", level="debug")


@pytest.mark.parametrize("name", ["", "Upper", "1st", "a b", "x" * 65, "line\n"])
def test_names_are_plain_words(name: str) -> None:
    """So that they need no cleaning."""
    with pytest.raises(InvalidInputError, match="begin with a letter"):
        register_actor(name)
    with pytest.raises(InvalidInputError, match="begin with a letter"):
        register_action(name)
