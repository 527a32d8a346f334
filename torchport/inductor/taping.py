"""Plays the calls of a hot graph from a tape (docs/tapes.md).

A graph's generated function is watched for some calls. Inputs that have the same address in all of them, as weights and
caches do, are constants of the tape. Every call checks that they still have it.
"""

from __future__ import annotations

import ctypes
import inspect
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from types import FrameType, FunctionType, MethodType
from typing import Any

import torch

from torchport.compat import len_torch_dispatch_stack
from torchport.errors import ArtifactError, CompilationError
from torchport.inductor.kernels import LoadedKernel
from torchport.inductor.observation.program import program_of
from torchport.inductor.savings.calls import noting
from torchport.program.executor import Executor
from torchport.program.kept import Kept, Pool
from torchport.program.memory import exposed_inputs, private_buffers
from torchport.program.operators import NAMESPACES
from torchport.program.steps import Let, Program
from torchport.runtime import events, observation
from torchport.runtime.launcher import inputs_changed, inputs_of

__all__ = ["Taped"]

_CALLS = {"auto": 32, "always": 3}
"""Which call of a graph makes its tape. Making it takes as long as it saves in about a hundred calls."""

_SECONDS = 5e-3
"""Of a call: what a tape saves is less than a hundredth of longer ones."""

_BYTES = 16 << 20
"""Of all buffers of a graph that live on between its calls, for ``auto``."""

_COMPARED = 4
"""Calls that are compared before another tape is made."""

_CHANGES = 2
"""How often an input has changed that is no constant any more."""

_OPERATORS = (*NAMESPACES, "torchport")


class Taped:
    """What is called in place of a graph's generated function.

    Threads may call it at once: one plays the tape, the others run the generated code.

    func: the generated code.
    when: ``auto`` or ``always``.
    kept: where the code has memory of its results from.
    """

    def __init__(self, call: Callable[[list[Any]], Any], when: str, kept: Kept | None = None) -> None:
        self.func = call
        self._when = when
        self._kept = kept
        self._pool: Pool | None = None  # what the graph keeps goes with this object
        self._left = _CALLS[when]  # calls until the tape is made; below 0: there will be none
        self._compared = 1  # how many of these calls are compared with an earlier one
        self._bound: _Bound | None = None
        self._calls: list[object] = []  # one for each that wants to play; the first may
        self._layouts: Any = None  # of the inputs of that call, which the generated code has checked
        self._watched: Any = None  # the same, with their addresses
        self._changed: set[int] = set()  # inputs that had another address since
        self._changes: Counter[int] = Counter()  # how often each input has changed
        self._sizes_vary = False  # whether some inputs are numbers, as those of a graph whose sizes may change
        self._fastest = float("inf")

    def _part(self) -> None:
        """Leave the code's module, which Inductor never frees: it would keep this object's memory."""
        another = self.func if self._kept is None else Taped(self.func, self._when, self._kept)
        self._code().__globals__["call"] = another  # for a graph that is loaded with the same code later

    def _code(self) -> FunctionType:
        code = self.func.__func__ if isinstance(self.func, MethodType) else self.func
        assert isinstance(code, FunctionType)
        return code

    @property
    def bound(self) -> bool:
        """Whether there is a tape."""
        return self._bound is not None

    def __call__(self, args: list[Any]) -> Any:
        """Run the graph. ``args``: its inputs; the list is emptied."""
        if self._kept is not None:
            if self._pool is None:
                self._part()
                self._pool = self._kept.open()
            self._pool.begin()
        calls = self._calls
        if self._left < 0 or calls or observation.busy() or len_torch_dispatch_stack():
            return self.func(args)
        mine = object()
        try:  # with a lock, Ctrl-C between acquiring it and this line would leave it locked
            calls.append(mine)
            if calls[0] is not mine:
                return self.func(args)
            if (bound := self._bound) is not None:
                if not (changed := inputs_changed(bound.inputs, args)):
                    return bound.play(args)
                self._unbind(changed, args)
                if self._left < 0:
                    return self.func(args)
            return self._watch(args)
        finally:
            if mine in calls:
                calls.remove(mine)

    def _unbind(self, changed: list[int], args: list[Any]) -> None:
        """No tape any more, as inputs have changed; and none for other sizes, which may change at each call."""
        self._bound = None
        if self._sizes_vary and inputs_changed(self._layouts, args):
            self._left = -1
            return
        self._changes.update(changed)
        self._compared = _COMPARED
        self._begin(self._compared + 1)

    def _begin(self, calls: int) -> None:
        self._left, self._watched = calls, None
        self._changed.clear()

    def _watch(self, args: list[Any]) -> Any:
        self._left -= 1
        if self._left > self._compared:
            return self._timed(args)
        if self._watched is None:
            return self._note(args)
        if inputs_changed(self._layouts, args):
            self._begin(self._compared + 1)
            if self._sizes_vary:
                self._left = -1
        else:
            changed = inputs_changed(self._watched, args)
            self._changed.update(changed)
            self._changes.update(changed)
            if self._left == 0:
                return self._first(args)
        return self._timed(args)

    def _note(self, args: list[Any]) -> Any:
        """Run the first of the calls that are compared. It counts if the generated code's assertions pass."""
        layouts, watched = inputs_of(args, []), inputs_of(args, list(range(len(args))))
        numbers = any(type(one) is int for one in args)
        self._left += 1
        found = self._timed(args)
        self._layouts, self._watched, self._sizes_vary = layouts, watched, numbers
        self._left = -1 if watched is None else self._left - 1  # None: a tensor of another kind
        return found

    def _timed(self, args: list[Any]) -> Any:
        notes = noting()
        given = [] if notes is None else list(args)
        started = time.perf_counter()
        found = self.func(args)
        self._fastest = min(self._fastest, time.perf_counter() - started)
        if notes is not None:
            notes.add(self, self._caller(), given, found)
        return found

    @staticmethod
    def _caller() -> FrameType | None:
        """Who called this object."""
        frame = inspect.currentframe()
        while frame is not None and frame.f_code is not Taped.__call__.__code__:
            frame = frame.f_back
        return None if frame is None else frame.f_back

    def _first(self, args: list[Any]) -> Any:
        """The call that makes the tape, if there is to be one."""
        if self._when == "always" or self._fastest <= _SECONDS:
            self._bound = self._make(args)
        if self._bound is not None:
            if self._pool is not None:
                self._pool.clear()  # the tape has buffers of its own
            return self._bound.play(args)
        self._left = -1
        return self.func(args)

    def _make(self, args: list[Any]) -> _Bound | None:
        """The tape; None if the code holds what no program can, or the tape would keep too much memory."""
        started = time.perf_counter()
        code = self._code()
        changed = self._changed | {place for place, times in self._changes.items() if times >= _CHANGES}
        try:
            bound = _bound(code, args, changed, None if self._when == "always" else _BYTES)
        except (ArtifactError, CompilationError, OSError):  # no program, no such operator, no file
            return None
        if bound is not None:
            seconds = time.perf_counter() - started
            events.record(events.Tape(code.__code__.co_filename, len(bound.constants), seconds))
            if self._kept is None:
                self._part()
        return bound


