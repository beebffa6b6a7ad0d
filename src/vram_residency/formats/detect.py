"""Which format a source has, and its layout (residency.md section 2)."""

from __future__ import annotations

from typing import TYPE_CHECKING, get_args

from vram_residency.core.errors import InvalidInputError, MalformedModelError
from vram_residency.formats.gguf import MAGIC, parse_gguf
from vram_residency.formats.layout import Format, Layout
from vram_residency.formats.limits import DEFAULT_LIMITS
from vram_residency.formats.safetensors import parse_safetensors

if TYPE_CHECKING:
    from vram_residency.formats.limits import Limits
    from vram_residency.formats.source import ByteSource


def parse(
    source: ByteSource,
    *,
    name: str,
    format: str | None = None,  # noqa: A002 - the word of the command line and of the public interface
    limits: Limits = DEFAULT_LIMITS,
) -> Layout:
    """Read the layout of a model: of a file before it is loaded, or of the memory that holds it then.

    ``name`` is the file's name or path: its ending decides the format where ``format`` ("safetensors",
    "gguf", "raw") does not, and errors carry it. Raises MalformedModelError; InvalidInputError for a
    ``format`` that does not exist.
    """
    kind = _known(format) if format is not None else None
    if source.size_bytes == 0:
        raise MalformedModelError(name, 0, "the file is empty")
    if source.size_bytes > limits.file_bytes:
        raise MalformedModelError(
            name, limits.file_bytes, f"the file is larger than {limits.file_bytes} bytes"
        )
    kind = kind or detect(source, name=name)
    if kind == "safetensors":
        return parse_safetensors(source, name=name, limits=limits)
    if kind == "gguf":
        return parse_gguf(source, name=name, limits=limits)
    return Layout("raw")


def detect(source: ByteSource, *, name: str) -> Format:
    """Tell the format by the ending of the name, then by GGUF's magic; anything else is raw."""
    ending = name.lower()
    if ending.endswith(".safetensors"):
        return "safetensors"
    if ending.endswith(".gguf") or source.read(0, min(len(MAGIC), source.size_bytes)) == MAGIC:
        return "gguf"
    return "raw"


def _known(text: str) -> Format:
    for kind in get_args(Format):
        if text == kind:
            return text  # type: ignore[return-value]  # it is one of the three now
    raise InvalidInputError("format", f"must be one of {', '.join(get_args(Format))}, not {text!r}")
