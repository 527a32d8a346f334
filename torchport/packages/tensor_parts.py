"""Parameters and buffers that are made of other tensors, as quantised weights are: a package holds the parts."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch

from torchport.compat import is_traceable_wrapper_subclass

__all__ = ["Whole", "taken_out", "wholes"]


@dataclass(frozen=True)
class Whole:
    """A parameter or buffer that is made of other tensors.

    place: the module's path and the name, for messages: ``layers.0.weight``.
    parts: its tensors without parts of their own, by what the user would write: ``layers.0.weight.qdata``.
    """

    module: torch.nn.Module
    name: str
    place: str
    parts: Mapping[str, torch.Tensor]
    _made: Callable[[Iterator[torch.Tensor]], torch.Tensor]

    def of(self, parts: Sequence[torch.Tensor]) -> torch.Tensor:
        """The same of other parts, in the order of ``parts``."""
        return self._made(iter(parts))


def wholes(model: torch.nn.Module) -> Iterator[Whole]:
    """Those of a model, and of its modules."""
    for path, module in model.named_modules():
        for name, tensor in _registered(module):
            if is_traceable_wrapper_subclass(tensor):
                place = f"{path}.{name}" if path else name
                parts: dict[str, torch.Tensor] = {}
                yield Whole(module, name, place, parts, _taken_apart(tensor, place, parts))


@contextmanager
def taken_out(found: Sequence[Whole]) -> Iterator[None]:
    """Meanwhile the modules do not have these; their order is as before when it ends."""
    modules = [one.module for one in found]
    owners: list[dict[str, Any]] = [own for module in modules for own in (module._parameters, module._buffers)]
    kept = [(own, dict(own)) for own in owners]
    try:
        for one in found:
            one.module._parameters.pop(one.name, None)
            one.module._buffers.pop(one.name, None)
        yield
    finally:
        for own, before in reversed(kept):
            own.clear()
            own.update(before)


def _registered(module: torch.nn.Module) -> Iterator[tuple[str, torch.Tensor]]:
    yield from module.named_parameters(recurse=False, remove_duplicate=False)
    yield from module.named_buffers(recurse=False, remove_duplicate=False)


def _taken_apart(
    tensor: torch.Tensor, place: str, parts: dict[str, torch.Tensor]
) -> Callable[[Iterator[torch.Tensor]], torch.Tensor]:
    """How a tensor is made of the parts that follow, which are added to ``parts``."""
    if not is_traceable_wrapper_subclass(tensor):
        parts[place] = tensor
        return next
    names, rest = tensor.__tensor_flatten__()  # type: ignore[attr-defined]
    inner = {name: _taken_apart(getattr(tensor, name), f"{place}.{name}", parts) for name in names}
    kind, size, stride = type(tensor), tensor.size(), tensor.stride()

    def made(given: Iterator[torch.Tensor]) -> torch.Tensor:
        values = {name: make(given) for name, make in inner.items()}
        found: torch.Tensor = kind.__tensor_unflatten__(values, rest, size, stride)  # type: ignore[attr-defined]
        return found

    return made
