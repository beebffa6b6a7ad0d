"""The engine `transformers`: real embeddings, computed from sealed memory."""

from __future__ import annotations

import builtins
import importlib
import json
import shutil
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.models import MINILM
from tests.shards import TOKEN, WORKER, write_model

from vram_residency import ConfigurationError, InvalidInputError, SealVerificationError, VramManager
from vram_residency.residency import ManagerOptions
from vram_residency.testing import FaultDevice, MemoryLog, capture_narration
from vram_residency.worker import wire
from vram_residency.worker.options import WorkerOptions
from vram_residency.worker.service import WorkerService
from vram_residency.worker.transformers_engine import TransformersEngine

TEXTS = ["The weights are what was approved.", "An apple a day."]


@pytest.fixture(autouse=True)
def quiet(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """What the libraries warn of is their own affair; nobody need be asked for models."""
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


@pytest.fixture
def models(tmp_path: Path) -> Path:
    """A model root with MiniLM, its configuration and its tokenizer."""
    folder = tmp_path / "models" / "minilm"
    shutil.copytree(MINILM.path.parent, folder)
    return folder.parent


@pytest.fixture
def service(models: Path) -> Iterator[Any]:
    device = FaultDevice(capacity_bytes=256 << 20)
    log = MemoryLog()
    with (
        capture_narration(),
        VramManager.new_with_token(TOKEN, 0, log, WORKER, device=device, options=ManagerOptions()) as manager,
    ):
        service = WorkerService(
            manager,
            log,
            device=device.info,
            worker_id=WORKER,
            make_engine=TransformersEngine,
            options=WorkerOptions(model_roots=(models,)),
        )
        service.begin()
        yield service, device
        service.close()


def run(service: WorkerService, given: Any, **params: Any) -> list[Any]:
    """The outputs of an execution on shard m."""
    request = wire.ExecuteRequest(handle_id="m", input=given, params=params)
    return [data for name, data in service.execute(request) if name == "output"]


def commit(service: WorkerService, path: str = "minilm/model.safetensors") -> None:
    service.commit_path(wire.CommitRequest(path=path, shard_id="m"))


@pytest.mark.torch
def test_embeddings_from_sealed_memory_are_those_of_the_ordinary_model(service: Any):
    """The same numbers, of length 1, and one for each text."""
    torch, transformers = importlib.import_module("torch"), importlib.import_module("transformers")
    worker, _ = service
    commit(worker)
    found = [each["embedding"] for each in run(worker, TEXTS)]
    model = transformers.BertModel.from_pretrained(MINILM.path.parent).eval()
    tokenizer = transformers.AutoTokenizer.from_pretrained(MINILM.path.parent)
    for text, embedding in zip(TEXTS, found, strict=True):
        with torch.no_grad():
            hidden = model(**tokenizer(text, return_tensors="pt")).last_hidden_state[0]
        expected = torch.nn.functional.normalize(hidden.mean(0), dim=0)
        assert torch.allclose(torch.tensor(embedding), expected, atol=1e-6)
        assert len(embedding) == 384
    first = run(worker, TEXTS[0], pooling="cls", normalize=False)
    assert first[0]["embedding"] != found[0]


@pytest.mark.torch
def test_nothing_is_copied_and_damage_never_computes(service: Any):
    """A bit flipped in the shard stops the next execution; the shard can be freed all the same."""
    worker, device = service
    commit(worker)
    run(worker, TEXTS)
    worker.free("m")
    assert worker.manager.capacity().used_bytes == 0
    worker.commit_path(wire.CommitRequest(path="minilm/model.safetensors", shard_id="n"))
    device.flip_bit("n", 4096)
    with pytest.raises(SealVerificationError):
        worker.verify("n", "full")
    assert worker.status().state == "stopped"


@pytest.mark.torch
@pytest.mark.parametrize(
    ("given", "params", "words"),
    [
        (None, {}, "must be a text"),
        ([], {}, "1 to 256 texts"),
        (["a", 1], {}, "must be a text"),
        ("a", {"task": "generation"}, "BertModel generates nothing"),
        ("a", {"pooling": "max"}, "Invalid enum value"),
        ("a", {"max_new_tokens": 0}, "between 1 and 4096"),
        ("a", {"temperature": 1}, "unknown field"),
    ],
    ids=["no input", "no texts", "no text", "generation", "pooling", "tokens", "unknown"],
)
def test_what_it_cannot_do_it_refuses(service: Any, given: Any, params: Any, words: str):
    worker, _ = service
    commit(worker)
    with pytest.raises(InvalidInputError, match=words):
        run(worker, given, **params)
    worker.free("m")


@pytest.mark.torch
def test_a_model_without_its_files_is_refused(service: Any, models: Path):
    """No configuration; a configuration of something else; one that asks for code of its own."""
    worker, _ = service
    (models / "bare").mkdir()
    write_model(models / "bare", 64)
    commit(worker, "bare/model.safetensors")
    with pytest.raises(InvalidInputError, match="cannot load it"):
        run(worker, "a")
    worker.free("m")
    config = json.loads((models / "minilm" / "config.json").read_text())
    (models / "minilm" / "config.json").write_text(json.dumps(config | {"num_hidden_layers": 7}))
    worker.commit_path(wire.CommitRequest(path="minilm/model.safetensors", shard_id="n"))
    with pytest.raises(InvalidInputError, match="not those of the shard"):
        list(worker.execute(wire.ExecuteRequest(handle_id="n", input="a")))
    (models / "minilm" / "config.json").write_text(json.dumps(config | {"architectures": ["Evil"]}))
    worker.commit_path(wire.CommitRequest(path="minilm/model.safetensors", shard_id="o"))
    with pytest.raises(InvalidInputError, match="none of transformers' own"):
        list(worker.execute(wire.ExecuteRequest(handle_id="o", input="a")))
    for name in ("n", "o"):
        worker.free(name)


@pytest.mark.torch
def test_a_model_that_came_as_bytes_alone_is_refused():
    with pytest.raises(InvalidInputError, match=r"config\.json and a tokenizer beside"):
        TransformersEngine().load({}, {"directory": None})  # type: ignore[arg-type] # nothing is read of it


@pytest.mark.parametrize("missing", ["torch", "transformers"])
def test_without_its_libraries_it_says_which_and_how(missing: str, monkeypatch: pytest.MonkeyPatch):
    ordinary = builtins.__import__

    def refusing(name: str, *rest: Any) -> Any:
        if name == missing:
            raise ImportError(name)
        return object() if name in {"torch", "transformers"} else ordinary(name, *rest)

    monkeypatch.setattr(builtins, "__import__", refusing)
    with pytest.raises(ConfigurationError, match=r"'transformers' needs") as caught:
        TransformersEngine()
    assert "vram-residency[torch]" in caught.value.hint
