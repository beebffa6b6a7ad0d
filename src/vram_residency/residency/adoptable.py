"""What can be adopted: named tensors, and the tensors of a live PyTorch module (residency.md section 2)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol, runtime_checkable

from vram_residency.core.errors import InvalidInputError


@runtime_checkable
class Module(Protocol):
    """What is needed of a ``torch.nn.Module``."""

    def named_parameters(self, prefix: str = "", recurse: bool = True, remove_duplicate: bool = True) -> Any:  # noqa: FBT001, FBT002 - PyTorch's signature
        """Pairs of name and parameter."""

    def named_buffers(self, prefix: str = "", recurse: bool = True, remove_duplicate: bool = True) -> Any:  # noqa: FBT001, FBT002
        """Pairs of name and buffer."""


class NamedTensors:
    """The tensors that were named at sealing; what happens to the caller's mapping later is no matter."""

    def __init__(self, tensors: Any) -> None:
        self._tensors = dict(tensors) if isinstance(tensors, Mapping) else tensors

    def __call__(self) -> Mapping[str, Any]:
        """Name to tensor. Raises InvalidInputError where no mapping was given."""
        if not isinstance(self._tensors, dict):
            kind = type(self._tensors).__name__
            raise InvalidInputError("tensors", f"must be a mapping of names to tensors, not {kind}")
        return self._tensors


class ModuleTensors:
    """All parameters and buffers of a module as they are at each call.

    Tied weights appear under each of their names, and buffers that no checkpoint holds are included: what
    takes part in the computation is what is verified.
    """

    def __init__(self, module: Any) -> None:
        self._module = module

    def __call__(self) -> Mapping[str, Any]:
        """Name to tensor. Raises InvalidInputError where no module was given."""
        if not isinstance(self._module, Module):
            kind = type(self._module).__name__
            raise InvalidInputError("module", f"must be a torch.nn.Module, not {kind}")
        parameters = self._module.named_parameters(remove_duplicate=False)
        return dict(parameters) | dict(self._module.named_buffers(remove_duplicate=False))
