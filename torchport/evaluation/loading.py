"""A model of a suite as it is run: its module, its batches of inputs, and which tensors of its results are compared."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields, is_dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.utils._pytree import tree_flatten, tree_map_only

from torchport.errors import OptionError
from torchport.evaluation.models.entry import Kind
from torchport.evaluation.suite import ModelSpec
from torchport.evaluation.truth import InFloat64
from torchport.factories import load_model

__all__ = ["Call", "Loaded", "Outputs", "load", "same_buffers"]

Outputs = dict[str, torch.Tensor]


@dataclass(frozen=True)
class Call:
    """One batch: positional and keyword arguments."""

    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]

    def copied(self) -> Call:
        """With copies of its tensors."""
        return Call(*tree_map_only(torch.Tensor, torch.Tensor.clone, (self.args, dict(self.kwargs))))


@dataclass(frozen=True)
class Loaded:
    """A model that can be run.

    calls: batches of inputs, of the same shapes.
    kind: what the first output answers.
    names: keys of the outputs to compare, the answer first; empty for all tensors of floats, in order.
    reference: prepares the module for float64.
    """

    module: nn.Module
    calls: tuple[Call, ...]
    kind: Kind
    area: str
    names: tuple[str, ...] = ()
    reference: Callable[[nn.Module], None] | None = None

    @property
    def parameters(self) -> int:
        """How many numbers its weights have."""
        return sum(parameter.numel() for parameter in self.module.parameters())

    def run(self, called: Callable[..., Any], call: Call, seed: int = 0) -> Outputs:
        """What ``called``, the module or one made of it, returns for a batch, without gradients, on copies.

        Random numbers are those of ``seed``. The module's buffers are as before: what a call leaves in them is undone.
        """
        torch.manual_seed(seed)
        own = call.copied()
        with torch.no_grad(), same_buffers(self.module):
            return {name: value.clone() for name, value in self.outputs(called(*own.args, **own.kwargs)).items()}

    def draws(self) -> bool:
        """Whether results depend on random numbers, which each way to run the model draws for itself."""
        first, second = (self.run(self.module, self.calls[0], seed) for seed in (0, 1))
        return any(not torch.equal(one.nan_to_num(), second[name].nan_to_num()) for name, one in first.items())

    def outputs(self, result: Any) -> Outputs:
        """The tensors to compare in what the model returned. Raises OptionError if one is missing."""
        if not self.names:
            floats = list(_floats(result))
            if not floats:
                raise OptionError("the model returns no tensor of floats: there is nothing to compare")
            return {str(index): one for index, one in enumerate(floats)}
        found = {}
        for name in self.names:
            value = result.get(name) if isinstance(result, Mapping) else getattr(result, name, None)
            if not isinstance(value, torch.Tensor):
                raise OptionError(f"the model returns no tensor {name!r}")
            if not (value.is_floating_point() or value.is_complex()):
                raise OptionError(f"the model's {name!r} is of {value.dtype}: floats are compared")
            found[name] = _real(value)
        return found

    def truth(self) -> list[Outputs]:
        """The outputs of every batch in float64, where conversions to smaller floats are to float64, too."""
        wide = copy.deepcopy(self.module).double()
        if self.reference is not None:
            self.reference(wide)
        exact, found = replace(self, module=wide), []
        for call in self.calls:
            args, kwargs = tree_map_only(torch.Tensor, _wide, (call.args, dict(call.kwargs)))
            with InFloat64():
                found.append(exact.run(wide, Call(args, kwargs)))
        return found


def _wide(tensor: torch.Tensor) -> torch.Tensor:
    if tensor.is_complex():
        return tensor.to(torch.complex128)
    return tensor.double() if tensor.is_floating_point() else tensor


def _floats(result: Any) -> Iterator[torch.Tensor]:
    """The tensors of floats, and of complex numbers, in what a model returned, in order."""
    for one in tree_flatten(dict(result) if isinstance(result, Mapping) else result)[0]:
        if isinstance(one, torch.Tensor):
            if one.is_floating_point() or one.is_complex():
                yield _real(one)
        elif is_dataclass(one):
            yield from _floats([getattr(one, field.name) for field in fields(one)])


def _real(tensor: torch.Tensor) -> torch.Tensor:
    """Complex numbers as pairs, in one dimension more."""
    found = tensor.detach()
    return torch.view_as_real(found.resolve_conj()) if found.is_complex() else found


@contextmanager
def same_buffers(module: nn.Module) -> Iterator[None]:
    """The module's buffers have their values again when the context ends."""
    before = {name: buffer.clone() for name, buffer in module.named_buffers()}
    try:
        yield
    finally:
        for name, buffer in module.named_buffers():
            old = before.get(name)
            if old is not None and old.shape == buffer.shape and not torch.equal(old, buffer):
                buffer.copy_(old)


