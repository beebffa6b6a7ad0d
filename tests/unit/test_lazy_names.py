"""Names that are imported on first use."""

from __future__ import annotations

import sys
from types import ModuleType

import pytest

from vram_residency.core.lazy_names import lazy_names


@pytest.fixture
def package(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """A package with one lazy name."""
    module = ModuleType("lazy_example")
    monkeypatch.setitem(sys.modules, "lazy_example", module)
    load, names = lazy_names("lazy_example", {"pi": "math", "absent": "math"})
    module.__getattr__ = load  # type: ignore[method-assign]
    module.__dir__ = names  # type: ignore[method-assign]
    return module


def test_a_name_is_imported_once_and_kept(package: ModuleType) -> None:
    """The second use does not ask again."""
    assert "pi" not in vars(package)
    assert 3.14 < package.pi < 3.15
    assert "pi" in vars(package)


def test_dir_lists_names_that_nobody_has_used(package: ModuleType) -> None:
    """Completion in a shell sees them."""
    assert {"pi", "absent"} <= set(dir(package))


@pytest.mark.parametrize("name", ["unknown", "absent"])
def test_a_name_that_is_not_there_is_an_attribute_error(package: ModuleType, name: str) -> None:
    """Whether the package or the module lacks it."""
    with pytest.raises(AttributeError, match=name):
        getattr(package, name)