@dataclass(frozen=True)
class _Bound:
    """A tape, and the inputs that it was made for.

    tape: what runs the program: takes the inputs that change, and returns the results.
    inputs: what they were (``torchport.runtime.launcher.inputs_of``).
    constants, changing: places of those that have the same address at each call, and of the others.
    passed: results that are constants: the number of the result, and the input's place.
    """

    tape: Callable[[list[Any]], list[Any]]
    inputs: object
    constants: Sequence[int]
    changing: Sequence[int]
    passed: Sequence[tuple[int, int]]

    def play(self, args: list[Any]) -> tuple[Any, ...]:
        """Run the graph; ``args`` is emptied."""
        if self.changing or self.passed:
            held = [args[place] for place in self.constants]  # the tape has no share in their memory
            passed = [(result, args[place]) for result, place in self.passed]
            changing = [args[place] for place in self.changing]
            args.clear()
            results = self.tape(changing)
            for result, given in passed:
                results[result] = given
        else:
            held = args[:]
            args.clear()
            results = self.tape([])
        del held
        return tuple(results)


def _bound(code: FunctionType, args: list[Any], changed: set[int], most: int | None) -> _Bound | None:
    names = code.__globals__
    kernels = {name: value.launch for name, value in names.items() if isinstance(value, LoadedKernel)}
    sizes: set[str] = set()
    with open(code.__code__.co_filename, encoding="utf-8") as file:
        program = program_of(file.read(), kernels, namespaces=_OPERATORS, sizes=sizes)
    kept = private_buffers(program, _OPERATORS)
    if most is not None and sum(kept.values()) > most:
        return None
    exposed = exposed_inputs(program, _OPERATORS)
    steady = [
        place for place, name in enumerate(program.inputs)
        if place not in changed and (type(args[place]) is int or (name not in exposed and _is_memory(args[place])))
    ]  # fmt: skip
    if not sizes.isdisjoint(_names(program, changing := sorted({*range(len(args))} - {*steady}))):
        return None  # a number has changed that a tensor has as its size: what the code asserts is not known
    inputs = inputs_of(args, steady)
    if inputs is None:
        return None
    constants: dict[str, torch.Tensor | int]
    constants = {name: value for name, value in names.items() if isinstance(value, torch.Tensor)}
    with torch.inference_mode(False), torch.no_grad():
        constants |= {program.inputs[place]: _borrowed(args[place]) for place in steady}
        tape = Executor(program, kernels, constants, kept, _OPERATORS)
    return _Bound(tape.run, inputs, steady, changing, _passed(program, steady))


def _passed(program: Program, steady: Sequence[int]) -> list[tuple[int, int]]:
    places = {program.inputs[place]: place for place in steady}
    return [
        (index, places[value])
        for index, value in enumerate(program.results)
        if isinstance(value, str) and value in places
    ]


def _names(program: Program, places: Sequence[int]) -> set[str]:
    """The names of inputs, and those that the first steps give them: ``s0 = arg1_1``."""
    names = {program.inputs[place] for place in places}
    return names | {step.name for step in program.steps if isinstance(step, Let) and step.value in list(names)}


def _is_memory(tensor: torch.Tensor) -> bool:
    """Whether a tensor's values are in memory as they are: it has some, and no bit says to conjugate or negate them."""
    return bool(tensor.data_ptr()) and not (tensor.is_conj() or tensor.is_neg())


def _borrowed(given: torch.Tensor | int) -> torch.Tensor | int:
    """A tensor over the memory of ``given``, without a share in it: whoever uses it knows that the memory is there.

    A number is itself.
    """
    if isinstance(given, int):
        return given
    storage = given.untyped_storage()
    memory = (ctypes.c_char * storage.nbytes()).from_address(storage.data_ptr())
    flat = torch.frombuffer(memory, dtype=torch.uint8).untyped_storage()
    return torch.empty(0, dtype=given.dtype).set_(flat, given.storage_offset(), given.size(), given.stride())
