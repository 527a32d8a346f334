"""A process that builds operators: reads items, one a line, and writes what came of them as lines of JSON."""

from __future__ import annotations

import inspect
import os
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import torch
from torch.utils._pytree import tree_map

from torchport.errors import CompilationError, TargetError, TorchportError
from torchport.ops.launch import ELEMENTS
from torchport.ops.registry import Operator, Sample, operators
from torchport.plugin import backend_for
from torchport.prebuild.building import Outcome
from torchport.prebuild.items import DTYPES, Item, has_torch_device
from torchport.prebuild.recorded import recorded
from torchport.runtime import events
from torchport.runtime.cache import object_cache
from torchport.runtime.operators import tensors_in
from torchport.target import Target

__all__ = ["main", "outcome"]

_ROWS = (512, 1024, 2048)
"""Lengths of rows beside those of the samples: kernels have a block for each power of two."""


def outcome(item: Item, target: Target, device: torch.device) -> Outcome:
    """Build one item; errors become part of what is returned."""
    name = ELEMENTS[DTYPES[item.dtype]]
    if name not in backend_for(target).capabilities(target).dtypes:
        return Outcome("unsupported", f"{target} has no {name}")
    started, before = time.perf_counter(), object_cache().writes
    verdict, detail = "there", ""
    with events.capture() as happened:
        try:
            _run(item, device)
        except CompilationError as error:
            verdict, detail = "unsupported", _sentence(error)
        except TorchportError as error:
            verdict, detail = "failed", _sentence(error)
    kernels = sum(isinstance(event, events.Kernel) and not event.cached for event in happened)
    if verdict == "there" and object_cache().writes > before:
        verdict = "built"
    elif verdict == "there" and kernels:
        verdict, detail = "failed", "the cache does not take its code any more"
    return Outcome(verdict, detail, kernels, round(time.perf_counter() - started, 3))


def _sentence(error: BaseException) -> str:
    text = " ".join(str(error).split())
    return text if len(text) <= 400 else f"{text[:400]}…"


def _run(item: Item, device: torch.device) -> None:
    """Run an operator in all of its forms. Raises TorchportError, also for an error that is not torchport's."""
    try:
        dtype = DTYPES[item.dtype]
        if item.place is not None:
            recorded()[item.place].run(dtype, device)
            return
        operator = next(operator for operator in operators() if operator.name == item.name)
        for sample in _samples(operator, dtype):
            _sample(operator, sample, device)
    except TorchportError:
        raise
    except Exception as error:  # a target's compiler or driver can raise anything; one item must not end the build
        raise TorchportError(f"unexpected {type(error).__name__}: {_sentence(error)}") from error


def _samples(operator: Operator, dtype: torch.dtype) -> Iterator[Sample]:
    first = None
    for sample in operator.samples(dtype):
        first = first or sample
        yield sample
    if first is not None and operator.by_rows:
        yield from (_stretched(first, length) for length in _ROWS)


def _stretched(sample: Sample, length: int) -> Sample:
    """The same with rows of ``length``."""
    own = next(tensors_in(sample.args)).shape[-1]

    def longer(value: Any) -> Any:
        if not isinstance(value, torch.Tensor):
            return value
        return value.new_zeros([length if size == own else size for size in value.shape])

    return replace(sample, args=tree_map(longer, sample.args))


def _sample(operator: Operator, sample: Sample, device: torch.device) -> None:
    """One call and its gradients."""
    args = tree_map(lambda value: value.to(device) if isinstance(value, torch.Tensor) else value, sample.args)
    names = list(inspect.signature(operator.call).parameters)
    inputs = [args[names.index(name)] for name in operator.differentiable]
    floats = (value for value in inputs if isinstance(value, torch.Tensor) and value.is_floating_point())
    inputs = [value.requires_grad_() for value in floats]
    results = [result for result in tensors_in([operator.call(*args)]) if result.requires_grad]
    if results:
        torch.autograd.grad(results, inputs, [torch.ones_like(result) for result in results])


def main(arguments: list[str]) -> int:
    """Build for ``TARGET`` every item that is read from standard input, until it ends."""
    results = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # output of compilers and libraries must not mix with results
    target = Target.parse(arguments[0])
    try:
        device = torch.device("cpu")
        if has_torch_device(target):
            from torchport.torch_device import api

            device = api.device(target)  # before the first gradient
    except TargetError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print("ready", file=results)
    for line in sys.stdin:
        print(outcome(Item.parse(line), target, device).as_json(), file=results)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