def load(spec: ModelSpec) -> Loaded:
    """The model of ``spec``. Raises OptionError for what cannot be loaded, and what a user's function raises."""
    dtype: torch.dtype = getattr(torch, spec.dtype)
    if spec.checkpoint or spec.make:
        return _typed(_users(spec), dtype)
    from torchport.evaluation.models import build, entries

    entry = entries()[spec.name]
    first = build(spec.name, _size(spec), dtype, seed=spec.seed)
    # The weights of the first, and the inputs of models of other seeds, which are of the same shapes.
    seeds = (spec.seed + 1000 * number for number in range(1, spec.batches))
    inputs = [first.inputs, *(build(spec.name, _size(spec), dtype, seed=seed).inputs for seed in seeds)]
    calls = tuple(Call((), one) for one in inputs)
    return Loaded(
        first.module, calls, _kind(spec, entry.kind), spec.area or entry.area, first.output_names, entry.reference
    )


def _users(spec: ModelSpec) -> Loaded:
    """A model of the user's own. With ``data``, its batches replace those that the function returns."""
    from torchport.evaluation import local

    if spec.checkpoint:
        module, inputs = local.checkpoint(spec), None
    else:
        torch.manual_seed(spec.seed)
        module, inputs = load_model(spec.make)
        if not isinstance(module, nn.Module):
            raise OptionError(f"{spec.make} returns {type(module).__name__}, and an evaluation needs a torch.nn.Module")
        if spec.weights:
            local.load_weights(module, Path(spec.weights))
    batches = local.batches(spec, inputs)
    names = (spec.output,) if spec.output else ("logits",) if spec.checkpoint and _has_head(module) else ()
    calls = tuple(_call(one) for one in batches)
    return Loaded(
        module.eval(), calls, _kind(spec, "tokens" if names == ("logits",) else "values"), spec.area or "own", names
    )


def _has_head(module: nn.Module) -> bool:
    """Whether a model of transformers gives logits."""
    head: Any = getattr(module, "get_output_embeddings", None)
    return callable(head) and head() is not None


def _typed(loaded: Loaded, dtype: torch.dtype) -> Loaded:
    def converted(tensor: torch.Tensor) -> torch.Tensor:
        return tensor.to(dtype) if tensor.is_floating_point() else tensor

    calls = tuple(
        Call(*tree_map_only(torch.Tensor, converted, (call.args, dict(call.kwargs)))) for call in loaded.calls
    )
    return Loaded(loaded.module.to(dtype), calls, loaded.kind, loaded.area, loaded.names, loaded.reference)


def _call(inputs: Sequence[Any] | Mapping[str, Any]) -> Call:
    return Call((), inputs) if isinstance(inputs, Mapping) else Call(tuple(inputs), {})


def _size(spec: ModelSpec) -> Any:
    return spec.size  # checked by the suite's schema


def _kind(spec: ModelSpec, default: Kind) -> Any:
    return spec.kind or default
