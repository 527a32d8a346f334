"""Run a random program compiled, and compare results, arguments afterwards and gradients with eager's."""

from __future__ import annotations

import traceback
import warnings
from typing import Any

import torch

from fuzzing.graph_compare import wrong
from fuzzing.graph_program import Program
from fuzzing.outcome import DIFFERS, ERROR, REFUSED, SAME, UNKNOWN, Outcome

_WRITTEN = "needed for gradient computation has been modified by an inplace operation"
"""Eager saves values and refuses what was written since; compiled code may have its own copies, and be right."""


def run(program: Program, backend: str = "torchport") -> Outcome:
    """What the program does with a backend of torch.compile."""
    warnings.filterwarnings("ignore")
    torch._dynamo.reset()
    compiled = torch.compile(program.function(), backend=backend, dynamic=program.dynamic)
    eager, wide = program.function(), program.function(wide=True)
    for call in range(program.calls):
        want, error = _attempt(program, eager, call, False)
        exact, no_wide = _attempt(program, wide, call, True)
        got, failure = _attempt(program, compiled, call, False)
        if error is not None:
            if isinstance(error, (NameError, SyntaxError)):
                return Outcome(UNKNOWN, str(error))
            if failure is not None:
                continue
            refusal = f"no error; eager raises {type(error).__name__}: {_line(error)}"
            if _WRITTEN not in refusal:
                return Outcome(DIFFERS, refusal)
            with torch.autograd.graph.allow_mutation_on_saved_tensors():
                want, error = _attempt(program, eager, call, False)
            with torch.autograd.graph.allow_mutation_on_saved_tensors():
                exact, no_wide = _attempt(program, wide, call, True)
            if error is not None:
                return Outcome(DIFFERS, refusal)
        if failure is not None:
            kind = REFUSED if type(failure).__module__.startswith("torchport") else ERROR
            text = "".join(traceback.format_exception(failure))[-1500:]
            return Outcome(kind, f"{text}\n{type(failure).__name__}: {_line(failure)}")
        assert want is not None and got is not None
        for name, value in want.items():
            reference = exact.get(name) if exact is not None and no_wide is None else None
            base = name.split(" ")[0]
            approximate = base in program.approximate or "gradient" in name
            if problem := wrong(got[name], value, reference, not approximate, program.narrowest):
                return Outcome(DIFFERS, f"{name}, call {call}: {problem}")
    return Outcome(SAME)


def _line(error: BaseException) -> str:
    return next((line.strip() for line in str(error).splitlines() if line.strip()), "")[:300]


def _attempt(
    program: Program, function: Any, call: int, wide: bool
) -> tuple[dict[str, Any] | None, BaseException | None]:
    """Results by name, arguments afterwards, which results share memory with arguments, and gradients; or the error."""
    arguments = program.make(call, wide)
    try:
        outputs = function(*arguments)
        found: dict[str, Any] = dict(zip(program.results, outputs, strict=True))
        if any(i.grad for i in program.inputs):
            found |= _gradients(program, arguments, found)
    except Exception as error:  # noqa: BLE001 - whatever eager raises is to be raised compiled
        return None, error
    for given, argument in zip(program.inputs, arguments, strict=True):
        if not given.grad:
            found[f"{given.name} afterwards"] = argument
        for name, output in zip(program.results, outputs, strict=True):
            if isinstance(output, torch.Tensor) and not wide:
                shared = output.untyped_storage().data_ptr() == argument.untyped_storage().data_ptr()
                found[f"{name} shares memory with {given.name}"] = shared
    return found, None


def _gradients(program: Program, arguments: list[torch.Tensor], found: dict[str, Any]) -> dict[str, Any]:
    outputs = [o for o in found.values() if isinstance(o, torch.Tensor) and o.requires_grad]
    generator = torch.Generator().manual_seed(program.seed)
    loss = torch.zeros((), dtype=torch.float64)
    for output in outputs:
        weight = torch.randint(-2, 3, output.shape, generator=generator)
        loss = loss + (output * weight).sum().double()
    if outputs:
        loss.backward()
    return {
        f"{i.name} gradient": a.grad if a.grad is not None else "none"
        for i, a in zip(program.inputs, arguments, strict=True)
        if i.grad
    }
