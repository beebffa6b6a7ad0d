"""The kernels' source made into machine code for one architecture, by NVRTC: no GPU or driver is needed."""

from __future__ import annotations

import re
from importlib.resources import files
from types import ModuleType
from typing import Any

from vram_residency.core.errors import ConfigurationError

#: What CI compiles for, with a budget for each (tests/kernels/test_kernel_budgets.py).
ARCHITECTURES = ("sm_80", "sm_86", "sm_89", "sm_90", "sm_100", "sm_120")
#: How kernels are compiled, besides for what; a cubin is for one architecture alone.
OPTIONS = ("--std=c++17",)
_ARCHITECTURE = re.compile(r"sm_[1-9][0-9]{1,2}\Z")
# Copies behind a thread's back came with Ampere.
_CAPABILITY_MIN = 80
_LOG_CHARACTERS_MAX = 2000


def architecture_of(major: int, minor: int) -> str:
    """The architecture of a compute capability. Raises ConfigurationError below 8.0."""
    if major * 10 + minor < _CAPABILITY_MIN:
        raise ConfigurationError(
            "device",
            f"has compute capability {major}.{minor}, and the kernels need 8.0",
            hint="Name a device of the Ampere generation or later.",
        )
    return f"sm_{major}{minor}"


def kernel_source() -> bytes:
    """The text of ``kernels.cu`` as it was installed."""
    return files(__package__ or "").joinpath("kernels.cu").read_bytes()


def compiler_version() -> str:
    """NVRTC's, as "13.5". Raises ConfigurationError where it is not installed."""
    nvrtc = _nvrtc()
    major, minor = _checked(nvrtc, nvrtc.nvrtcVersion())
    return f"{major}.{minor}"


def compile_kernels(source: bytes, architecture: str) -> bytes:
    """A cubin of all kernels. Raises ConfigurationError with the compiler's own words."""
    if not _ARCHITECTURE.match(architecture):
        raise ConfigurationError("architecture", f"is no name of one: {architecture!r}")
    nvrtc = _nvrtc()
    (program,) = _checked(nvrtc, nvrtc.nvrtcCreateProgram(source, b"kernels.cu", 0, [], []))
    try:
        options = [option.encode() for option in (f"--gpu-architecture={architecture}", *OPTIONS)]
        (status,) = nvrtc.nvrtcCompileProgram(program, len(options), options)
        if status:
            words = _log(nvrtc, program)[:_LOG_CHARACTERS_MAX]
            raise ConfigurationError("kernels.cu", f"cannot be compiled for {architecture}: {words}")
        (size,) = _checked(nvrtc, nvrtc.nvrtcGetCUBINSize(program))
        # The bindings write into the bytes that they are given.
        cubin = bytes(int(size))
        _checked(nvrtc, nvrtc.nvrtcGetCUBIN(program, cubin))
        return cubin
    finally:
        nvrtc.nvrtcDestroyProgram(program)


def _nvrtc() -> ModuleType:
    try:
        from cuda.bindings import nvrtc
    except ImportError as error:
        raise ConfigurationError(
            "cuda",
            "is not installed: NVIDIA's Python packages are missing",
            hint="Run `pip install 'vram-residency[cuda]'`.",
        ) from error
    module: ModuleType = nvrtc
    return module


def _checked(nvrtc: ModuleType, answer: tuple[Any, ...]) -> tuple[Any, ...]:
    """What a call answers behind its status."""
    status, *rest = answer
    if status:
        _, name = nvrtc.nvrtcGetErrorString(status), getattr(status, "name", str(status))
        raise ConfigurationError("cuda", f"has a compiler that does not work: {name}")
    return tuple(rest)


def _log(nvrtc: ModuleType, program: object) -> str:
    (size,) = _checked(nvrtc, nvrtc.nvrtcGetProgramLogSize(program))
    log = bytes(int(size))
    _checked(nvrtc, nvrtc.nvrtcGetProgramLog(program, log))
    return log.rstrip(b"\0").decode("utf-8", "replace").strip()
