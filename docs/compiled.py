"""Writes gpu-results/compiled.md: what NVRTC makes of the kernels for each architecture. No GPU is needed.

``python docs/compiled.py`` rewrites the page (packages: ``pip install -e . --group kernels``). The tests hold
the same numbers to budgets.
"""

from __future__ import annotations

import functools
import re
import struct
import subprocess
import tempfile
from collections import Counter
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path
from typing import NamedTuple

from vram_residency.digest.compiler import (
    ARCHITECTURES,
    OPTIONS,
    compile_kernels,
    compiler_version,
    kernel_source,
)

PAGE = Path(__file__).parent / "gpu-results" / "compiled.md"
KERNELS = ("blake3_groups", "blake3_groups_tagged", "blake3_parents", "tag_groups")
#: Bytes of memory that one turn of a kernel's inner loop takes in, by each thread.
LOOP_BYTES = 64
# The pipe of multiplications; additions, logic, shifts, permutes, comparisons share the other one.
MULTIPLICATIONS = re.compile(r"U?IMAD|FFMA|FMUL|FADD|HFMA2|CS2R")
ARITHMETIC = re.compile(
    r"IADD|IADD3|VIADD\w*|LOP3|SHF|PRMT|LEA|ISETP|SEL|IMNMX|VIMNMX|IABS|PLOP3|MOV|P2R|R2P|BREV"
)
# CUDA's ELF: entries of .nv.info, each one byte of form, one of kind, a size of two, and then the value.
_REGISTERS, _FRAME = 0x2F, 0x11
_SIZED_VALUE = 4
_INSTRUCTION_BYTES = 16

INTRODUCTION = """# What the compiler makes of the kernels

<!-- made by `python docs/compiled.py`; nothing on this page was run on a GPU -->

`src/vram_residency/digest/kernels.cu` as NVRTC {version} compiles it ({options}). Read from the cubins:
registers and local memory (what is spilled, or indexed at run time) for each thread, shared memory for each
thread block, and all instructions.
"""
LOOPS = """## The inner loops

What stands in one turn of the loop that reads whole groups: 64 bytes for each thread. ALU: additions, logic,
shifts, permutes, comparisons; FMA: multiplications, and the additions that were moved there. A multiprocessor
of Hopper takes 64 of each a cycle. So an H200 (132 of them, 1.98 GHz) can read at most what stands in the
last column, by its arithmetic alone; the tree above the chunks is counted as 8 compressions of a warp beside
64. It is a bound from counting, and no measurement.
"""


class Kernel(NamedTuple):
    """What a cubin says of one kernel."""

    name: str
    registers: int
    local_bytes: int
    shared_bytes: int
    instructions: int


class Section(NamedTuple):
    """A section of an ELF file."""

    name: str
    kind: int
    size: int
    content: bytes


def sections(cubin: bytes) -> list[Section]:
    """The sections of a 64-bit little-endian ELF file."""
    if cubin[:6] != b"\x7fELF\x02\x01":
        raise ValueError("not a 64-bit little-endian ELF file")
    (table,) = struct.unpack_from("<Q", cubin, 40)
    size, count, names = struct.unpack_from("<3H", cubin, 58)
    headers = [struct.unpack_from("<2I4Q2I2Q", cubin, table + index * size) for index in range(count)]
    _, _, _, _, names_at, *_ = headers[names]
    return [
        Section(
            cubin[names_at + name : cubin.index(b"\0", names_at + name)].decode(),
            kind,
            length,
            b"" if kind == 8 else cubin[start : start + length],  # noqa: PLR2004 - NOBITS: nothing in the file
        )
        for name, kind, _, _, start, length, *_ in headers
    ]


def kernels(cubin: bytes, names: tuple[str, ...] = KERNELS) -> list[Kernel]:
    """What the cubin says of each kernel."""
    found = {section.name: section for section in sections(cubin)}
    symbols = [
        found[".strtab"].content[name:].split(b"\0")[0].decode()
        for name, *_ in struct.iter_unpack("<IBBHQQ", found[".symtab"].content)
    ]
    facts = {(symbols[symbol], kind): value for kind, symbol, value in _facts(found[".nv.info"].content)}
    return [
        Kernel(
            name,
            facts[name, _REGISTERS],
            facts[name, _FRAME],
            found[f".nv.shared.{name}"].size if f".nv.shared.{name}" in found else 0,
            found[f".text.{name}"].size // _INSTRUCTION_BYTES,
        )
        for name in names
    ]


