"""A small real engine for the demo: MiniLM sentence embeddings, computed straight from sealed memory.

The architecture is that of BERT (Devlin et al., 2018) with mean pooling (Reimers and Gurevych, 2019), in
NumPy: every weight is a read-only view of the shard, none is copied.
"""

from __future__ import annotations

import math
import re
import unicodedata
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np

    Array = np.ndarray[Any, np.dtype[np.float32]]

HEADS = 12
LAYERS = 6
LAYER_NORM_EPSILON = 1e-12
TOKENS_MAX = 512
_WORD = re.compile(r"\w+|[^\w\s]")

#: Gives a weight by name, such as ``lambda name: views[name].numpy()``.
Weights = Callable[[str], "Array"]


class WordPiece:
    """BERT's tokenizer for lower-cased text: the longest known piece first."""

    def __init__(self, vocabulary: Path) -> None:
        words = vocabulary.read_text("utf-8").splitlines()
        self._ids = {word: index for index, word in enumerate(words)}

    def encode(self, text: str) -> list[int]:
        """Token ids with [CLS] and [SEP] around them, at most 512."""
        plain = unicodedata.normalize("NFD", text.lower())
        plain = "".join(char for char in plain if not unicodedata.combining(char))
        pieces = [piece for word in _WORD.findall(plain) for piece in self._pieces(word)]
        return [self._ids["[CLS]"], *pieces[: TOKENS_MAX - 2], self._ids["[SEP]"]]

    def _pieces(self, word: str) -> Iterable[int]:
        found, start = [], 0
        while start < len(word):
            prefix = "##" if start else ""
            ends = range(len(word), start, -1)
            end = next((end for end in ends if prefix + word[start:end] in self._ids), None)
            if end is None:
                return [self._ids["[UNK]"]]
            found.append(self._ids[prefix + word[start:end]])
            start = end
        return found


def embed(token_ids: list[int], weights: Weights) -> Array:
    """The sentence embedding: float32, shape (384,), of length 1."""
    import numpy as np

    positions = np.arange(len(token_ids))
    hidden = (
        weights("embeddings.word_embeddings.weight")[token_ids]
        + weights("embeddings.position_embeddings.weight")[positions]
        + weights("embeddings.token_type_embeddings.weight")[0]
    )
    hidden = _normalised(hidden, "embeddings.LayerNorm", weights)
    for layer in range(LAYERS):
        hidden = _transformed(hidden, f"encoder.layer.{layer}", weights)
    mean = hidden.mean(axis=0)
    pooled: Array = mean / np.linalg.norm(mean)
    return pooled


def _transformed(hidden: Array, layer: str, weights: Weights) -> Array:
    attended = _linear(_attended(hidden, layer, weights), f"{layer}.attention.output.dense", weights)
    hidden = _normalised(hidden + attended, f"{layer}.attention.output.LayerNorm", weights)
    inner = _gelu(_linear(hidden, f"{layer}.intermediate.dense", weights))
    outer = _linear(inner, f"{layer}.output.dense", weights)
    return _normalised(hidden + outer, f"{layer}.output.LayerNorm", weights)


def _attended(hidden: Array, layer: str, weights: Weights) -> Array:
    import numpy as np

    tokens, width = hidden.shape
    query, key, value = (
        _linear(hidden, f"{layer}.attention.self.{part}", weights)
        .reshape(tokens, HEADS, width // HEADS)
        .transpose(1, 0, 2)
        for part in ("query", "key", "value")
    )
    scores = query @ key.transpose(0, 2, 1) / math.sqrt(width // HEADS)
    shares = np.exp(scores - scores.max(axis=-1, keepdims=True))
    shares /= shares.sum(axis=-1, keepdims=True)
    mixed: Array = (shares @ value).transpose(1, 0, 2).reshape(tokens, width)
    return mixed


def _linear(hidden: Array, name: str, weights: Weights) -> Array:
    return hidden @ weights(f"{name}.weight").T + weights(f"{name}.bias")


def _normalised(hidden: Array, name: str, weights: Weights) -> Array:
    import numpy as np

    centred = hidden - hidden.mean(axis=-1, keepdims=True)
    deviation = np.sqrt((centred**2).mean(axis=-1, keepdims=True) + LAYER_NORM_EPSILON)
    scaled: Array = centred / deviation * weights(f"{name}.weight") + weights(f"{name}.bias")
    return scaled


def _gelu(x: Array) -> Array:
    import numpy as np

    erf = np.frompyfunc(math.erf, 1, 1)
    curve: Array = (x * 0.5 * (1.0 + erf(x / math.sqrt(2.0)).astype(np.float32))).astype(np.float32)
    return curve
