"""The error tree: one root, data as attributes, a hint always, and nothing lost in a pickle."""

from __future__ import annotations

import inspect
import pickle

import pytest

from vram_residency.core import errors
from vram_residency.core.errors import VramError

CLASSES = [
    value for value in vars(errors).values() if inspect.isclass(value) and issubclass(value, VramError)
]
LEAVES = [error for error in CLASSES if error.fields]


def example(error: type[VramError]) -> VramError:
    return error(*(f"<{name}>" for name in error.fields))


def drawn_parents() -> dict[str, str]:
    """Class name → parent's name, as read from the drawing in the module's docstring."""
    parents: dict[str, str] = {}
    path: list[str] = []
    for line in (errors.__doc__ or "").splitlines():
        name = line.lstrip(" │├└─").partition(" ")[0]
        if name.endswith("Error"):
            depth = line.index(name) // 4 - 1
            path[depth:] = [name]
            parents[name] = path[depth - 1] if depth else "Exception"
    return parents


def test_the_tree_in_the_docstring_is_the_real_tree() -> None:
    """What the module draws is what the classes are."""
    real = {error.__name__: error.__bases__[0].__name__ for error in CLASSES}
    assert drawn_parents() == real


def test_the_drawing_names_the_data_of_each_error() -> None:
    """The words behind a leaf of the drawing are its fields, in order."""
    drawing = " ".join((errors.__doc__ or "").split())
    for error in LEAVES:
        assert f"{error.__name__} {', '.join(error.fields)}" in drawing


@pytest.mark.parametrize("error", LEAVES, ids=lambda error: error.__name__)
def test_an_error_survives_a_pickle_with_its_data(error: type[VramError]) -> None:
    """Data, message and hint are the same on the other side of a process boundary."""
    original = error(*(f"<{name}>" for name in error.fields), hint="Do this next.")
    copy = pickle.loads(pickle.dumps(original))
    assert type(copy) is error
    assert (str(copy), copy.args, copy.hint) == (str(original), original.args, "Do this next.")
    assert all(getattr(copy, name) == f"<{name}>" for name in error.fields)


def test_details_set_after_the_fact_survive_a_pickle() -> None:
    """The optional findings of a failed verification travel along."""
    original = errors.SealVerificationError("shard-1", "digest_mismatch", "byte 5 differs")
    original.first_bad_offset, original.tensors = 5, ("encoder.weight",)
    copy = pickle.loads(pickle.dumps(original))
    assert (copy.first_bad_offset, copy.tensors) == (5, ("encoder.weight",))


@pytest.mark.parametrize("error", LEAVES, ids=lambda error: error.__name__)
def test_every_error_says_what_to_do_next(error: type[VramError]) -> None:
    """The default hint is a sentence of its own, with no placeholder left in it."""
    hint = example(error).hint
    assert hint.endswith(".")
    assert "{" not in hint
    assert hint != VramError.default_hint


@pytest.mark.parametrize("error", LEAVES, ids=lambda error: error.__name__)
def test_every_error_counts_its_data(error: type[VramError]) -> None:
    """Too little or too much data is a mistake of ours and shows at once."""
    with pytest.raises(TypeError, match="takes"):
        error(*(("x",) * (len(error.fields) + 1)))


def test_braces_in_the_data_are_only_text() -> None:
    """A hostile file name cannot read other fields through the message's template."""
    error = errors.MalformedModelError("{rule.__class__}", 0, "{path}")
    assert str(error) == "{rule.__class__}: malformed model at byte 0: {path}"
