"""PyTorch's own database of operators (OpInfo) through torch.compile: samples, references, what differs."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from fuzzing.graph_compare import wrong
from torch.utils._pytree import tree_leaves, tree_map

DTYPES = ("float32", "bfloat16", "float16", "int64", "uint8", "bool", "complex64")
WIDER = {"float32": "float64", "bfloat16": "float64", "float16": "float64", "complex64": "complex128"}
GRADIENT = "gradient"
"""In place of a dtype: results and gradients in float32."""
LARGEST = 2000
"""Elements of a sample's tensors, at most: larger ones take longer and reach no other code."""
MANY = 40
UNINITIALISED = {"empty", "empty_like", "empty_permuted", "empty_strided", "new_empty", "new_empty_strided"}
"""Operators whose results hold anything: dtypes and sizes are compared."""
REFUSALS = (RuntimeError, TypeError, ValueError, LookupError, NotImplementedError, AssertionError)
Call = tuple[Any, tuple[Any, ...], dict[str, Any]]


@functools.cache
def operators() -> dict[str, Any]:
    """The database's operators by name, with the variant behind a dot."""
    from torch.testing._internal.common_methods_invocations import op_db

    return {f"{op.name}.{op.variant_test_name}" if op.variant_test_name else str(op.name): op for op in op_db}


def cases(op: Any, count: int) -> dict[str, list[Call]]:
    """Samples by dtype, those that eager takes."""
    kinds = [d for d in DTYPES if getattr(torch, d) in op.dtypes]
    kinds += [GRADIENT] * (op.supports_autograd and torch.float32 in op.dtypes)
    return {kind: calls for kind in kinds if (calls := samples(op, kind, count))}


def samples(op: Any, kind: str, count: int) -> list[Call]:
    """The first small sample, the last, and some between them, `count` in all, of the first MANY samples."""
    torch.manual_seed(0)
    gradient = kind == GRADIENT
    made = op.sample_inputs("cpu", getattr(torch, "float32" if gradient else kind), requires_grad=gradient)
    calls = [(s.input, tuple(s.args), dict(s.kwargs)) for s in itertools.islice(made, MANY)]
    small = [c for c in calls if sum(t.numel() for t in _tensors(c)) <= LARGEST and _works(op, c, gradient)]
    step = max(1, (len(small) - 1) // max(1, count - 1))
    return small[::step][:count]


def problems(op: Any, tried: Mapping[str, Sequence[Call]], backend: str) -> list[str]:
    """What differs between compiled and eager. One graph has the samples of all dtypes, another the gradients'."""

    def program(calls: Sequence[Call]) -> list[Any]:
        return [op.op(first, *rest, **named) for first, rest, named in calls]

    found = []
    forward = {kind: calls for kind, calls in tried.items() if kind != GRADIENT}
    for group in (forward, {k: c for k, c in tried.items() if k == GRADIENT}):
        if not group:
            continue
        torch._dynamo.reset()
        calls = [call for calls in group.values() for call in calls]
        got = _results(torch.compile(program, backend=backend), calls, GRADIENT in group)
        begin = 0
        for kind, calls in group.items():
            want = _results(program, calls, kind == GRADIENT)
            mine, begin = got[begin : begin + len(want)], begin + len(want)
            found += _differences(op, kind, mine, want, _wide(program, calls, kind, want))
    return found


def device_problems(op: Any, tried: Mapping[str, Sequence[Call]], device: torch.device) -> list[str]:
    """What differs between eager on a torch device and on the CPU."""

    def program(calls: Sequence[Call]) -> list[Any]:
        return [op.op(first, *rest, **named) for first, rest, named in calls]

    def moved(value: Any) -> Any:
        if isinstance(value, torch.Tensor):
            return value.detach().to(device).requires_grad_(value.requires_grad)
        return device if isinstance(value, torch.device) else value

    found = []
    for kind, calls in tried.items():
        want = _results(program, calls, kind == GRADIENT)
        there = _results(program, tree_map(moved, list(calls)), kind == GRADIENT)
        got = [value.detach().cpu() if isinstance(value, torch.Tensor) else value for value in there]
        found += _differences(op, kind, got, want, _wide(program, calls, kind, want))
    return found


def _differences(op: Any, kind: str, got: Sequence[Any], want: Sequence[Any], wide: Sequence[Any]) -> list[str]:
    """What is wrong with each of the results that ``kind`` gave."""
    found = []
    for number, (g, e, w) in enumerate(zip(got, want, wide, strict=True)):
        if op.name in UNINITIALISED:
            g, e = torch.zeros_like(g), torch.zeros_like(e)
        exact = isinstance(e, torch.Tensor) and not e.is_floating_point() and not e.is_complex()
        if text := wrong(g, e, w, exact):
            found.append(f"{kind}, result {number}: {text}")
    return found


def fails(op: Any, kind: str, calls: Sequence[Call], backend: str) -> bool:
    """Whether one dtype gives wrong results or an error."""
    try:
        return bool(problems(op, {kind: calls}, backend))
    except REFUSALS:
        return True


def _tensors(value: Any) -> list[torch.Tensor]:
    return [leaf for leaf in tree_leaves(value) if isinstance(leaf, torch.Tensor)]


def _results(program: Any, calls: Sequence[Call], gradient: bool) -> list[Any]:
    """Results; with `gradient` then those of all tensors that have one, for random weights of the results."""
    torch.manual_seed(1)
    calls = tree_map(_copy, list(calls))
    results = tree_leaves(program(calls))
    if not gradient:
        return results
    outputs = [r for r in results if isinstance(r, torch.Tensor) and r.requires_grad]
    generator = torch.Generator().manual_seed(2)
    weights = [torch.randint(-2, 3, o.shape, generator=generator).to(o.device, o.dtype) for o in outputs]
    torch.autograd.backward(outputs, weights)
    return [*results, *(t.grad for t in _tensors(calls) if t.requires_grad and t.grad is not None)]


def _wide(program: Any, calls: Sequence[Call], kind: str, want: Sequence[Any]) -> Sequence[Any]:
    """The results in float64, where the operator takes it and there is a wider type; else a None for each."""
    dtype = "float32" if kind == GRADIENT else kind
    nothing = [None] * len(want)
    if dtype not in WIDER:
        return nothing
    narrow, wide = getattr(torch, dtype), getattr(torch, WIDER[dtype])

    def widened(value: Any) -> Any:
        if isinstance(value, torch.Tensor) and value.dtype == narrow:
            return value.detach().to(wide).requires_grad_(value.requires_grad)
        return wide if value is narrow else value

    try:
        results = _results(program, tree_map(widened, list(calls)), kind == GRADIENT)
    except REFUSALS:
        return nothing
    return results if len(results) == len(want) else nothing


def _copy(value: Any) -> Any:
    """Its own memory, and no graph behind it."""
    return value.detach().clone().requires_grad_(value.requires_grad) if isinstance(value, torch.Tensor) else value


def _works(op: Any, call: Call, gradient: bool) -> bool:
    try:
        _results(lambda calls: [op.op(first, *rest, **named) for first, rest, named in calls], [call], gradient)
    except REFUSALS:
        return False
    return True
