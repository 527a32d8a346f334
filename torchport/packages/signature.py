"""Checks a call's inputs: what the exported graph was made for, and nothing else, may reach the program."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch

from torchport.errors import ArtifactError, InputError
from torchport.packages import trees
from torchport.packages.manifest import ConstantInput, Manifest, ProgramEntry, TensorInput
from torchport.program.values import evaluate

__all__ = ["Signature", "values_of"]


def values_of(manifest: Manifest, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> list[Any]:
    """The values of a call in the tree's order. Raises InputError for inputs that lie otherwise than in the tree."""
    (_, positional, named) = manifest.input_tree
    given = dict(kwargs)
    for parameter in manifest.parameters[len(args) : len(positional) - 1]:
        if parameter in given:
            args = (*args, given.pop(parameter))
    if len(args) != len(positional) - 1:
        names = ", ".join(manifest.parameters) or "none"
        raise InputError(f"{len(args)} inputs were given, and the model takes {len(positional) - 1}: {names}")
    values: list[Any] = []
    for index, (tree, value) in enumerate(zip(positional[1:], args, strict=True)):
        name = manifest.parameters[index] if index < len(manifest.parameters) else f"input {index}"
        values += trees.flatten(tree, value, name)
    if given or len(named) > 2:
        values += trees.flatten(named, given, "the named inputs")
    return values


class Signature:
    """The inputs of one program."""

    def __init__(self, entry: ProgramEntry) -> None:
        """Read the inputs of ``entry``. Raises ArtifactError for a type that torch has not."""
        self._inputs = entry.inputs
        self._relations = entry.relations
        self._symbols = entry.symbols
        self._writes = any(isinstance(one, TensorInput) and one.written for one in entry.inputs)
        self._dtypes: dict[str, torch.dtype] = {}
        for one in entry.inputs:
            if isinstance(one, TensorInput):
                dtype = getattr(torch, one.dtype, None)
                if not isinstance(dtype, torch.dtype):
                    raise ArtifactError(f"input {one.name[:80]} has the type {one.dtype[:40]!r}, which torch has not")
                self._dtypes[one.dtype] = dtype

    def tensors(self, values: Sequence[Any]) -> list[torch.Tensor]:
        """The tensors among ``values``. Raises InputError for what the program was not made for."""
        sizes: dict[str, int] = {}
        tensors = []
        for one, value in zip(self._inputs, values, strict=True):
            if isinstance(one, ConstantInput):
                if type(value) is not type(one.value) or value != one.value:
                    raise InputError(f"{one.name} is {value!r:.60}, and the model was exported with {one.value!r:.60}")
                continue
            self._check_kind(one, value)
            self._bind(one, value, sizes)
            tensors.append(value)
        self._check_layouts(tensors, sizes)
        for relation in self._relations:
            if not evaluate(relation.value, sizes):
                found = ", ".join(f"{name} = {size}" for name, size in sizes.items())
                raise InputError(f"the sizes do not fit each other: the model needs {relation.text}, with {found}")
        if self._writes:
            self._check_memory(tensors)
        return tensors

    def _check_kind(self, one: TensorInput, value: Any) -> None:
        if not isinstance(value, torch.Tensor):
            raise InputError(f"{one.name} is a {type(value).__name__}, and the model takes a tensor")
        if type(value).__torch_dispatch__ is not torch.Tensor.__torch_dispatch__:
            raise InputError(f"{one.name} is a {type(value).__name__}, and the model takes a plain tensor")
        if value.dtype is not self._dtypes[one.dtype]:
            raise InputError(f"{one.name} is of {value.dtype}, and the model takes torch.{one.dtype}")
        if value.device.type != "cpu" or value.layout is not torch.strided:
            raise InputError(
                f"{one.name} is on {value.device} and {value.layout}; the model takes a strided CPU tensor"
            )
        if value.dim() != len(one.sizes):
            raise InputError(f"{one.name} has {value.dim()} dimensions, and the model takes {len(one.sizes)}")
        if value.requires_grad and torch.is_grad_enabled():
            raise InputError(f"{one.name} requires gradients, which a package does not compute; use torch.no_grad()")
        if value.is_conj() or value.is_neg():
            raise InputError(f"{one.name} is a conjugate or negative view; call resolve_conj() or resolve_neg()")

    def _bind(self, one: TensorInput, value: torch.Tensor, sizes: dict[str, int]) -> None:
        """Note the sizes that have names."""
        for dim, (name, size) in enumerate(zip(one.sizes, value.shape, strict=True)):
            if not isinstance(name, str) or name in sizes:
                continue
            sizes[name] = size
            low, high = self._symbols[name].low, self._symbols[name].high
            if size < low or (high is not None and size > high):
                limit = f"from {low} to {high}" if high is not None else f"{low} or more"
                raise InputError(f"dimension {dim} of {one.name} is {size}, and the model takes {limit}")

    def _check_layouts(self, tensors: Sequence[torch.Tensor], sizes: Mapping[str, int]) -> None:
        wanted = (one for one in self._inputs if isinstance(one, TensorInput))
        for one, value in zip(wanted, tensors, strict=True):
            for dim, (expected, size) in enumerate(zip(one.sizes, value.shape, strict=True)):
                if size != (expected if type(expected) is int else evaluate(expected, sizes)):
                    number = evaluate(expected, sizes)
                    raise InputError(f"dimension {dim} of {one.name} is {size}, and the model takes {number} there")
            for expected, stride, size in zip(one.strides, value.stride(), value.shape, strict=True):
                if size > 1 and stride != (expected if type(expected) is int else evaluate(expected, sizes)):
                    strides = tuple(evaluate(value, sizes) for value in one.strides)
                    raise InputError(f"{one.name} has strides {value.stride()}, and the model takes {strides}")

    def _check_memory(self, tensors: Sequence[torch.Tensor]) -> None:
        """Raise InputError if an input that the model writes shares memory with another."""
        wanted = [one for one in self._inputs if isinstance(one, TensorInput)]
        memory = [tensor.untyped_storage().data_ptr() for tensor in tensors]
        for one, place in zip(wanted, memory, strict=True):
            if one.written and place and memory.count(place) > 1:
                raise InputError(f"{one.name} is written by the model, and shares memory with another input; clone it")