def _facts(info: bytes) -> Iterator[tuple[int, int, int]]:
    """Kind, symbol and value of each entry that has a symbol and a value."""
    place = 0
    while place < len(info):
        form, kind, size = struct.unpack_from("<2BH", info, place)
        place += 4
        if form == _SIZED_VALUE:
            if size == 8:  # noqa: PLR2004 - two words
                yield (kind, *struct.unpack_from("<2I", info, place))
            place += size


@functools.cache
def loops(cubin: bytes) -> dict[str, Counter[str]]:
    """The operations in the loop of each kernel that reads memory; the tree's reads hardly any."""
    program = next(
        path for path in metadata.files("nvidia-cuda-nvdisasm") or () if path.name == "nvdisasm"
    ).locate()
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(cubin)
        file.flush()
        command = [str(program), "-c", file.name]
        listing = subprocess.run(command, check=True, capture_output=True, text=True).stdout  # noqa: S603 - ours
    parts = re.split(r"^\.text\.(\w+):", listing, flags=re.MULTILINE)
    texts = dict(zip(parts[1::2], parts[2::2], strict=True))
    return {name: _reading_loop(texts[name]) for name in KERNELS if name != "blake3_parents"}


def _reading_loop(text: str) -> Counter[str]:
    """The loop that reads whole groups 16 bytes at a time; that for ragged ones is longer."""
    lines = text.splitlines()
    labels = {line.strip().rstrip(":"): number for number, line in enumerate(lines) if line.startswith(".L")}
    found: list[Counter[str]] = []
    for number, line in enumerate(lines):
        jump = re.search(r"\bBRA\b.*\((\.L\w+)\)", line)
        if jump and labels.get(jump[1], number) < number:
            body = "\n".join(lines[labels[jump[1]] : number + 1])
            if re.search(r"LDGSTS\S*\.128|LDG\S*\.128", body):
                found.append(Counter(_operations(body)))
    return min(found, key=Counter.total)


def _operations(body: str) -> list[str]:
    return re.findall(r"^\s*/\*[0-9a-f]{4,}\*/\s+(?:@!?U?P\w+\s+)?([A-Z][A-Z0-9_]*)", body, re.MULTILINE)


def pipes(operations: Counter[str]) -> tuple[int, int, int]:
    """How many go to the ALU and the FMA pipe, and how many there are in all."""
    alu = sum(count for name, count in operations.items() if ARITHMETIC.fullmatch(name))
    fma = sum(count for name, count in operations.items() if MULTIPLICATIONS.fullmatch(name))
    return alu, fma, operations.total()


def h200_bound(alu: int, fma: int, *, is_tree: bool) -> float:
    """TB/s by arithmetic alone."""
    per_second = 132 * 64 * 1.98e9 / max(alu, fma)
    return per_second * LOOP_BYTES / (1.125 if is_tree else 1) / 1e12


def compiled_for_all() -> dict[str, bytes]:
    """A cubin for each architecture, by NVRTC of now."""
    return {architecture: compile_kernels(kernel_source(), architecture) for architecture in ARCHITECTURES}


def page(cubins: dict[str, bytes]) -> str:
    """The page about these cubins."""
    parts = [INTRODUCTION.format(version=compiler_version(), options=f"`{' '.join(OPTIONS)}`")]
    parts += [_kernel_table(cubins), LOOPS, _loop_table(cubins)]
    return "\n".join(parts)


def _kernel_table(cubins: dict[str, bytes]) -> str:
    rows = [
        "| architecture | kernel | registers | local bytes | shared bytes | instructions |",
        "|---|---|---|---|---|---|",
    ]
    rows += [
        f"| {architecture} | `{one.name}` | {one.registers} | {one.local_bytes} | {one.shared_bytes} "
        f"| {one.instructions:,} |"
        for architecture, cubin in cubins.items()
        for one in kernels(cubin)
    ]
    return "\n".join(rows) + "\n"


def _loop_table(cubins: dict[str, bytes]) -> str:
    rows = ["| architecture | kernel | ALU | FMA | all | bound on an H200 |\n|---|---|---|---|---|---|"]
    for architecture, cubin in cubins.items():
        for name, operations in loops(cubin).items():
            alu, fma, total = pipes(operations)
            bound = h200_bound(alu, fma, is_tree=name != "tag_groups")
            shown = f"{bound:.2f} TB/s" if architecture == "sm_90" else ""
            rows.append(f"| {architecture} | `{name}` | {alu} | {fma} | {total} | {shown} |")
    return "\n".join(rows) + "\n"


if __name__ == "__main__":
    PAGE.parent.mkdir(exist_ok=True)
    PAGE.write_text(page(compiled_for_all()), "utf-8")
    print(f"wrote {PAGE.relative_to(PAGE.parents[2])}")
