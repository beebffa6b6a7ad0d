"""Hostile files: each refused in our own words, within bounded memory."""

from __future__ import annotations

import re
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.hostile import corpus, good_gguf, good_safetensors
from tests.model_files import GGUF_ARRAY, GGUF_STRING, gguf_array, gguf_file, gguf_pair, safetensors_file

from vram_residency.core.errors import MalformedModelError
from vram_residency.formats import FileSource, Limits, MemorySource, parse

HEADER = Limits().header_bytes - 1000
#: What a parse may need beside the interpreter: windows, names, layouts.
EXTRA_MIB = 128

linux = pytest.mark.skipif(sys.platform != "linux", reason="memory is measured in /proc")

# VmHWM and not getrusage(2): a child inherits the latter's maximum from the process that started it.
_MEASURED = """
import re, sys
from pathlib import Path
from vram_residency.core.errors import MalformedModelError
from vram_residency.formats import FileSource, parse

def peak_kib():
    return int(re.search(r"VmHWM:\\s+(\\d+) kB", Path("/proc/self/status").read_text())[1])

before = peak_kib()
for path in sys.argv[1:]:
    try:
        with FileSource(path) as source:
            parse(source, name=path)
    except MalformedModelError as error:
        print(error.rule)
    else:
        print("accepted")
print(peak_kib() - before)
"""


def measured(*paths: Path) -> tuple[list[str], float]:
    """What a process of its own says of the files, and by how many MiB its memory grew at most."""
    command = [sys.executable, "-c", _MEASURED, *map(str, paths)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    *rules, growth_kib = done.stdout.splitlines()
    return rules, int(growth_kib) / 1024


def test_the_files_that_the_corpus_is_made_from_are_good() -> None:
    """Otherwise their variants would prove nothing."""
    assert len(parse(MemorySource(good_safetensors()), name="m.safetensors").tensors) == 4
    assert len(parse(MemorySource(good_gguf()), name="m.gguf").tensors) == 3


def test_every_hostile_file_is_refused_with_rule_and_offset(tmp_path: Path) -> None:
    """More than a thousand; the error is one printable line."""
    kinds: Counter[str] = Counter()
    for hostile in corpus():
        path = hostile.write(tmp_path)
        with (
            FileSource(path) as source,
            pytest.raises(MalformedModelError, match="malformed model at byte") as caught,
        ):
            parse(source, name=hostile.name)
        path.unlink()
        assert caught.value.offset >= 0
        assert str(caught.value).isprintable()
        assert len(str(caught.value)) < 300
        kinds[path.suffix] += 1
    assert kinds[".safetensors"] + kinds[".gguf"] >= 1000
    assert min(kinds[".safetensors"], kinds[".gguf"]) >= 400


def test_the_corpus_is_the_same_every_time_and_its_names_differ() -> None:
    """A failure can be found again by its name."""
    first = list(corpus())
    assert first == list(corpus())
    assert len({hostile.name for hostile in first}) == len(first)


def entries(count: int) -> bytes:
    empty = b'":{"dtype":"U8","shape":[0],"data_offsets":[0,0]}'
    return b",".join(b'"%d%b' % (number, empty) for number in range(count))


HEAVY: dict[str, tuple[str, Callable[[], bytes], str]] = {
    "spaces": ("safetensors", lambda: safetensors_file(b"{" + b" " * HEADER), "too much white space"),
    "string": ("safetensors", lambda: safetensors_file(b'{"' + b"a" * HEADER), "longer than 65536"),
    "escapes": (
        "safetensors",
        lambda: safetensors_file(b'{"' + b"\\u0041" * (HEADER // 6)),
        "longer than 65536",
    ),
    "objects": ("safetensors", lambda: safetensors_file(b'{"a":' * (HEADER // 5)), "unknown key"),
    "lists": ("safetensors", lambda: safetensors_file(b'{"a":{"shape":' + b"[" * HEADER), "found a list"),
    "digits": (
        "safetensors",
        lambda: safetensors_file(b'{"a":{"shape":[' + b"1" * HEADER),
        "no whole number",
    ),
    "numbers": (
        "safetensors",
        lambda: safetensors_file(b'{"a":{"shape":[' + b"1," * (HEADER // 2)),
        "number in shape",
    ),
    "tensors": (
        "safetensors",
        lambda: safetensors_file(b"{" + entries(1_500_000) + b"}"),
        "more than 100000 tensors",
    ),
    "names": (
        "safetensors",
        lambda: safetensors_file(
            b'{"__metadata__":{'
            + b",".join(b'"%05d%b":""' % (n, "😀".encode() * 2400) for n in range(10_000))
            + b"}}"
        ),
        "names longer than",
    ),
    "bools": (
        "gguf",
        lambda: gguf_file(
            [gguf_pair("a", GGUF_ARRAY, gguf_array(7, HEADER - 99, b"\1" * (HEADER - 99)))], counts=(0, 2)
        ),
        "the file ends|room for",
    ),
    "strings": (
        "gguf",
        lambda: gguf_file(
            [gguf_pair("a", GGUF_ARRAY, gguf_array(GGUF_STRING, 4_000_000, bytes(32_000_000)))] * 2
        ),
        "duplicate key|more than 4000000 strings",
    ),
}


@linux
@pytest.mark.parametrize("name", HEAVY)
def test_a_header_of_a_hundred_megabytes_costs_little_memory(tmp_path: Path, name: str) -> None:
    """It is read through a window, and refused where it breaks a rule."""
    kind, make, rule = HEAVY[name]
    path = tmp_path / f"heavy.{kind}"
    path.write_bytes(make())
    rules, growth_mib = measured(path)
    path.unlink()
    assert re.search(rule, rules[0])
    assert growth_mib < EXTRA_MIB


@linux
def test_the_largest_lawful_layout_fits_in_the_memory_promised(tmp_path: Path) -> None:
    """100,000 tensors with long names that need four bytes per character."""
    rows = b",".join(
        b'"%b%06d":{"dtype":"U8","shape":[%b1],"data_offsets":[%d,%d]}'
        % ("😀".encode() + b"n" * 140, number, b"1," * 40, number, number + 1)
        for number in range(100_000)
    )
    path = tmp_path / "large.safetensors"
    path.write_bytes(safetensors_file(b"{" + rows + b"}", bytes(100_000)))
    rules, growth_mib = measured(path)
    path.unlink()
    assert rules == ["accepted"]
    assert growth_mib < 2 * EXTRA_MIB


@linux
def test_the_corpus_in_one_process_does_not_add_up(tmp_path: Path) -> None:
    """A worker that is fed hostile files all day keeps its size."""
    paths = [hostile.write(tmp_path) for number, hostile in enumerate(corpus()) if number % 4 == 0]
    rules, growth_mib = measured(*paths)
    assert len(rules) == len(paths)
    assert "accepted" not in rules
    assert growth_mib < EXTRA_MIB
