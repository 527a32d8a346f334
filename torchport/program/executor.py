"""Runs a program: a list of instructions over one list of values, the frame.

Linking gives each value a place in the frame. What depends on nothing that changes is computed then, so a view of a
weight is made once. An instruction reads places and writes places, and nothing else: native code could run them.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch

from torchport.errors import ArtifactError, InputError
from torchport.program import operators
from torchport.program.steps import Call, Check, Launch, Let, Program, Require, Step
from torchport.program.values import EFFECTS, NUMBERS, TENSORS, function_of, is_literal, literal

__all__ = ["Executor"]

Frame = list[Any]
Instruction = Callable[[Frame], None]


class Executor:
    """A program that runs in this process.

    ``executor(tensors)`` takes the inputs that change and returns the results in a list. Threads may call it at once,
    as far as the program writes none of its constants.
    """

    def __init__(
        self, program: Program, kernels: Mapping[str, Callable[..., None]], constants: Mapping[str, Any] | None = None
    ) -> None:
        """Link ``program``.

        kernels: the launch of each kernel, by name.
        constants: inputs that are the same at each call, by name; the others are given at each call, in their order.

        Raises ArtifactError for a program that names an operation, operator, kernel or value that there is not.
        """
        linker = _Linker(kernels, constants or {})
        self.inputs = tuple(name for name in program.inputs if name not in linker.constants)
        for name in self.inputs:
            linker.places[name] = linker.place()
        for index, step in enumerate(program.steps):
            try:
                linker.step(step)
            except (ArtifactError, operators.Refused) as error:
                raise ArtifactError(f"step {index} of the program cannot run: {error}") from error
        self._results = [linker.result(value) for value in program.results]
        self._instructions = linker.finished(keep=self._results)
        self._rest = linker.template[len(self.inputs) :]  # the frame without the inputs, which have the first places

    def __call__(self, inputs: Sequence[Any]) -> list[Any]:
        """Run the program. ``inputs``: one value for each of ``inputs``; what they are is not checked."""
        frame = [*inputs, *self._rest]
        for instruction in self._instructions:
            instruction(frame)
        return [frame[place] for place in self._results]


class _Linker:
    """Places of values, and the instructions so far."""

    def __init__(self, kernels: Mapping[str, Callable[..., None]], constants: Mapping[str, Any]) -> None:
        self.kernels = kernels
        self.constants = constants
        self.template: Frame = []
        self.places: dict[str, int] = {}
        self._known: set[int] = set()
        self._code: list[tuple[Instruction, tuple[int, ...], int | None]] = []
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
            self._known.add(self._literals[key])
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
        operands = tuple(self.operand(one) for one in value[1:])
        if name in EFFECTS:
            return self._instruction(name, function, operands)
        if (name, operands) not in self._values:
            known = self._known.issuperset(operands)
            make = self._computed if known else self._instruction
            self._values[name, operands] = make(name, function, operands)
        return self._values[name, operands]

    def result(self, value: Any) -> int:
        """The place of a result. A view is a tensor of its own at each call: the caller may change its shape."""
        place = self.operand(value)
        kept = self.template[place]  # where it does not change
        if isinstance(value, list) and value[:1] == ["view"]:
            return self._instruction("view", torch.Tensor.detach, (place,))
        if isinstance(kept, torch.Tensor) and not any(kept is weight for weight in self.constants.values()):
            return self._instruction("view", torch.Tensor.detach, (place,))
        return place

    def _instruction(self, name: str, function: Callable[..., Any], operands: tuple[int, ...]) -> int:
        """The place of a value that each call computes."""
        to = self.place()
        self._emit(_into(to, function, operands), operands, to)
        if name in NUMBERS or (name not in TENSORS and self._numbers.issuperset(operands)):
            self._numbers.add(to)
        return to

    def _computed(self, name: str, function: Callable[..., Any], operands: tuple[int, ...]) -> int:
        try:
            found = function(*(self.template[place] for place in operands))
        except (ArithmeticError, LookupError, RuntimeError, TypeError, ValueError) as error:
            raise ArtifactError(f"{name} cannot be computed: {str(error).splitlines()[0]}") from error
        to = self.place(found)
        self._known.add(to)
        if name not in TENSORS and self._numbers.issuperset(operands):
            self._numbers.add(to)
        return to

    def step(self, step: Step) -> None:
        """Add the instructions of a step."""
        if isinstance(step, Let):
            self.places[step.name] = self.operand(step.value)
        elif isinstance(step, Launch):
            if step.kernel not in self.kernels:
                raise ArtifactError(f"there is no kernel {step.kernel[:80]!r}")
            operands = tuple(self.operand(value) for value in step.args)
            self._emit(_launch(self.kernels[step.kernel], operands), operands)
        elif isinstance(step, Call):
            self._call(step)
        elif isinstance(step, Require):
            self._require(step)
        else:
            self._check(step)

    def _call(self, step: Call) -> None:
        try:
            function = operators.implementation(step.operator)
        except operators.Refused as error:
            raise ArtifactError(f"operator {step.operator[:80]}: {error}") from error
        operands = tuple(self.operand(value) for value in step.args)
        keywords = {name: self.operand(value) for name, value in step.kwargs.items()}
        to = self.place() if step.name is not None else None
        self._emit(_into(to, function, operands, keywords), (*operands, *keywords.values()), to)
        if step.name is not None and to is not None:
            self.places[step.name] = to

    def _check(self, step: Check) -> None:
        tensor = self.operand(step.name)
        sizes, strides = (self.operand(["tuple", *values]) for values in (step.sizes, step.strides))

        def check(frame: Frame) -> None:
            require_layout(frame[tensor], frame[sizes], frame[strides], step.name)

        self._emit(check, (tensor, sizes, strides))

    def _require(self, step: Require) -> None:
        value = self.operand(step.value)

        def require(frame: Frame) -> None:
            if not frame[value]:
                raise InputError(f"a condition of the model does not hold: {step.text}")

        self._emit(require, (value,))

    def _emit(self, instruction: Instruction, reads: tuple[int, ...], to: int | None = None) -> None:
        self._code.append((instruction, reads, to))

    def finished(self, keep: Sequence[int]) -> list[Instruction]:
        """The instructions, with those that drop values after their last use. ``keep``: places of the results."""
        alive = {*keep, *self._known, *self._numbers}
        backwards: list[Instruction] = []
        for instruction, reads, to in reversed(self._code):
            last = {*reads, *(() if to is None else (to,))} - alive
            if last:
                backwards.append(_drop(tuple(sorted(last))))
            alive |= last
            backwards.append(instruction)
        return backwards[::-1]


def require_layout(tensor: Any, sizes: Sequence[int], strides: Sequence[int], name: str) -> None:
    """Raise ArtifactError unless ``tensor`` has these sizes, and these strides where they matter."""
    fits = isinstance(tensor, torch.Tensor) and tensor.shape == torch.Size(sizes)
    if not fits or any(a != b for a, b, n in zip(tensor.stride(), strides, sizes, strict=True) if n > 1):
        found = f"{tuple(tensor.shape)} and strides {tensor.stride()}" if isinstance(tensor, torch.Tensor) else "none"
        raise ArtifactError(
            f"an operator returned {name} with sizes {found}, and the program was made for {tuple(sizes)} and "
            f"{tuple(strides)}; package the model with this torch"
        )


def _launch(kernel: Callable[..., None], operands: tuple[int, ...]) -> Instruction:
    if len(operands) < 2:  # itemgetter of one place returns no tuple
        return lambda frame: kernel(*(frame[place] for place in operands))
    get = operator.itemgetter(*operands)
    return lambda frame: kernel(*get(frame))


def _into(
    to: int | None,
    function: Callable[..., Any],
    operands: tuple[int, ...],
    keywords: Mapping[str, int] | None = None,
) -> Instruction:
    """Call ``function`` and write what it returns to a place, if there is one."""
    get = operator.itemgetter(*operands) if len(operands) > 1 else lambda frame: tuple(frame[p] for p in operands)
    if to is None and keywords is not None and set(keywords) == {"out"}:
        out = keywords["out"]

        def call_out(frame: Frame) -> None:
            function(*get(frame), out=frame[out])

        return call_out
    named = tuple((keywords or {}).items())

    def call(frame: Frame) -> None:
        found = function(*get(frame), **{name: frame[place] for name, place in named})
        if to is not None:
            frame[to] = found

    if to is None or named:
        return call
    place = to

    def plain(frame: Frame) -> None:
        frame[place] = function(*get(frame))

    return plain


def _drop(places: tuple[int, ...]) -> Instruction:
    if len(places) == 1:
        (only,) = places

        def drop_one(frame: Frame) -> None:
            frame[only] = None

        return drop_one

    def drop(frame: Frame) -> None:
        for place in places:
            frame[place] = None

    return drop
