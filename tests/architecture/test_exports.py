"""What the package offers: names, and a bare import that costs next to nothing.

That every public thing has a docstring is the linter's rule (ruff D).
"""

from __future__ import annotations

import importlib
import inspect
import pkgutil
import subprocess
import sys
from pathlib import Path

import pytest

import vram_residency
from vram_residency.core import errors

SOURCE = Path(vram_residency.__file__).parent
MODULES = sorted(
    module.name for module in pkgutil.walk_packages([str(SOURCE)], prefix="vram_residency.") if module.name
)


@pytest.mark.parametrize("name", vram_residency.__all__)
def test_every_exported_name_is_there(name: str) -> None:
    """Each name of __all__ can be had, though it is imported only when asked for."""
    assert getattr(vram_residency, name) is not None
    assert name in dir(vram_residency)


def test_all_errors_and_the_four_main_objects_are_exported() -> None:
    """__all__ is exactly the error tree, the objects of the API and the version."""
    tree = {
        name
        for name, value in vars(errors).items()
        if inspect.isclass(value) and issubclass(value, errors.VramError)
    }
    objects = {"AuditLogger", "SealedShard", "Verification", "VramManager", "__version__"}
    assert set(vram_residency.__all__) == tree | objects
    assert list(vram_residency.__all__) == sorted(vram_residency.__all__)


def test_an_unknown_name_is_an_attribute_error() -> None:
    """As for any module."""
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        vram_residency.nonsense  # noqa: B018


def test_a_bare_import_loads_nothing_else() -> None:
    """Importing the package imports no dependency, and of its floors only names and version."""
    code = "import sys; known = set(sys.modules); import vram_residency; print(*set(sys.modules) - known)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    packages = {name.partition(".")[0] for name in done.stdout.split()}
    assert packages <= {"vram_residency", *sys.stdlib_module_names}
    own = {name for name in done.stdout.split() if name.startswith("vram_residency.")}
    assert own == {f"vram_residency.core{name}" for name in ("", ".lazy_names", ".version")}


@pytest.mark.parametrize("name", MODULES)
def test_what_a_module_exports_exists(name: str) -> None:
    """A name in some module's __all__ is not a promise nobody keeps."""
    module = importlib.import_module(name)
    missing = [entry for entry in getattr(module, "__all__", ()) if not hasattr(module, entry)]
    assert missing == []
