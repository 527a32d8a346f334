"""A model as torch.export wants it: plain containers, and every tensor that it keeps in an object is a buffer."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from functools import wraps
from typing import Any

import torch
from torch.utils._pytree import TreeSpec, tree_flatten, tree_leaves, tree_unflatten

from torchport.errors import CompilationError
from torchport.packages.containers import lost_change, plain, rebuilt, shapes_in, state, tensors_in_objects
from torchport.packages.tensor_parts import Whole, taken_out, wholes
from torchport.packages.trees import leaves, names_in_tree

__all__ = ["PlainModule"]

_MODEL, _HELD = "model", "held_"


@dataclass(frozen=True)
class _Attribute:
    """An attribute of one of the model's modules that holds tensors: a cache, a list of tables, a tensor.

    place: what messages call it.
    values: its values in plain containers, in order; for a tensor, the name of a parameter or buffer, and True.
    spec: how they lie.
    """

    module: torch.nn.Module
    name: str
    place: str
    value: Any
    values: tuple[tuple[Any, bool], ...]
    spec: TreeSpec


class PlainModule(torch.nn.Module):
    """A model that takes and returns plain containers (``torchport.packages.containers``).

    args, kwargs: the example inputs in plain containers.
    output_tree: how the results lie in the user's containers, after the model was traced.

    torch.export takes a tensor that a module keeps in an object of another kind for a constant, although the model may
    write it: such tensors are buffers here. So are the parts of parameters that are made of other tensors, which are
    to be exported within ``apart``.
    """

    output_tree: Any = None

    def __init__(
        self, model: Callable[..., Any], parameters: Sequence[str], args: Sequence[Any], kwargs: Mapping[str, Any]
    ) -> None:
        """``parameters``: names of the first positional inputs. Raises CompilationError for inputs without tensors."""
        super().__init__()
        self.model = model
        places = [*parameters, *(f"input {index}" for index in range(len(parameters), len(args)))]
        self._given: tuple[Any, Any] = (tuple(args), dict(kwargs))
        self._positional = [plain(one, place) for one, place in zip(args, places, strict=True)]
        self._named = {key: plain(one, key) for key, one in kwargs.items()}
        self.args = tuple(one.value for one in self._positional)
        self.kwargs = {key: one.value for key, one in self._named.items()}
        self._places = places
        self._names: dict[str, str] = {}
        self._known = {id(tensor): name for name, tensor in self._tensors().items()}
        self._attributes = list(self._held(model)) if isinstance(model, torch.nn.Module) else []
        self._wholes = list(self._in_parts(model)) if isinstance(model, torch.nn.Module) else []
        inner = model.forward if isinstance(model, torch.nn.Module) else model

        @wraps(inner)
        def forward(*args: Any, **kwargs: Any) -> Any:
            return self._run(args, kwargs)

        self.forward = forward

    def _held(self, model: torch.nn.Module) -> Iterator[_Attribute]:
        """The attributes that hold tensors, after these are buffers where they are not registered."""
        for path, module in model.named_modules():
            for name, value in tensors_in_objects(module):
                place = f"{path}.{name}" if path else name
                made = plain(value, place)
                values, spec = tree_flatten(made.value)
                found: list[tuple[Any, bool]] = []
                for one, label in zip(values, names_in_tree(made.tree, place), strict=True):
                    tensor = isinstance(one, torch.Tensor)
                    found.append((self._buffer(one, label), True) if tensor else (one, False))
                yield _Attribute(module, name, place, value, tuple(found), spec)

    def _buffer(self, tensor: torch.Tensor, label: str) -> str:
        """The name that a tensor is registered by, from now on at the latest. ``label``: what the user calls it."""
        if id(tensor) not in self._known:
            self._known[id(tensor)] = buffer = f"{_HELD}{len(self._names)}"
            self._names[buffer] = label
            self.register_buffer(buffer, tensor, persistent=False)
        return self._known[id(tensor)]

    def _in_parts(self, model: torch.nn.Module) -> Iterator[tuple[Whole, tuple[str, ...]]]:
        """Parameters and buffers that are made of others, with the names of their parts, which are buffers."""
        for one in wholes(model):
            yield one, tuple(self._buffer(part, label) for label, part in one.parts.items())

    def apart(self) -> AbstractContextManager[None]:
        """While the model is exported: parameters that are made of other tensors are computed from these."""
        return taken_out([one for one, _ in self._wholes])

    def _tensors(self) -> dict[str, torch.Tensor]:
        return {
            **dict(self.named_parameters(remove_duplicate=False)), **dict(self.named_buffers(remove_duplicate=False)),
        }  # fmt: skip

    def name_of(self, target: str) -> str:
        """What the user's model calls a parameter, buffer or constant of this module."""
        return self._names.get(target) or target.removeprefix(f"{_MODEL}.")

    @contextmanager
    def _attributes_set(self) -> Iterator[None]:
        """Objects that the modules hold have the tensors that are registered now, those of torch.export's trace."""
        now = self._tensors() if self._attributes or self._wholes else {}
        before: dict[str, Any] = {}
        held: list[tuple[_Attribute, Any]] = []
        try:
            for whole, parts in self._wholes:
                vars(whole.module)[whole.name] = whole.of([now[part] for part in parts])
            for one in self._attributes:
                values = [now[value] if registered else value for value, registered in one.values]
                made = rebuilt(one.value, tree_unflatten(values, one.spec))
                vars(one.module)[one.name] = made
                held.append((one, made))
                before |= state(made, one.place)
            yield
            after = {name: value for one, _ in held for name, value in state(vars(one.module)[one.name], one.place)}
            _refuse(lost_change(before, after, ()))
        finally:
            for one in self._attributes:
                vars(one.module)[one.name] = one.value
            for whole, _ in self._wholes:
                vars(whole.module).pop(whole.name, None)

    def _run(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
        given_args, given_kwargs = self._given
        own = [rebuilt(like, value) for like, value in zip(given_args, args, strict=True)]
        named = {key: rebuilt(given_kwargs[key], value) for key, value in kwargs.items()}
        before = self._state(own, named)
        with self._attributes_set():
            found = plain(self.model(*own, **named), "the result")
        values = tree_leaves(found.value)
        _refuse(lost_change(before, self._state(own, named), values))
        for place, value in zip(names_in_tree(found.tree, "the result"), values, strict=True):
            _refuse(f"{place} is a text, which a package cannot return" if isinstance(value, str) else "")
        self.output_tree = found.tree
        return found.value

    def _state(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> dict[str, Any]:
        places = [*zip(self._places, args, strict=True), *kwargs.items()]
        return {name: value for place, one in places for name, value in state(one, place)}

    def shapes(self, dynamic_shapes: Any) -> Any:
        """``dynamic_shapes`` for the plain inputs."""
        trees = {place: one.tree for place, one in zip(self._places, self._positional, strict=True)}
        trees |= {key: one.tree for key, one in self._named.items()}
        if isinstance(dynamic_shapes, (tuple, list)):
            shapes = [shapes_in(tree, one) for tree, one in zip(trees.values(), dynamic_shapes, strict=False)]
            return type(dynamic_shapes)([*shapes, *dynamic_shapes[len(shapes) :]])
        if isinstance(dynamic_shapes, dict):
            return {name: shapes_in(trees.get(name), one) for name, one in dynamic_shapes.items()}
        return dynamic_shapes

    def leaves(self, spec: TreeSpec) -> list[Any]:
        """The example's values, in the order of ``spec``, torch.export's."""
        return tree_leaves([self.args, [self.kwargs[key] for key in spec.children()[1].context or ()]])

    def input_tree(self, spec: TreeSpec) -> Any:
        """The tree of the inputs; the named ones in the order of ``spec``, torch.export's."""
        keys = list(spec.children()[1].context or ())
        tree = [
            "tuple", ["tuple", *(one.tree for one in self._positional)],
            ["dict", keys, *(self._named[key].tree for key in keys)],
        ]  # fmt: skip
        if leaves(tree) != spec.num_leaves:
            raise CompilationError("torch.export takes the inputs apart otherwise than a package does")
        return tree


def _refuse(lost: str) -> None:
    if lost:
        raise CompilationError(lost)
