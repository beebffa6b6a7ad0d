"""The engine ``transformers``: a Hugging Face model whose parameters are views of the sealed shard.

Needs the extra ``torch``. Configuration and tokenizer are read from the files beside the model; code that
comes with a model is never run, and nothing is fetched from anywhere.
"""

from __future__ import annotations

import gc
from collections.abc import Iterator, Mapping
from typing import Any, Final, Literal

import msgspec

from vram_residency.core.errors import ConfigurationError, InvalidInputError
from vram_residency.residency import Views

TEXTS_MAX: Final = 256
TOKENS_MAX: Final = 4096
_HINT: Final = "Install it: pip install 'vram-residency[torch]'."


class Params(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """``params`` of a request.

    task: None is generation for models made for it (``…ForCausalLM``), else embedding. pooling: how token
    vectors become one. normalize: make embeddings of length 1. max_new_tokens: of a generation, which is
    greedy: the same input gives the same output.
    """

    task: Literal["embedding", "generation"] | None = None
    pooling: Literal["mean", "cls"] = "mean"
    normalize: bool = True
    max_new_tokens: int = 64

    def __post_init__(self) -> None:
        if not 1 <= self.max_new_tokens <= TOKENS_MAX:
            raise ValueError(f"max_new_tokens must be between 1 and {TOKENS_MAX}")


class TransformersEngine:
    """Embeds or continues texts. ``input`` is one text or a list of them; one output for each, in order."""

    def __init__(self) -> None:
        self._torch, self._transformers = _libraries()
        self._model: Any = None
        self._tokenizer: Any = None

    def load(self, views: Views, metadata: Mapping[str, Any]) -> None:
        """Build the model around the views. Raises InvalidInputError where it does not fit them."""
        directory = metadata.get("directory")
        if directory is None:
            raise InvalidInputError(
                "handle_id",
                "the engine 'transformers' needs config.json and a tokenizer beside the model's file",
                hint="Commit the model by a path under a model root, not as a body.",
            )
        state = {name: views[name].torch() for name in views}
        try:
            config = self._transformers.AutoConfig.from_pretrained(directory, **_NOTHING_FOREIGN)
            self._tokenizer = self._transformers.AutoTokenizer.from_pretrained(directory, **_NOTHING_FOREIGN)
            # With a state of the right types transformers assigns, and copies nothing.
            model = self._class_of(config).from_pretrained(None, config=config, state_dict=dict(state))
        except (OSError, ValueError, KeyError, RuntimeError) as error:
            raise InvalidInputError("model", f"transformers cannot load it: {error}") from None
        _require_views(model, state)
        self._model = model.requires_grad_(requires_grad=False).eval()
        if self._tokenizer.pad_token is None:
            self._tokenizer.pad_token = self._tokenizer.eos_token

    def execute(self, request: Mapping[str, Any]) -> Iterator[Any]:
        """Give {index, embedding} or {index, text} for each text. Raises InvalidInputError."""
        texts = _texts_of(request.get("input"))
        try:
            params = msgspec.convert(request.get("params") or {}, Params)
        except msgspec.ValidationError as error:
            raise InvalidInputError("params", str(error)) from None
        answer = self._generated if self._is_generation(params) else self._embedded
        for index, text in enumerate(texts):
            with self._torch.inference_mode():
                found = answer(text, params)
            yield {"index": index, **found}

    def close(self) -> None:
        """Let go of the model, and thereby of the views."""
        self._model = self._tokenizer = None
        gc.collect()  # modules refer to each other in circles

    def _class_of(self, config: Any) -> Any:
        """The class that the model's configuration names: one of the library's own."""
        names = config.architectures or []
        found = getattr(self._transformers, names[0], None) if names else None
        if not isinstance(found, type) or not issubclass(found, self._transformers.PreTrainedModel):
            raise InvalidInputError("model", f"its architecture {names} is none of transformers' own")
        return found

    def _is_generation(self, params: Params) -> bool:
        can_generate = type(self._model).__name__.endswith("ForCausalLM")
        if params.task == "generation" and not can_generate:
            raise InvalidInputError("params", f"a {type(self._model).__name__} generates nothing")
        return can_generate if params.task is None else params.task == "generation"

    def _tokens(self, text: str) -> Any:
        positions = getattr(self._model.config, "max_position_embeddings", None) or TOKENS_MAX
        length = min(positions, self._tokenizer.model_max_length)
        return self._tokenizer(text, return_tensors="pt", truncation=True, max_length=length)

    def _embedded(self, text: str, params: Params) -> dict[str, Any]:
        tokens = self._tokens(text)
        hidden = self._model.base_model(**tokens).last_hidden_state
        mask = tokens["attention_mask"].unsqueeze(-1).to(hidden.dtype)
        vector = hidden[:, 0] if params.pooling == "cls" else (hidden * mask).sum(1) / mask.sum(1)
        if params.normalize:
            vector = self._torch.nn.functional.normalize(vector, dim=1)
        return {"embedding": vector[0].float().tolist()}

    def _generated(self, text: str, params: Params) -> dict[str, Any]:
        tokens = self._tokens(text)
        ids = self._model.generate(**tokens, max_new_tokens=params.max_new_tokens, do_sample=False)
        new = ids[0, tokens["input_ids"].shape[1] :]
        return {"text": self._tokenizer.decode(new, skip_special_tokens=True)}


#: Only what lies there, and no code of it.
_NOTHING_FOREIGN: Final = {"local_files_only": True, "trust_remote_code": False}


def _libraries() -> tuple[Any, Any]:
    try:
        import torch
    except ImportError:
        raise ConfigurationError("engine", "'transformers' needs PyTorch", hint=_HINT) from None
    try:
        import transformers
    except ImportError:
        raise ConfigurationError("engine", "'transformers' needs transformers", hint=_HINT) from None
    return torch, transformers


def _texts_of(given: Any) -> list[str]:
    texts = [given] if isinstance(given, str) else given
    is_right = isinstance(texts, list) and 0 < len(texts) <= TEXTS_MAX
    if not is_right or not all(isinstance(text, str) for text in texts):
        raise InvalidInputError("input", f"must be a text, or a list of 1 to {TEXTS_MAX} texts")
    return list(texts)


def _require_views(model: Any, state: Mapping[str, Any]) -> None:
    """What computes must be what is verified: no parameter may be a copy, or of anybody else's making."""
    sealed = {tensor.data_ptr() for tensor in state.values()}
    strange = [name for name, each in model.named_parameters() if each.data_ptr() not in sealed]
    if strange:
        raise InvalidInputError(
            "model", f"{len(strange)} parameters are not those of the shard, such as '{strange[0]}'"
        )
