"""What can be said of compiling kernels where NVIDIA's packages may be missing."""

from __future__ import annotations

import sys

import pytest

from vram_residency.core.errors import ConfigurationError
from vram_residency.digest.compiler import (
    ARCHITECTURES,
    architecture_of,
    compile_kernels,
    compiler_version,
    kernel_source,
)


def test_the_source_comes_with_the_package_and_includes_nothing() -> None:
    """The compiler's wheel has no headers."""
    source = kernel_source()
    assert b"#include" not in source
    assert source.count(b"\nKERNEL(") == 4


@pytest.mark.parametrize(
    ("capability", "name"),
    [
        pytest.param((8, 0), "sm_80", id="A100"),
        pytest.param((9, 0), "sm_90", id="H200"),
        pytest.param((12, 0), "sm_120", id="5090"),
    ],
)
def test_an_architecture_by_its_capability(capability: tuple[int, int], name: str) -> None:
    """As the compiler names it."""
    assert architecture_of(*capability) == name
    assert name in ARCHITECTURES


@pytest.mark.parametrize("capability", [(6, 0), (7, 0), (7, 5)], ids=["P100", "V100", "T4"])
def test_a_card_before_ampere_is_refused_in_words(capability: tuple[int, int]) -> None:
    """It has no copies behind a thread's back."""
    with pytest.raises(ConfigurationError, match=r"the kernels need 8\.0") as caught:
        architecture_of(*capability)
    assert "Ampere" in caught.value.hint


@pytest.mark.parametrize("name", ["", "sm_9", "sm_90 --x", "compute_90", "sm_90\n", "sm_0900"], ids=repr)
def test_no_other_text_reaches_the_compiler(name: str) -> None:
    """Options of the compiler are ours alone."""
    with pytest.raises(ConfigurationError, match="is no name of one"):
        compile_kernels(b"", name)


def test_missing_packages_are_named_with_the_command_that_brings_them(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The extra `cuda`."""
    monkeypatch.setitem(sys.modules, "cuda.bindings", None)
    with pytest.raises(ConfigurationError, match="not installed") as caught:
        compiler_version()
    assert "vram-residency[cuda]" in caught.value.hint
