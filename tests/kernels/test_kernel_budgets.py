"""The kernels as NVRTC compiles them for six architectures, held to budgets. No GPU is used."""

from __future__ import annotations

import os
from importlib.util import find_spec
from pathlib import Path

import pytest
from docs import compiled

from vram_residency.core.errors import ConfigurationError
from vram_residency.digest.compiler import ARCHITECTURES, compile_kernels, compiler_version, kernel_source
from vram_residency.digest.cubin_cache import cached_kernels

pytestmark = [
    pytest.mark.nvrtc,
    pytest.mark.skipif(
        find_spec("cuda") is None and "VRAM_TESTS_NEED_TOOLS" not in os.environ,
        reason="NVIDIA's compiler is missing: `pip install --group kernels`",
    ),
]

#: Registers of a thread, bytes of shared memory, instructions.
BUDGETS = {
    "blake3_groups": (64, 17_408, 3_000),
    "blake3_groups_tagged": (80, 17_408, 3_500),
    "blake3_parents": (64, 5_120, 1_100),
    "tag_groups": (128, 9_280, 1_900),
}
#: Instructions of the two pipes and in all for 64 bytes; compute capability 12 has one wide pipe.
LOOP_BUDGETS = {
    "blake3_groups": (500, 360, 870),
    "blake3_groups_tagged": (510, 470, 990),
    "tag_groups": (50, 120, 175),
}
WIDE_LOOP_BUDGETS = {
    "blake3_groups": (720, 20, 760),
    "blake3_groups_tagged": (790, 60, 860),
    "tag_groups": (110, 60, 175),
}

every_architecture = pytest.mark.parametrize("architecture", ARCHITECTURES)


@pytest.fixture(scope="module")
def cubins() -> dict[str, bytes]:
    return compiled.compiled_for_all()


@every_architecture
def test_registers_memory_and_instructions_keep_to_their_budgets(
    cubins: dict[str, bytes], architecture: str
) -> None:
    """And nothing is spilled to local memory."""
    found = compiled.kernels(cubins[architecture])
    assert {one.name: one.local_bytes for one in found} == dict.fromkeys(BUDGETS, 0)
    over = [
        one
        for one in found
        if (one.registers > BUDGETS[one.name][0])
        or (one.shared_bytes > BUDGETS[one.name][1])
        or (one.instructions > BUDGETS[one.name][2])
    ]
    assert over == []


@every_architecture
def test_the_inner_loops_keep_to_their_budgets(cubins: dict[str, bytes], architecture: str) -> None:
    """Arithmetic is the bound of BLAKE3, and it is spread over both pipes."""
    budgets = WIDE_LOOP_BUDGETS if architecture == "sm_120" else LOOP_BUDGETS
    found = {name: compiled.pipes(loop) for name, loop in compiled.loops(cubins[architecture]).items()}
    assert found.keys() == budgets.keys()
    over = {
        name: used
        for name, used in found.items()
        if any(one > most for one, most in zip(used, budgets[name], strict=True))
    }
    assert over == {}


@every_architecture
def test_the_inner_loop_is_one_compression(cubins: dict[str, bytes], architecture: str) -> None:
    """7 rounds of 8 quarter rounds: 224 and 8 exclusive ors, 112 byte permutes, 112 funnel shifts."""
    loop = compiled.loops(cubins[architecture])["blake3_groups"]
    assert (loop["PRMT"], loop["SHF"] in {112, 113}, loop["LOP3"] >= 231) == (112, True, True)
    assert loop["LDGSTS"] == 4


def test_what_is_spilled_is_seen() -> None:
    """The reading of cubins itself: an array that is indexed at run time lies in local memory."""
    source = b"""extern "C" __global__ void spilling(int *out, int at) {
        int kept[64];
        for (int i = 0; i < 64; i++) kept[i] = out[i];
        for (int i = 0; i < 64; i++) kept[(at * i) & 63] += i;
        out[0] = kept[at & 63];
    }"""
    (found,) = compiled.kernels(compile_kernels(source, "sm_90"), ("spilling",))
    assert (found.local_bytes, found.shared_bytes >= 0, found.registers > 0) == (256, True, True)


def test_the_page_is_what_this_compiler_makes(cubins: dict[str, bytes]) -> None:
    """Run `python docs/compiled.py` after a change of the kernels."""
    assert compiled.PAGE.read_text("utf-8") == compiled.page(cubins)


def test_an_error_in_the_source_comes_out_in_the_compilers_words() -> None:
    """A line and a reason, not a number."""
    with pytest.raises(ConfigurationError, match=r"kernels\.cu\(1\): error: .*undefined") as caught:
        compile_kernels(b"__device__ int f() { return missing; }", "sm_90")
    assert "cannot be compiled for sm_90" in str(caught.value)


def test_an_architecture_that_the_compiler_does_not_know_is_an_error() -> None:
    """Such as that of a card which is newer than the compiler, or of none."""
    with pytest.raises(ConfigurationError, match="invalid value"):
        compile_kernels(kernel_source(), "sm_79")


def test_the_cache_gives_back_what_the_compiler_made(tmp_path: Path) -> None:
    """The real compiler behind the real cache; nothing is told of, so nothing was refused."""
    told: list[str] = []
    folder = tmp_path / "kernels"
    made, kept = (cached_kernels("sm_90", directory=folder, on_refused=told.append) for _ in range(2))
    assert (made, told) == (kept, [])
    assert [one.name for one in compiled.kernels(kept)] == list(compiled.KERNELS)


def test_the_compiler_says_its_version() -> None:
    """It is part of a cubin's name in the cache."""
    assert compiler_version() == "13.5"
