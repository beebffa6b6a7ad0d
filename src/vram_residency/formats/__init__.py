"""What a model file holds: strict, bounded parsers for safetensors and GGUF; anything else is raw bytes."""

from __future__ import annotations

from vram_residency.formats.detect import detect, parse
from vram_residency.formats.index import ModelDirectory, ModelFile, read_model_directory
from vram_residency.formats.layout import Format, Layout, TensorSpec
from vram_residency.formats.limits import DEFAULT_LIMITS, Limits
from vram_residency.formats.source import ByteSource, FileSource, MemorySource

__all__ = [
    "DEFAULT_LIMITS",
    "ByteSource",
    "FileSource",
    "Format",
    "Layout",
    "Limits",
    "MemorySource",
    "ModelDirectory",
    "ModelFile",
    "TensorSpec",
    "detect",
    "parse",
    "read_model_directory",
]
