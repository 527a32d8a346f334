"""Follows a program whose sizes are all known, over places in buffers in place of tensors: nothing is computed.

What launches and calls become is the caller's: this is how a program is written down for a machine without Python.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from math import prod
from typing import Any, Protocol

import torch

from torchport.errors import ArtifactError, CompilationError
from torchport.program.steps import Call, Check, Launch, Let, Program, Require
from torchport.program.values import function_of, is_literal, literal

__all__ = ["Actions", "Place", "follow"]

_VIEWS = ("view", "counted_view")
_SAME = ("detach", "in_memory")


@dataclass(frozen=True)
class Place:
    """A tensor without its memory.

    buffer: the name of what it lies in.
    dtype: its type.
    sizes, strides: of its dimensions; strides in elements.
    offset: bytes from the buffer's start to its first element.
    """

    buffer: str
    dtype: torch.dtype
    sizes: tuple[int, ...]
    strides: tuple[int, ...]
    offset: int = 0

    @property
    def reach(self) -> int:
        """Bytes from its first element to behind its last; 0 if it has none."""
        if 0 in self.sizes:
            return 0
        last = sum((size - 1) * stride for size, stride in zip(self.sizes, self.strides, strict=True))
        return (last + 1) * self.dtype.itemsize

    def dim(self) -> int:
        """Its number of dimensions."""
        return len(self.sizes)

    def stride(self) -> tuple[int, ...]:
        """Its strides."""
        return self.strides

    def viewed(self, sizes: Sequence[int], strides: Sequence[int], offset: int) -> Place:
        """A view of its buffer that begins ``offset`` elements after its first element."""
        return replace(self, sizes=(*sizes,), strides=(*strides,), offset=self.offset + offset * self.dtype.itemsize)

    def expanded(self, sizes: Sequence[int]) -> Place:
        """A view of ``sizes``, as ``torch.Tensor.expand``. Raises CompilationError if it cannot be one."""
        missing = len(sizes) - len(self.sizes)
        old = (1,) * missing + self.sizes
        if missing < 0 or any(had not in (1, wanted) for had, wanted in zip(old, sizes, strict=True)):
            raise CompilationError(f"a tensor of sizes {self.sizes} cannot be expanded to {tuple(sizes)}")
        kept = (0,) * missing + self.strides
        strides = [0 if had != wanted else stride for had, wanted, stride in zip(old, sizes, kept, strict=True)]
        return replace(self, sizes=(*sizes,), strides=(*strides,))


class Actions(Protocol):
    """What is done with the steps of a program."""

    def allocate(self, nbytes: int) -> str:
        """The name of a new buffer."""

    def launch(self, kernel: str, arguments: Sequence[Any]) -> None:
        """A launch; ``arguments`` are Places, numbers and None."""

    def call(self, operator: str, arguments: Sequence[Any], keywords: Mapping[str, Any]) -> Any:
        """What a call of ``operator`` returns: a Place, or several. Raises CompilationError if it cannot be made."""

    def item(self, place: Place) -> Any:
        """The value of a tensor of one element. Raises CompilationError if only a run has it."""


def follow(
    program: Program, inputs: Mapping[str, Place], actions: Actions, sites: Mapping[int, str] | None = None
) -> list[Any]:
    """Do ``actions`` for the steps of ``program``, in order; returns its results, Places or numbers.

    sites: where steps come from, by their number, for errors.

    Raises CompilationError for what depends on the values of tensors, and for sizes that the program does not take.
    """
    names: dict[str, Any] = dict(inputs)
    for number, step in enumerate(program.steps):
        if isinstance(step, Let):
            names[step.name] = _value(step.value, names, actions)
        elif isinstance(step, Launch):
            actions.launch(step.kernel, [_value(one, names, actions) for one in step.args])
        elif isinstance(step, Call):
            arguments = [_value(one, names, actions) for one in step.args]
            keywords = {name: _value(one, names, actions) for name, one in step.kwargs.items()}
            try:
                found = actions.call(step.operator, arguments, keywords)
            except CompilationError as error:
                if not (where := (sites or {}).get(number, "")):
                    raise
                raise CompilationError(f"{error} ({where})") from error
            if step.name is not None:
                names[step.name] = found
        elif isinstance(step, Check):
            _check(step, names, actions)
        elif isinstance(step, Require) and not _value(step.value, names, actions):
            raise CompilationError(step.text)
    return [_value(one, names, actions) for one in program.results]


def _value(value: Any, names: Mapping[str, Any], actions: Actions) -> Any:
    if isinstance(value, str):
        if value not in names:
            raise ArtifactError(f"the name {value[:40]!r} has no value")
        return names[value]
    if not isinstance(value, list):
        return value
    if is_literal(value):
        return literal(value)
    operation, *operands = value[0], *(_value(one, names, actions) for one in value[1:])
    if operation == "empty":
        return empty(actions, *operands)
    if operation in _VIEWS:
        base, sizes, strides, offset = operands
        return base.viewed(sizes, strides, offset)
    if operation in _SAME:
        return operands[0]
    if operation in ("size", "stride"):
        tensor, dimension = operands
        return (tensor.sizes if operation == "size" else tensor.strides)[dimension]
    if operation == "item":
        return actions.item(operands[0])
    return function_of(value)(*operands)


def empty(actions: Actions, sizes: Sequence[int], strides: Sequence[int], dtype: torch.dtype) -> Place:
    """A new tensor."""
    place = Place("", dtype, (*sizes,), (*strides,))
    return replace(place, buffer=actions.allocate(max(place.reach, prod(sizes) * dtype.itemsize)))


def _check(step: Check, names: Mapping[str, Any], actions: Actions) -> None:
    tensor = names[step.name]
    sizes, strides = (tuple(_value(one, names, actions) for one in part) for part in (step.sizes, step.strides))
    wrong = [
        (size, stride) for size, stride, wanted, step_ in zip(tensor.sizes, tensor.strides, sizes, strides, strict=True)
        if size != wanted or (size > 1 and stride != step_)
    ]  # fmt: skip
    if wrong:
        raise CompilationError(
            f"{step.name} has sizes {tensor.sizes} and strides {tensor.strides}; the program takes {sizes}, {strides}"
        )
