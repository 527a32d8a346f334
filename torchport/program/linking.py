"""Links a program: each value gets a place in a list, the frame, and each step becomes calls over places.

What depends on nothing that changes is computed then, so a view of a weight is made once.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

from torchport.compat import guard_functions
from torchport.errors import ArtifactError, InputError
from torchport.program import operators
from torchport.program.steps import Call, Launch, Let, Program, Require, Step
from torchport.program.values import EFFECTS, NUMBERS, TENSORS, function_of, is_literal, literal

__all__ = ["Drop", "Instruction", "Linked", "OtherMemory", "link"]


@dataclass(frozen=True)
class Instruction:
    """A call: ``function`` of the values at ``operands`` and ``keywords``. What it returns goes to ``to``."""

    function: Callable[..., Any]
    operands: tuple[int, ...]
    keywords: Mapping[str, int] = field(default_factory=dict)
    to: int | None = None


@dataclass(frozen=True)
class Drop:
    """The values at these places are not used again."""

    places: tuple[int, ...]


@dataclass(frozen=True)
class Linked:
    """A program's frame and code.

    inputs: names of the inputs that change; their places are the first.
    template: the frame when a call begins, with what never changes.
    code: what to do, in order.
    results: places of what it returns.
    known: places whose value never changes.
    """

    inputs: tuple[str, ...]
    template: Sequence[Any]
    code: Sequence[Instruction | Drop]
    results: Sequence[int]
    known: Collection[int]


@dataclass(frozen=True)
class OtherMemory:
    """What a program calls where its kernels have memory of their own.

    empty: allocates a tensor: sizes, strides and type.
    item: the value of a tensor as a number.
    operator: an operator of PyTorch's, as this program calls it.
    """

    empty: Callable[..., Any]
    item: Callable[[torch.Tensor], Any]
    operator: Callable[[Any], Callable[..., Any]]


def link(
    program: Program,
    kernels: Mapping[str, Callable[..., None]],
    constants: Mapping[str, Any],
    kept: Collection[int] = (),
    namespaces: Collection[str] = operators.NAMESPACES,
    memory: OtherMemory | None = None,
) -> Linked:
    """Link ``program``.

    kernels: the launch of each kernel, by name.
    constants: inputs that are the same at each call, by name.
    kept: numbers of steps that allocate a buffer, which is allocated once and lives on between calls.
    namespaces: whose operators it may call.
    memory: how it computes where kernels have memory of their own; None where they run in the tensors' memory.

    Raises ArtifactError for a program that names an operation, operator, kernel or value that there is not.
    """
    linker = _Linker(kernels, constants, namespaces, memory)
    inputs = tuple(name for name in program.inputs if name not in constants)
    for name in inputs:
        linker.places[name] = linker.place()
    for index, step in enumerate(program.steps):
        try:
            linker.step(step, index in kept)
        except (ArtifactError, operators.Refused) as error:
            raise ArtifactError(f"step {index} of the program cannot run: {error}") from error
    results = [linker.result(value) for value in program.results]
    code = linker.finished(keep=results)
    return Linked(inputs, linker.template, code, results, frozenset(linker.known))


class _Linker:
    """Places of values, and the instructions so far."""

    def __init__(
        self,
        kernels: Mapping[str, Callable[..., None]],
        constants: Mapping[str, Any],
        namespaces: Collection[str],
        memory: OtherMemory | None,
    ) -> None:
        self.kernels = kernels
        self.constants = constants
        self.template: list[Any] = []
        self.places: dict[str, int] = {}
        self.known: set[int] = set()
        self._namespaces = namespaces
        self._memory = memory
        self._code: list[Instruction] = []
        self._literals: dict[Any, int] = {}
        self._values: dict[tuple[str, tuple[int, ...]], int] = {}  # those that are computed once, by their operands
        self._numbers: set[int] = set()  # places that never hold a tensor, so that nothing is freed with them

    def place(self, value: Any = None) -> int:
        """A new place in the frame, which holds ``value`` when a call begins."""
        self.template.append(value)
        return len(self.template) - 1

    def constant(self, value: Any) -> int:
        """The place of a value that never changes."""
        key = (type(value), repr(value)) if value is None or isinstance(value, (bool, int, float)) else id(value)
        if key not in self._literals:
            self._literals[key] = self.place(value)
            self.known.add(self._literals[key])
            if not isinstance(value, torch.Tensor):
                self._numbers.add(self._literals[key])
        return self._literals[key]

    def operand(self, value: Any) -> int:
        """The place of a value, after the instructions that compute it."""
        if isinstance(value, str):
            if value in self.places:
                return self.places[value]
            if value in self.constants:
                return self.constant(self.constants[value])
            raise ArtifactError(f"the name {value[:40]!r} has no value")
        if not isinstance(value, list):
            if not (value is None or isinstance(value, (bool, int, float))):
                raise ArtifactError(f"{value!r:.40} is no value")
            return self.constant(value)
        if is_literal(value):
            return self.constant(literal(value))
        function, name = function_of(value), value[0]
        if self._memory is not None:
            function = {"empty": self._memory.empty, "item": self._memory.item}.get(name, function)
        operands = tuple(self.operand(one) for one in value[1:])
        if name in EFFECTS:
            return self._instruction(name, function, operands)
        if (name, operands) not in self._values:
            make = self._computed if self.known.issuperset(operands) else self._instruction
            self._values[name, operands] = make(name, function, operands)
        return self._values[name, operands]

    def result(self, value: Any) -> int:
        """The place of a result. A view is a tensor of its own at each call: the caller may change it."""
        if isinstance(value, list) and value and value[0] in TENSORS:
            return self._instruction(value[0], function_of(value), tuple(self.operand(one) for one in value[1:]))
        place = self.operand(value)
        kept = self.template[place]  # where it does not change
        if isinstance(kept, torch.Tensor) and not any(kept is weight for weight in self.constants.values()):
            return self._instruction("view", torch.Tensor.detach, (place,))
        return place

    def step(self, step: Step, kept: bool) -> None:
        """Add the instructions of a step. ``kept``: it allocates a buffer that lives on between calls."""
        if isinstance(step, Let):
            self.places[step.name] = self._buffer(step.value) if kept else self.operand(step.value)
        elif isinstance(step, Launch):
            if step.kernel not in self.kernels:
                raise ArtifactError(f"there is no kernel {step.kernel[:80]!r}")
            self._emit(self.kernels[step.kernel], step.args)
        elif isinstance(step, Call):
            self._call(step)
        elif isinstance(step, Require):
            self._emit(_require, [step.value, ["text", step.text]])
        else:
            sizes, strides = (["tuple", *values] for values in (step.sizes, step.strides))
            self._emit(_require_layout, [step.name, sizes, strides, ["text", step.name]])

    def finished(self, keep: Sequence[int]) -> list[Instruction | Drop]:
        """The instructions, with those that drop values after their last use. ``keep``: places of the results."""
        alive = {*keep, *self.known, *self._numbers}
        backwards: list[Instruction | Drop] = []
        for one in reversed(self._code):
            last = {*one.operands, *one.keywords.values(), *(() if one.to is None else (one.to,))} - alive
            if last:
                backwards.append(Drop(tuple(sorted(last))))
            alive |= last
            backwards.append(one)
        return backwards[::-1]

    def _instruction(self, name: str, function: Callable[..., Any], operands: tuple[int, ...]) -> int:
        """The place of a value that each call computes."""
        to = self.place()
        self._code.append(Instruction(function, operands, to=to))
        if name in NUMBERS or (name not in TENSORS and self._numbers.issuperset(operands)):
            self._numbers.add(to)
        return to

    def _computed(self, name: str, function: Callable[..., Any], operands: tuple[int, ...]) -> int:
        try:
            found = function(*(self.template[place] for place in operands))
        except (ArithmeticError, LookupError, RuntimeError, TypeError, ValueError) as error:
            raise ArtifactError(f"{name} cannot be computed: {str(error).splitlines()[0]}") from error
        to = self.place(found)
        self.known.add(to)
        if name not in TENSORS and self._numbers.issuperset(operands):
            self._numbers.add(to)
        return to

    def _buffer(self, value: list[Any]) -> int:
        return self._computed(value[0], function_of(value), tuple(self.operand(one) for one in value[1:]))

    def _call(self, step: Call) -> None:
        try:
            if self._memory is None:
                function = operators.implementation(step.operator, self._namespaces)
            else:
                function = self._memory.operator(operators.find(step.operator, self._namespaces))
        except operators.Refused as error:
            raise ArtifactError(f"operator {step.operator[:80]}: {error}") from error
        operands = tuple(self.operand(value) for value in step.args)
        keywords = {name: self.operand(value) for name, value in step.kwargs.items()}
        to = self.place() if step.name is not None else None
        self._code.append(Instruction(function, operands, keywords, to))
        if step.name is not None and to is not None:
            self.places[step.name] = to

    def _emit(self, function: Callable[..., Any], values: Sequence[Any]) -> None:
        self._code.append(Instruction(function, tuple(self.operand(value) for value in values)))


def _require(value: Any, text: str) -> None:
    if not value:
        raise InputError(f"a condition of the model does not hold: {text}")


def _require_layout(tensor: Any, sizes: Sequence[int], strides: Sequence[int], name: str) -> None:
    """Raise ArtifactError unless ``tensor`` has these sizes, and these strides where they matter."""
    try:
        guard_functions.assert_size_stride(tensor, sizes, strides)
    except (AssertionError, TypeError) as error:
        found = f"{tuple(tensor.shape)} and strides {tensor.stride()}" if isinstance(tensor, torch.Tensor) else "none"
        raise ArtifactError(
            f"an operator returned {name} with sizes {found}, and the program was made for {tuple(sizes)} and "
            f"{tuple(strides)}; compile or package the model with this torch"
        ) from error
